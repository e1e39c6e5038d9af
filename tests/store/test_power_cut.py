"""Losing power at any single file operation loses no acknowledged commit, nor half of one.

Method: run a fixed workload once to count its file operations, then once more for each of
them, cutting the power there. Whatever of several possible disks comes up afterwards must
open, verify, and hold the state after one commit, none older than the last acknowledged
durable one. Then the power is cut a second time, at each operation of that recovery, and a
third time, at some operation of the recovery from that.

The same run on a disk whose syncs lie must fail the same test, or it tests nothing.
"""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from hypothesis import settings
from support import buckets
from support.fault_table import Note
from support.workload import ROOT, Trace, open_store, run

import blobkv
from blobkv.errors import PoisonedError
from blobkv.testing import Keep, PowerCut, SimulatedDisk

pytestmark = [
    pytest.mark.usefixtures("room_ahead"),
    # A background thread of the store that lost its power says so; nobody is left to hear it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]

SEEDS = max(3, settings().max_examples // 50)
# So small a memtable that logs are rotated within the run.
ROTATING = 2000
KEEPS: tuple[Keep, ...] = ("all", "none", *("random",) * SEEDS)


def test_the_whole_run_survives_a_cut_at_its_end() -> None:
    disk, trace = SimulatedDisk(), Trace()
    run(disk, trace)

    for keep in KEEPS:
        assert recover(disk.crash(random.Random(0), keep=keep)) == trace.states[-1]


@pytest.mark.slow
def test_a_cut_at_every_operation(tried: Note) -> None:
    points = 0
    for number in range(1, operations_of_a_run() + 1):
        disk, trace = cut_run(number)
        for seed, keep in enumerate(KEEPS):
            survivors = recover(disk.crash(random.Random(seed), keep=keep))
            assert trace.accepts(survivors), f"operation {number}, {keep} {seed}"
            points += 1
    tried("power cut at every operation", points)


@pytest.mark.slow
@pytest.mark.usefixtures("small_pieces")
def test_a_cut_at_every_operation_beside_flushes_and_compactions(tried: Note) -> None:
    points = 0
    for number in range(1, operations_of_a_run(ROTATING) + 1):
        disk, trace = cut_run(number, memtable_size=ROTATING)
        for seed, keep in enumerate(KEEPS):
            survivors = recover(disk.crash(random.Random(seed), keep=keep))
            assert trace.accepts(survivors), f"operation {number}, {keep} {seed}"
            points += 1
    tried("power cut, beside work in the background", points)


@pytest.mark.slow
def test_a_second_cut_at_every_operation_of_the_recovery(tried: Note) -> None:
    points = 0
    for number in range(1, operations_of_a_run() + 1):
        disk, trace = cut_run(number)
        rng = random.Random(number)
        first = disk.crash(rng)
        rehearsal = first.crash(rng, keep="all")
        recover(rehearsal)
        for second in range(1, rehearsal.operations + 1):
            again = first.crash(rng, keep="all")
            again.cut_at = second
            with pytest.raises(PowerCut):
                recover(again)
            survivors = recover(again.crash(rng))
            assert trace.accepts(survivors), f"operations {number} and {second}"
            points += 1
    tried("power cut in a recovery", points)


@pytest.mark.slow
def test_a_third_cut_in_the_recovery_from_the_second(tried: Note) -> None:
    points = 0
    for number in range(1, operations_of_a_run() + 1):
        disk, trace = cut_run(number)
        rng = random.Random(number)
        for _ in range(2 * SEEDS):
            for _ in range(2):
                disk = disk.crash(rng)
                disk.cut_at = rng.randint(1, 12)
                with suppress(PowerCut):
                    recover(disk)
            disk = disk.crash(rng)
            assert trace.accepts(recover(disk)), f"operation {number}"
            points += 1
    tried("power cut in the recovery of a recovery", points)


def test_what_a_store_showed_after_a_cut_stays() -> None:
    """What was not acknowledged may survive a cut or not, but not first show and then go."""
    for number in range(1, operations_of_a_run() + 1, 3):
        disk, _ = cut_run(number)
        rng = random.Random(number)
        once = disk.crash(rng)
        shown = recover(once)

        assert recover(once.crash(rng, keep="none")) == shown, f"operation {number}"


def test_a_lying_disk_is_found_out() -> None:
    caught = 0
    for number in range(1, operations_of_a_run() + 1, 5):
        disk, trace = cut_run(number, lie=True)
        try:
            survivors = recover(disk.crash(random.Random(number), keep="none"))
        except blobkv.CorruptionError:
            caught += 1
        else:
            caught += not trace.accepts(survivors)

    assert caught > 0


def operations_of_a_run(memtable_size: int = 1 << 16) -> int:
    disk = SimulatedDisk()
    run(disk, Trace(), memtable_size)
    return disk.operations


def cut_run(
    number: int, *, lie: bool = False, memtable_size: int = 1 << 16
) -> tuple[SimulatedDisk, Trace]:
    disk, trace = SimulatedDisk(lie=lie), Trace()
    disk.cut_at = number
    # The thread in the background may have met the cut first.
    with suppress(PowerCut, PoisonedError):
        run(disk, trace, memtable_size)
    return disk, trace


def recover(disk: SimulatedDisk) -> buckets.Contents:
    """Open what a power cut left, verify it, and return all it holds."""
    disk.make_directory(ROOT)
    with open_store(disk) as store:
        assert store.verify().ok
        with store.view() as txn:
            return buckets.dump(txn)
