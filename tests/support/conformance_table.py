"""A table of the conformance suites: what of containerd's each test restates, and how it went.

A test of the suites names what it restates at the end of its docstring, `Upstream: a, b.`, or
`Upstream: none.` `--conformance-table` prints a row for each such name: which implementations
passed, failed, or were skipped, as are those that lack what the test is about.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

_OUTCOMES = ("passed", "skipped", "failed")
_ROWS = pytest.StashKey[dict[tuple[str, str], dict[str, str]]]()
_UPSTREAM = re.compile(r"Upstream: ([^.]+)\.\s*$")


def add_options(parser: pytest.Parser) -> None:
    parser.addoption(
        "--conformance-table",
        action="store_true",
        help="print what the conformance suites restate, and how each test went",
    )


def restated(docstring: str | None) -> list[str]:
    """Return the names of the upstream tests that a test restates; none if it names none."""
    found = _UPSTREAM.search(docstring or "")
    return [] if found is None else re.split(r",\s+", found[1])


def note(
    config: pytest.Config, path: Path, function: Callable[..., object], over: str, outcome: str
) -> None:
    """Note how the test of that file went for the implementation `over`."""
    rows = config.stash.setdefault(_ROWS, {})
    for name in restated(function.__doc__):
        row = rows.setdefault((name, f"{path.name}::{function.__name__}"), {})
        # Of several runs over one implementation the worst counts.
        row[over] = max(outcome, row.get(over, outcome), key=_OUTCOMES.index)


def print_table(reporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    rows = config.stash.get(_ROWS, {})
    if not rows or not config.getoption("--conformance-table"):
        return
    reporter.write_line(f"\n| upstream | here | {' | '.join(_OUTCOMES)} |")
    reporter.write_line("| --- | --- | --- | --- | --- |")
    for (name, test), row in sorted(rows.items()):
        told = [", ".join(over for over in row if row[over] == kind) for kind in _OUTCOMES]
        reporter.write_line(f"| {name} | `{test}` | {' | '.join(told)} |")
