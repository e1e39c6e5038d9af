"""Hypothesis profiles: quick by default, thorough and reproducible in CI, long at night.

And what the command line may ask of some tests: the table of faults, see
`support/fault_table.py`, the conformance suites' table, and what those run over, see
`support/implementations.py`.
"""

from __future__ import annotations

import os

import pytest
from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir
from support import conformance_table, fault_table
from support.fault_table import tried

__all__ = ["tried"]

set_hypothesis_home_dir(".cache/hypothesis")
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=20_000, deadline=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev")
)


def pytest_addoption(parser: pytest.Parser) -> None:
    fault_table.pytest_addoption(parser)
    conformance_table.add_options(parser)
    # Not the suites' own, for pytest reads their conftest too late to learn options from it.
    for what in ("snapshotter", "content"):
        parser.addoption(
            f"--{what}",
            action="append",
            default=[],
            metavar="MODULE:FACTORY",
            help=f"test this {what} for conformance",
        )
    parser.addoption(
        "--lacks", action="append", default=[], metavar="FEATURE", help="what it does not have"
    )


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    fault_table.pytest_terminal_summary(terminalreporter, config)
    conformance_table.print_table(terminalreporter, config)
