"""A kill at any system call, and the power cut there, loses no acknowledged commit.

Method: strace kills a process that makes a fixed run of calls on a store as it enters one of
its system calls on the store's files. Where the store lies on a file system of the test's own,
that then loses its power, too, so that only what was synced is left. The store must verify and
hold the history up to some change, none older than the last acknowledged.

A few numbers of each system call, from the first to the last, get their turn; with
`BLOBKV_ERRORS=all` every one.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import history, injection, machine, volumes

pytestmark = pytest.mark.slow

SEED = 11
LIMIT = None if os.environ.get("BLOBKV_ERRORS") == "all" else 3
CALLS = ("fdatasync", "fsync", "pwrite64", "ftruncate", "rename", "unlink", "open")


@contextmanager
def place(kind: str, directory: Path) -> Iterator[tuple[Path, Callable[[], None]]]:
    """Have a directory for stores, and what to do when a process in it was killed."""
    if kind == "kill":
        yield directory.resolve(), lambda: None
    else:
        with volumes.loop(directory.resolve(), kind) as volume:
            yield volume.path, volume.cut_power


@pytest.fixture(scope="module")
def counts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, int]:
    """How often each call is made when nobody is killed."""
    machine.require_injection()
    path = tmp_path_factory.mktemp("rehearsal").resolve() / "db"
    told = injection.traced(path, SEED, ",".join(CALLS))

    assert told.status == 0
    return told.calls


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("kind", ["kill", "ext4", "xfs"])
def test_a_kill_at_a_system_call_loses_no_acknowledged_commit(
    counts: dict[str, int], tmp_path: Path, kind: str, call: str
) -> None:
    points = injection.spread(counts[call], LIMIT)
    killed = 0
    with place(kind, tmp_path) as (directory, end):
        for number in points:
            path = directory / f"{number}" / "db"
            path.parent.mkdir()
            told = injection.traced(path, SEED, call, f"signal=SIGKILL:when={number}")
            end()
            assert told.status in {0, -signal.SIGKILL}
            killed += told.status != 0
            survived = history.survived(path, SEED)
            assert survived >= told.acknowledged, f"{call} {number} on {kind}"
    print(f"{killed} of {len(points)} runs killed")

    assert killed
