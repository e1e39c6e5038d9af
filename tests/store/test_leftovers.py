"""What fails leaves no files behind, however often it fails.

Method: one operation of the simulated disk fails, or a block has rotted, and the call is made
again and again. The directory must hold what the manifest names and no more. Only a store that
is poisoned may leave more, since then nobody knows which manifest is in force.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import pytest
from support.fault_table import Note
from support.file_names import ALWAYS

import blobkv
from blobkv import Store
from blobkv.errors import CorruptionError, PoisonedError
from blobkv.testing import SimulatedDisk

# Files that no manifest names.


def fill(store: Store, count: int = 200, salt: bytes = b"") -> None:
    with store.update() as txn:
        for i in range(count):
            txn.put(b"%s%d" % (salt, i), bytes(100))


def two_tables(disk: SimulatedDisk) -> Store:
    store = blobkv.open("/db", fs=disk)
    for salt in (b"older", b"newer"):
        fill(store, salt=salt)
        store.flush()
    return store


def put(store: Store) -> None:
    with store.update() as txn:
        txn.put(b"key", b"value")


def files(disk: SimulatedDisk, directory: str = "/db") -> set[str]:
    return set(disk.names(directory))


@pytest.mark.parametrize("action", [put, Store.flush, Store.compact])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_a_call_that_failed_anywhere_leaves_only_what_the_manifest_names(
    action: Callable[[Store], None], code: int, tried: Note
) -> None:
    for operation in count(1):
        disk = SimulatedDisk()
        store = two_tables(disk)
        if action is not put:
            put(store)
        disk.fail(code, at=disk.operations + operation, kept_size=10)
        before = disk.operations
        try:
            action(store)
        except (OSError, PoisonedError):
            if not store._source.tree.poisoned:
                assert files(disk) - ALWAYS == store._source.manifest.names
                action(store)
                assert files(disk) - ALWAYS == store._source.manifest.names
        reached = disk.operations - before >= operation
        disk.heal()
        with suppress(PoisonedError):
            store.close()
        with blobkv.open("/db", fs=disk) as store:
            put(store)
            assert store.verify().ok
            assert files(disk) - ALWAYS == store._source.manifest.names
        if not reached:
            break
    assert operation > 3
    tried("EIO or ENOSPC, and what it leaves in the directory", operation)


def test_a_compaction_that_meets_rot_leaves_no_table() -> None:
    disk = SimulatedDisk()
    two_tables(disk).close()
    rotten = max(name for name in disk.names("/db") if name.endswith(".tbl"))
    data = bytearray(disk.contents(f"/db/{rotten}"))
    # Past its first blocks, so that the merge has begun to write.
    data[len(data) // 2] ^= 1
    disk.set_contents(f"/db/{rotten}", bytes(data))

    with blobkv.open("/db", fs=disk) as store:
        before = files(disk), disk.used_size
        for _ in range(3):
            with pytest.raises(CorruptionError, match=rotten):
                store.compact()
            assert (files(disk), disk.used_size) == before


def test_flushes_on_a_disk_too_full_for_a_manifest_leave_no_tables() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        fill(store)
        before = files(disk)
        disk.fail(
            errno.ENOSPC,
            when=lambda operation, path: operation == "append" and "MANIFEST" in path,
            times=None,
        )
        for _ in range(3):
            with pytest.raises(OSError, match="ENOSPC"):
                store.flush()
            assert files(disk) - ALWAYS == before - ALWAYS

        disk.heal()
        store.flush()
        assert store.stats().table_count == 1


def test_commits_that_a_full_disk_refuses_leave_no_logs() -> None:
    disk = SimulatedDisk()
    with two_tables(disk) as store:
        before = files(disk)
        disk.capacity = disk.used_size
        for _ in range(5):
            with pytest.raises(OSError, match="ENOSPC"):
                put(store)
            assert files(disk) - ALWAYS == before - ALWAYS

        disk.capacity = None
        put(store)


def test_a_backup_that_failed_anywhere_can_be_made_again() -> None:
    for operation in count(1):
        disk = SimulatedDisk()
        with two_tables(disk) as store:
            disk.fail(at=disk.operations + operation)
            before = disk.operations
            try:
                store.backup("/backup")
            except OSError:
                store.backup("/backup")
            reached = disk.operations - before >= operation
            disk.heal()
            put(store)
        with blobkv.open("/backup", fs=disk.crash(random.Random(0), keep="none")) as copy:
            assert copy.verify().ok
            assert copy.stats().table_entries == 400
        if not reached:
            break
    assert operation > 5
