"""Work in the background is cut into slices, and commits are slowed down before they must wait.

Method: slices, steps, and delays are counted, never timed: sleeping is replaced by counting.
"""

from __future__ import annotations

import random
import threading

import pytest

import blobkv
from blobkv._engine import compaction, maintenance, pace, pressure
from blobkv._engine.compaction import in_order
from blobkv._engine.pace import Pace
from blobkv._engine.pressure import Pressure
from blobkv.errors import ClosedError
from blobkv.testing import SimulatedDisk


class Clock:
    """A clock that moves only by sleeping."""

    def __init__(self) -> None:
        self.ns = 0
        self.slept: list[float] = []

    def monotonic_ns(self) -> int:
        return self.ns

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.ns += int(seconds * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(pace, "time", clock)
    monkeypatch.setattr(pressure, "time", clock)
    return clock


def test_a_slice_ends_after_a_millisecond(clock: Clock) -> None:
    work = Pace(lambda: None)
    for _ in range(100):
        clock.ns += 300_000
        work()

    assert len(clock.slept) == 25


def test_a_merge_steps_between_all_of_its_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        for seed in range(2):
            rng = random.Random(seed)
            with store.update() as txn:
                txn.update({rng.randbytes(10): bytes(100) for _ in range(6000)})
            store._freeze().maintenance.flush()
        steps = []
        monkeypatch.setattr(Pace, "__call__", lambda self: steps.append(threading.get_ident()))
        store.compact()

        # A chunk of a merge is at most 1024 keys of each source.
        assert len(steps) > 12_000 / 2048


def test_no_sort_is_of_more_keys_than_a_slice_has_time_for() -> None:
    rng = random.Random(1)
    entries = {rng.randbytes(12): None for _ in range(100_000)}
    steps = []
    parts = compaction._parted(list(entries), lambda: steps.append(1))

    assert max(map(len, parts)) <= compaction._SORTED_MAX
    assert len(steps) == -(-len(entries) // compaction._CHUNK_COUNT)
    found = [key for keys, _ in in_order(entries, lambda: None) for key in keys]
    assert found == sorted(entries)


@pytest.mark.parametrize("count", [0, 1, 20_000])
def test_keys_that_hardly_differ_are_ordered_too(count: int) -> None:
    entries = {b"same" * 20 + b"%d" % number: b"" for number in range(count)}
    found = [key for keys, _ in in_order(entries, lambda: None) for key in keys]

    assert found == sorted(entries)


def test_delays_grow_with_bytes_and_with_how_far_behind(clock: Clock) -> None:
    slowing = Pressure()
    slowing.delay(1 << 20, 0)
    assert slowing.stalls == 0
    slowing.delay(1 << 20, 0.25)
    slowing.delay(1 << 20, 0.5)
    slowing.delay(1 << 21, 0.5)

    assert slowing.stalls == 3
    assert clock.slept == sorted(clock.slept)
    assert sum(clock.slept) == pytest.approx(slowing.stall_ns / 1e9, rel=0.01)


def test_no_delay_is_long_and_what_is_left_of_it_is_kept(clock: Clock) -> None:
    slowing = Pressure()
    slowing.delay(1 << 22, 1)
    for _ in range(5):
        slowing.delay(0, 1)

    assert slowing.stalls == 6
    assert max(clock.slept) <= 0.05


def test_small_commits_are_delayed_together(clock: Clock) -> None:
    slowing = Pressure()
    for _ in range(1000):
        slowing.delay(200, 0.5)

    assert 1 <= slowing.stalls <= 4


def test_commits_stall_when_flushes_are_held_up(
    clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blobkv.open("/db", fs=SimulatedDisk(), memtable_size=200_000) as store:
        work = store._source.maintenance
        with work._step:
            for number in range(400):
                with store.update() as txn:
                    txn.put(b"%d" % number, bytes(1000))
        stats = store.stats()

        assert stats.stalls > 0
        assert stats.stall_ns > 0
        assert stats.frozen_count >= 1


def test_how_far_merges_are_behind_is_told_by_runs_and_by_space() -> None:
    assert maintenance._between((12, 24), 4) == 0
    assert maintenance._between((12, 24), 18) == 0.5
    assert maintenance._between((12, 24), 99) == 1


def test_syncs_are_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        for number in range(3):
            with store.update() as txn:
                txn.put(b"key", b"%d" % number)
        stats = store.stats()

    assert 0 < stats.sync_ns_max <= stats.sync_ns
    assert stats.syncs == 3


def test_work_ends_at_its_next_slice_when_the_store_closes() -> None:
    store = blobkv.open("/db", fs=SimulatedDisk())
    work = store._source.maintenance
    store.close()

    with pytest.raises(ClosedError):
        work.builder.pace()
    with pytest.raises(ClosedError):
        work.compact()
