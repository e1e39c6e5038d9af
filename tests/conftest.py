"""Hypothesis profiles: quick by default, thorough and reproducible in CI, long at night.

And the table of faults, see `support/fault_table.py`.
"""

from __future__ import annotations

import os

from hypothesis import settings
from hypothesis.configuration import set_hypothesis_home_dir
from support.fault_table import pytest_addoption, pytest_terminal_summary, tried

__all__ = ["pytest_addoption", "pytest_terminal_summary", "tried"]

set_hypothesis_home_dir(".cache/hypothesis")
settings.register_profile("dev", max_examples=50, deadline=None)
settings.register_profile("ci", max_examples=500, deadline=None, derandomize=True)
settings.register_profile("nightly", max_examples=20_000, deadline=None)
settings.load_profile(
    os.environ.get("HYPOTHESIS_PROFILE", "ci" if "CI" in os.environ else "dev")
)
