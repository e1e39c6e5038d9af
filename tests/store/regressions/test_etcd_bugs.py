"""What went wrong in etcd goes right here: names that are durable, and stores half made."""

from __future__ import annotations

import errno
import random
from contextlib import suppress
from itertools import count

import pytest
from support.pairs import after, pairs, put

import blobkv
from blobkv.testing import PowerCut, SimulatedDisk
from blobkv.testing.nodes import DirectoryNode

PATH = "/srv/data/db"


def test_each_commit_is_durable_with_the_names_of_its_files() -> None:
    """Etcd #6368, #22340: a log was synced, its name in the directory was not.

    After each commit all that was not synced is lost, names too: the first of a store, of a
    log, after a flush, after a compaction, after an open.
    """
    disk = SimulatedDisk()
    expected = set()
    for opened in range(3):
        with blobkv.open("/db", fs=disk) as store:
            for step in (bool, store._freeze, store.flush, store.compact, bool):
                step()
                key = b"%d/%d" % (opened, len(expected))
                put(store, key)
                expected.add(key)
                assert set(after(disk)) == expected
        assert set(after(disk)) == expected


def test_the_directories_above_a_new_store_are_durable_with_its_first_commit() -> None:
    """Etcd #6368, a step higher; bbolt never syncs the directory that its file is made in."""
    disk = SimulatedDisk()
    with blobkv.open(PATH, fs=disk) as store:
        put(store, b"key")
        store.backup("/backups/today/copy")
        survivor = disk.crash(random.Random(0), keep="none")
    for path in (PATH, "/backups/today/copy"):
        with blobkv.open(path, fs=survivor, create=False) as store:
            assert pairs(store) == {b"key": b"value"}


def test_a_directory_that_somebody_else_has_made_is_durable_with_its_first_commit() -> None:
    """Etcd #6368, for a directory that the caller made just before and did not sync."""
    disk = SimulatedDisk()
    for parent in ("/stores", "/copies"):
        disk.make_directory(parent)
        disk._volume.directory(parent).place("made", DirectoryNode())
    with blobkv.open("/stores/made", fs=disk) as store:
        put(store, b"key")
        store.backup("/copies/made")
        survivor = disk.crash(random.Random(0), keep="none")
    for parent in ("/stores", "/copies"):
        with blobkv.open(f"{parent}/made", fs=survivor, create=False) as store:
            assert pairs(store) == {b"key": b"value"}


def make(disk: SimulatedDisk) -> None:
    with blobkv.open(PATH, fs=disk) as store:
        put(store, b"key")


@pytest.mark.slow
def test_a_store_half_made_is_made_anew() -> None:
    """Etcd #16596 (bbolt #567): power loss amid the making left a file that never opened.

    The power goes at each operation of the making, and again at each of the next attempt.
    """
    rehearsal = SimulatedDisk()
    make(rehearsal)
    for first in range(1, rehearsal.operations + 1):
        disk = SimulatedDisk()
        disk.cut_at = first
        with suppress(PowerCut):
            make(disk)
        for seed in range(8):
            keep = ("all", "none", *["random"] * 6)[seed]
            half = disk.crash(random.Random(seed), keep=keep)
            for second in (*range(1, 12, 3), None):
                again = half.crash(random.Random(seed), keep="all")
                again.cut_at = None if second is None else again.operations + second
                with suppress(PowerCut):
                    make(again)
                survivor = again.crash(random.Random(seed), keep=keep)
                make(survivor)
                with blobkv.open(PATH, fs=survivor, create=False) as store:
                    assert pairs(store) == {b"key": b"value"}
                    assert store.verify().ok


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EINVAL])
def test_a_store_whose_making_failed_is_made_by_the_next_attempt(code: int) -> None:
    """Etcd #10688: what a failed creation had left behind was taken for a store."""
    for operation in count(1):
        disk = SimulatedDisk()
        disk.fail(code, at=operation, kept_size=5)
        try:
            make(disk)
        except (OSError, blobkv.PoisonedError):
            make(disk)
        reached = disk.operations >= operation
        disk.heal()
        with blobkv.open(PATH, fs=disk, create=False) as store:
            assert pairs(store) == {b"key": b"value"}
        if not reached:
            break
    assert operation > 15
