"""What went wrong in LevelDB goes right here: the order of names, and what is deleted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.operations import Done, record
from support.pairs import flush_only, merge, pairs, put

import blobkv
from blobkv import Store
from blobkv.testing import SimulatedDisk

MANIFEST = Done("rename", "/db/MANIFEST")
SYNCED = Done("sync_directory", "/db")
KEYS = [b"%04d" % i for i in range(1200)]


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("work", [Store.flush, Store.compact])
def test_nothing_is_removed_before_the_new_manifest_is_durable(
    work: Callable[[Store], None],
) -> None:
    """LevelDB #195: old files' names went, and the rename that made them old did not last.

    Between the rename and the first removal after it the directory must be synced.
    """
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        for i in range(3):
            with store.update() as txn:
                txn.update({key: bytes(50) for key in KEYS[i::3]})
            if i < 2:
                flush_only(store)
        done = record(disk)
        work(store)
        disk.heal()

    removals = [i for i, (operation, _) in enumerate(done) if operation == "remove"]
    assert removals
    for at in removals:
        path = done[at].path
        if path != "/db/MANIFEST.new":
            renamed = max(i for i in range(at) if done[i] == MANIFEST)
            assert SYNCED in done[renamed:at], f"{path} went too early"


def test_an_open_after_a_crash_removes_nothing_before_its_manifest_is_durable() -> None:
    """LevelDB #195 where it was found: as an open turns the log into a table."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"in the log")
    killed = disk.crash(random.Random(0), keep="all")
    store.close()
    done = record(killed)
    blobkv.open("/db", fs=killed).close()

    (removed,) = (
        i for i, (what, path) in enumerate(done) if what == "remove" and path.endswith(".log")
    )
    renamed = done.index(MANIFEST)
    assert SYNCED in done[renamed:removed]


def test_what_is_compacted_does_not_bring_back_what_was_deleted() -> None:
    """LevelDB #184: of two ranges one was deleted, and a compaction brought keys back."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        for first in (b"a", b"b"):
            for part in range(3):
                with store.update() as txn:
                    txn.update({first + key: bytes(60) for key in KEYS[part::3]})
                flush_only(store)
        with store.update() as txn:
            for key in KEYS:
                del txn[b"b" + key]
        flush_only(store)
        with store.update() as txn:
            assert txn.clear(b"a") == len(KEYS)
        flush_only(store)
        assert pairs(store) == {}
        for first, last in ((0, 2), (1, 4), (0, 3)):
            merge(store, first, last, piece_size=4000)
            assert pairs(store) == {}
            assert len(store.view()) == 0
        store.compact()
        assert pairs(store) == {}
        assert store.stats().table_count == 0
