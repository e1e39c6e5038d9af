"""What went wrong in Pebble goes right here: logs that follow each other, and copies."""

from __future__ import annotations

import random
from collections.abc import Callable
from itertools import count

import pytest
from support.pairs import Pairs, flush_only, pairs, put

import blobkv
from blobkv import Store
from blobkv._engine.files import WritableFile
from blobkv.testing import PowerCut, SimulatedDisk


def is_prefix(found: Pairs, keys: list[bytes]) -> bool:
    return list(found) == keys[: len(found)]


@pytest.mark.parametrize("end_log", [Store.flush, Store._freeze])
def test_a_log_that_is_followed_by_another_has_no_hole_at_its_end(
    end_log: Callable[[Store], object],
) -> None:
    """Pebble #864, and pull request #886: a newer log was replayed behind a hole in the older.

    A crash amid the change of logs had left it there. None of these commits asks to be
    durable. The power is cut at each operation of the change, and of what follows.
    """
    keys = [b"%02d" % i for i in range(12)]
    for operation in count(1):
        disk = SimulatedDisk()
        store = blobkv.open("/db", fs=disk)
        for key in keys[:6]:
            put(store, key, durable=False)
        disk.cut_at = disk.operations + operation
        try:
            end_log(store)
            for key in keys[6:]:
                put(store, key, durable=False)
            store.sync()
        except (PowerCut, blobkv.PoisonedError):
            pass
        else:
            break
        for seed in range(6):
            with blobkv.open("/db", fs=disk.crash(random.Random(seed))) as survivor:
                assert is_prefix(pairs(survivor), keys), f"{operation} {seed}"
                assert survivor.verify().ok
    assert operation > 10


class BusyDisk(SimulatedDisk):
    """A disk where something happens before each file of a copy is created or synced."""

    def __init__(self) -> None:
        super().__init__()
        self.happens: Callable[[], object] = bool

    def create(self, path: str) -> WritableFile:
        file = super().create(path)
        if path.startswith("/copy/"):
            self.happens()
            append, sync = file.append, file.sync

            def busy_append(data: bytes | bytearray) -> None:
                self.happens()
                append(data)

            def busy_sync() -> None:
                sync()
                self.happens()

            file.append, file.sync = busy_append, busy_sync
        return file


def test_a_copy_of_a_store_that_is_written_to_is_the_state_after_one_commit() -> None:
    """Pebble #5142: a copy took half of what was being written, and called it corrupt.

    While the copy is made there are commits all the time, durable and not, flushes, and merges.
    """
    disk = BusyDisk()
    numbers = count(1)
    states: dict[int, Pairs] = {}
    with blobkv.open("/db", fs=disk) as store:

        def commit() -> None:
            number = next(numbers)
            with store.update(durable=number % 2 == 0) as txn:
                txn.put(b"%d" % number, bytes(100))
                txn.put(b"first", b"%d" % number)
                txn.put(b"last", b"%d" % number)
                states[txn.sequence + 1] = dict(txn)
            if number % 3 == 0:
                flush_only(store)
            if number % 7 == 0:
                store.compact()

        for _ in range(20):
            commit()
        before = store.sequence
        disk.happens = commit
        store.backup("/copy")
        disk.happens = bool
        assert store.sequence > before + 5

    with blobkv.open("/copy", fs=disk.crash(random.Random(0), keep="none")) as copy:
        assert copy.verify().ok
        assert copy.sequence == before
        assert pairs(copy) == states[before]
