"""A table of the faults that a run of the tests has tried, for who wants to know how many.

A test notes each kind of fault and at how many points it was tried, once it has found nothing
lost and nothing wrong: a test that fails adds no row. `--fault-table` prints the rows, and CI
always does.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable

import pytest

_ROWS = pytest.StashKey[dict[str, tuple[int, float]]]()

Note = Callable[[str, int], None]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--fault-table", action="store_true", help="print which faults were tried, how often"
    )


@pytest.fixture
def tried(request: pytest.FixtureRequest) -> Note:
    """Notes a kind of fault and the points at which this test tried it, in vain."""
    began = time.monotonic()

    def note(kind: str, points: int) -> None:
        rows = request.config.stash.setdefault(_ROWS, {})
        before, seconds = rows.get(kind, (0, 0.0))
        rows[kind] = before + points, seconds + time.monotonic() - began

    return note


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    rows = config.stash.get(_ROWS, {})
    if rows and (config.getoption("--fault-table") or "CI" in os.environ):
        print_line = terminalreporter.write_line
        print_line("\n| fault | points | lost | wrong | seconds |")
        print_line("| --- | ---: | ---: | ---: | ---: |")
        for kind, (points, seconds) in rows.items():
            print_line(f"| {kind} | {points:,} | 0 | 0 | {seconds:.0f} |")
