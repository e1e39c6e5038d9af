"""A process that dies at any change to the disk leaves a map as before the call, or after it.

Method: real processes play the steps of `map_workload` over the embedded snapshotter and
content store, and end at one change that one of the three stores makes to its directory. The
directory is opened here, and must show what the model has before the broken step, or after
it. `BLOBMAP_KILL_EVERY=1` takes every change; usually it is one of many.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support.children import run
from support.fault_table import Note
from support.killed_map import open_at
from support.map_model import HOUR, Clock, check_feed, state_of
from support.map_workload import WORKLOAD, acceptable

EVERY = int(os.environ.get("BLOBMAP_KILL_EVERY", "53"))
# So many processes a run, so that their directories are looked at in between.
ROUND = 12


def reopened(root: Path, done: int) -> dict[str, object]:
    """What the map is when it is opened after the death of its process."""
    clock = Clock()
    clock.now += HOUR * sum(call == "tick" for call, _, _ in WORKLOAD[:done])
    with open_at(root, clock) as target:
        found = state_of(target)
        target._parts.refs.check()
        check_feed(target)
        assert target.reconcile(force=True).ok
    return found


@pytest.mark.slow
def test_a_process_may_end_at_any_change_it_makes_to_the_disk(
    tmp_path: Path, tried: Note
) -> None:
    points, first, done = 0, 1, 0
    while done < len(WORKLOAD):
        last = first + ROUND * EVERY - 1
        lines, code = run("killed_map", tmp_path, first, last, EVERY)
        assert code == 0
        for number, done in (map(int, line.split()) for line in lines):
            root = tmp_path / str(number)
            assert reopened(root, done) in acceptable()[done], f"step {done}, change {number}"
            points += done < len(WORKLOAD)
        first = last + 1
    tried("a process ends at a change of a map or its stores", points)
