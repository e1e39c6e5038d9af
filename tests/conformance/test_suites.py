"""The suites find each of some faults that are put into an implementation.

Method: run them as a user does, by the names of factories, over the fakes with one fault each
(`support.faulty`): those tests that should find one. Over the fakes as they are all pass.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest
from support.faulty import CONTENTS, SNAPSHOTTERS

TESTS = Path(__file__).parents[1]
FAILED = re.compile(r"^FAILED .*::(test_\w+)\[support\.faulty:(\w+)", re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("option", "faults"),
    [("--snapshotter", SNAPSHOTTERS), ("--content", CONTENTS)],
    ids=["snapshotters", "contents"],
)
def test_each_fault_is_found_by_the_test_of_what_it_breaks(
    option: str, faults: dict[str, str]
) -> None:
    """Upstream: none."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", TESTS / "conformance", "-q", "-rf", "--tb=no"),
            *("--lacks", "trees", "--lacks", "reopening", "-k", " or ".join(faults.values())),
            *(f"{option}=support.faulty:{factory}" for factory in faults),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=TESTS.parent,
        env=os.environ | {"PYTHONPATH": str(TESTS)},
    )
    found = defaultdict(set)
    for test, factory in FAILED.findall(done.stdout):
        found[factory].add(test)

    for factory, test in faults.items():
        assert test in found[factory], done.stdout
