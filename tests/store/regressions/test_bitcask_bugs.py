"""What went wrong in Bitcask goes right here: keys that were deleted stay deleted."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.pairs import after, flush_only, merge, pairs, put

import blobkv
from blobkv import Store
from blobkv._engine.files import WritableFile
from blobkv.testing import SimulatedDisk

KEYS = [b"%03d" % i for i in range(400)]


def delete_each(store: Store) -> None:
    with store.update() as txn:
        for key in KEYS[50:350]:
            del txn[key]


def delete_at_once(store: Store) -> None:
    with store.update() as txn:
        assert sum(txn.clear(b"%d" % i) for i in range(4)) == len(KEYS)
        txn.update(dict.fromkeys(KEYS[:50] + KEYS[350:], b"v"))


LEFT = dict.fromkeys(KEYS[:50] + KEYS[350:], b"v")


@pytest.mark.parametrize("delete", [delete_each, delete_at_once])
@pytest.mark.parametrize("keep", ["none", "all"])
def test_a_merge_without_the_oldest_table_keeps_its_tombstones(
    delete: Callable[[Store], None], keep: str
) -> None:
    """Bitcask #82: a merge of newer files dropped tombstones, and a restart found old values.

    The values are in the oldest table, the tombstones in the next; all but the oldest are
    merged. Only a merge of all may drop them.
    """
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS, b"v"))
        flush_only(store)
        delete(store)
        flush_only(store)
        for i in range(2):
            put(store, b"other %d" % i)
            flush_only(store)
        expected = LEFT | {b"other 0": b"value", b"other 1": b"value"}
        merge(store, 0, 3)
        assert len(store._source.layers.tables) == 2
        assert pairs(store) == expected
        assert after(disk, keep=keep) == expected

    with blobkv.open("/db", fs=disk) as store:
        assert pairs(store) == expected
        store.compact()
        assert pairs(store) == expected
        assert all(not table.footer.tombstones for table in store._source.layers.tables)


class MeetingDisk(SimulatedDisk):
    """A disk where something happens just before a table is created."""

    def __init__(self) -> None:
        super().__init__()
        self.happens: Callable[[], object] = bool

    def create(self, path: str) -> WritableFile:
        if path.endswith(".tbl"):
            self.happens()
        return super().create(path)


@pytest.mark.usefixtures("small_pieces")
def test_a_delete_during_a_merge_is_not_undone_by_it() -> None:
    """Bitcask pull request #148: the merge wrote the value behind the tombstone.

    A merge in pieces; before each piece some keys are deleted, of those it has written and of
    those to come, and some are put anew.
    """
    disk = MeetingDisk()
    rng = random.Random(1)
    expected = {key: key * 40 for key in KEYS}
    pieces = 0

    def change() -> None:
        nonlocal pieces
        pieces += 1
        with store.update() as txn:
            for key in rng.sample(KEYS, 20):
                txn.delete(key)
                expected.pop(key, None)
            for key in rng.sample(KEYS, 10):
                txn[key] = expected[key] = b"anew"

    with blobkv.open("/db", fs=disk) as store:
        for half in (KEYS[::2], KEYS[1::2]):
            with store.update() as txn:
                txn.update({key: key * 40 for key in half})
            flush_only(store)
        disk.happens = change
        merge(store, 0, 2, piece_size=2000)
        disk.happens = bool

        assert pieces > 3
        assert pairs(store) == expected
        assert after(disk) == expected
        store.compact()
        assert pairs(store) == expected
    with blobkv.open("/db", fs=disk) as store:
        assert pairs(store) == expected
