"""Every error says whose turn it is: the caller's, the other process's, the disk's.

Method: one scene an error. A simulated disk fails on request; where another process or a
real descriptor matters, the store is on the real disk.
"""

from __future__ import annotations

import errno
import os
import random
import re
import socket
import threading
from typing import TYPE_CHECKING

import pytest

import blobkv
from blobkv.errors import (
    ClosedError,
    CorruptionError,
    LimitError,
    LockedError,
    PoisonedError,
    ReadOnlyError,
    UsageError,
)
from blobkv.testing import SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def store(disk: SimulatedDisk) -> Iterator[blobkv.Store]:
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.put(b"old", b"1")
        yield store


def put(store: blobkv.Store, key: bytes, value: bytes = b"x") -> None:
    with store.update() as txn:
        txn.put(key, value)


def keys(store: blobkv.Store) -> list[bytes]:
    with store.view() as txn:
        return list(txn)


def is_log_sync(operation: str, path: str) -> bool:
    return operation == "sync" and path.endswith(".log")


# The disk's turn.


def test_a_failed_sync_poisons_writes_but_not_reads(
    disk: SimulatedDisk, store: blobkv.Store
) -> None:
    disk.fail(when=is_log_sync)
    with pytest.raises((OSError, PoisonedError)):
        put(store, b"lost")

    assert keys(store) == [b"old"], "what was never acknowledged is never shown"
    for write in (
        lambda: put(store, b"more"),
        lambda: store.batch(lambda txn: txn.put(b"k", b"v")),
        store.sync,
        store.flush,
        store.compact,
    ):
        with pytest.raises(PoisonedError, match="open it again"):
            write()
    assert keys(store) == [b"old"]


def test_a_poisoned_store_is_well_again_once_reopened(disk: SimulatedDisk) -> None:
    store = blobkv.open("/db", fs=disk)
    put(store, b"old")
    disk.fail(when=is_log_sync)
    with pytest.raises((OSError, PoisonedError)):
        put(store, b"lost")
    store.close()

    with blobkv.open("/db", fs=disk) as store:
        assert b"old" in keys(store)
        put(store, b"new")
        shown = keys(store)
    after = disk.crash(random.Random(0), keep="none")
    with blobkv.open("/db", fs=after) as store:
        assert keys(store) == shown, "what the reopened store showed reached the disk"


def test_a_full_disk_fails_that_commit_only(disk: SimulatedDisk, store: blobkv.Store) -> None:
    disk.capacity = disk.used_size + 1000
    with pytest.raises(OSError, match="ENOSPC") as caught:
        put(store, b"big", bytes(5000))
    assert caught.value.errno == errno.ENOSPC
    assert keys(store) == [b"old"]

    put(store, b"small")
    disk.capacity = None
    put(store, b"big", bytes(5000))
    assert keys(store) == [b"big", b"old", b"small"]
    after = disk.crash(random.Random(0), keep="none")
    with blobkv.open("/db", fs=after) as reopened:
        assert keys(reopened) == [b"big", b"old", b"small"]


def test_a_failed_append_fails_that_commit_only(
    disk: SimulatedDisk, store: blobkv.Store
) -> None:
    disk.fail(when=lambda operation, _: operation == "append", kept_size=40)
    with pytest.raises(OSError, match="EIO"):
        put(store, b"lost")

    put(store, b"next")
    assert keys(store) == [b"next", b"old"]
    after = disk.crash(random.Random(0), keep="none")
    with blobkv.open("/db", fs=after) as reopened:
        assert keys(reopened) == [b"next", b"old"]


def test_a_failed_batch_tells_every_caller(disk: SimulatedDisk, store: blobkv.Store) -> None:
    disk.fail(when=is_log_sync, times=None)
    caught: list[BaseException] = []

    def write(i: int) -> None:
        try:
            store.batch(lambda txn: txn.put(b"%d" % i, b""))
        except (OSError, PoisonedError) as error:
            caught.append(error)

    threads = [threading.Thread(target=write, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(caught) == 6
    assert keys(store) == [b"old"]


def test_a_manifest_that_cannot_be_replaced_loses_nothing(disk: SimulatedDisk) -> None:
    store = blobkv.open("/db", fs=disk)
    put(store, b"old")
    disk.fail(when=lambda operation, path: operation == "rename" and "MANIFEST" in path)
    with pytest.raises((OSError, PoisonedError)):
        store.flush()
    assert keys(store) == [b"old"]
    store.close()

    with blobkv.open("/db", fs=disk) as store:
        assert keys(store) == [b"old"]
        put(store, b"new")


def test_a_bad_byte_says_where_it_is(disk: SimulatedDisk) -> None:
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"old")
        store.flush()
    table = next(name for name in disk.names("/db") if name.endswith(".tbl"))
    data = bytearray(disk.contents(f"/db/{table}"))
    data[70] ^= 0x10
    disk.set_contents(f"/db/{table}", bytes(data))

    with blobkv.open("/db", fs=disk) as store:
        with store.view() as txn, pytest.raises(CorruptionError) as caught:
            txn.get(b"old")
        assert caught.value.path == table
        assert caught.value.offset == 64
        assert str(caught.value).startswith(f"{table}+0x40: ")
        report = store.verify()
    assert not report.ok
    assert report.problems[0].path == table


# The other process's turn.


def test_a_second_store_is_locked_out_and_told_by_whom(tmp_path: Path) -> None:
    with blobkv.open(tmp_path / "db"):
        with pytest.raises(LockedError, match=f"process {os.getpid()} on") as caught:
            blobkv.open(tmp_path / "db", lock_timeout=0.01)
        assert caught.value.pid == os.getpid()
        assert caught.value.host == socket.gethostname()
        assert caught.value.path == str(tmp_path / "db")

    blobkv.open(tmp_path / "db").close()


def test_a_lock_given_up_in_time_is_taken(tmp_path: Path) -> None:
    store = blobkv.open(tmp_path / "db")
    timer = threading.Timer(0.05, store.close)
    timer.start()

    blobkv.open(tmp_path / "db", lock_timeout=10).close()
    timer.join()


# The caller's turn.


def test_nothing_works_after_the_with_block(store: blobkv.Store) -> None:
    with store.view() as txn:
        bucket, cursor, items = txn.bucket("b"), txn.cursor(), txn.items()
    with store.update() as update:
        update.put(b"k", b"v")

    for use in (
        lambda: txn.get(b"old"),
        lambda: txn[b"old"],
        lambda: b"old" in txn,
        lambda: list(txn),
        lambda: len(txn),
        lambda: list(items),
        lambda: bucket.get(b"k"),
        lambda: list(bucket.items()),
        txn.buckets,
        cursor.first,
        lambda: update.put(b"k", b"v"),
        lambda: update.delete(b"k"),
        update.clear,
        update.commit,
        lambda: update.on_commit(print),
        update.__enter__,
    ):
        with pytest.raises(ClosedError):
            use()


def test_an_iteration_that_outlives_its_transaction_raises(store: blobkv.Store) -> None:
    with store.update() as txn:
        for i in range(1000):
            txn.put(b"%04d" % i, b"")
    with store.view() as txn:
        pairs = iter(txn.items())
        next(pairs)

    with pytest.raises(ClosedError):
        list(pairs)


def test_a_closed_store_refuses_everything_but_close(disk: SimulatedDisk) -> None:
    store = blobkv.open("/db", fs=disk)
    view = store.view()
    store.close()
    store.close()

    for use in (
        store.view,
        store.update,
        lambda: store.batch(lambda txn: txn.put(b"k", b"v")),
        store.flush,
        store.compact,
        store.sync,
        store.verify,
        store.stats,
        lambda: store.backup("/backup"),
        lambda: view.get(b"k"),
        store.__enter__,
    ):
        with pytest.raises(ClosedError):
            use()


def test_a_view_refuses_writes(store: blobkv.Store) -> None:
    with store.view() as txn:
        cursor = txn.cursor()
        assert cursor.first()
        for write in (
            lambda: txn.put(b"k", b"v"),
            lambda: txn.delete(b"k"),
            txn.clear,
            lambda: txn.bucket("b").put(b"k", b"v"),
            lambda: txn.update({b"k": b"v"}),
            lambda: txn.pop(b"old"),
            cursor.delete,
            lambda: txn.on_commit(print),
        ):
            with pytest.raises(ReadOnlyError, match="update"):
                write()
        assert dict(txn) == {b"old": b"1"}


def test_a_read_only_store_refuses_writes(disk: SimulatedDisk, store: blobkv.Store) -> None:
    with blobkv.open("/db", fs=disk, read_only=True) as reader:
        for write in (reader.update, lambda: reader.batch(len), reader.flush, reader.compact):
            with pytest.raises(ReadOnlyError):
                write()
        assert keys(reader) == [b"old"]


@pytest.mark.parametrize("read_only", [True, False])
def test_a_store_that_must_exist_does_not_appear(
    disk: SimulatedDisk, *, read_only: bool
) -> None:
    with pytest.raises(UsageError, match="/db"):
        blobkv.open("/db", fs=disk, create=False, read_only=read_only)
    assert disk.names("/") == []


def test_limits_name_the_size_and_the_limit(store: blobkv.Store) -> None:
    with store.update() as txn:
        txn.put(bytes(2**16), b"the longest key")
        with pytest.raises(LimitError, match=r"65537 bytes, limit 65536"):
            txn.put(bytes(2**16 + 1), b"")
        with pytest.raises(LimitError, match=re.compile("bucket", re.IGNORECASE)):
            txn.bucket(bytes(2**17))
        assert txn.get(bytes(2**16)) == b"the longest key"
        txn.rollback()


@pytest.mark.parametrize("wrong", ["text", 7, None, [b"k"]])
def test_keys_and_values_are_bytes(store: blobkv.Store, wrong: object) -> None:
    with store.update() as txn:
        for use in (
            lambda: txn.put(wrong, b"v"),
            lambda: txn.put(b"k", wrong),
            lambda: txn.get(wrong),
            lambda: txn.delete(wrong),
            lambda: txn.clear(wrong),
            lambda: txn.cursor().seek(wrong),
            lambda: txn.keys(prefix=wrong),
        ):
            with pytest.raises(UsageError, match="must be bytes"):
                use()


def test_a_missing_key_is_an_error_only_where_a_mapping_says_so(store: blobkv.Store) -> None:
    with store.update() as txn:
        txn.delete(b"missing")
        assert txn.get(b"missing") is None
        assert txn.get(b"missing", b"default") == b"default"
        with pytest.raises(KeyError):
            _ = txn[b"missing"]
        with pytest.raises(KeyError):
            del txn[b"missing"]


def test_an_update_inside_an_update_is_refused_not_a_deadlock(store: blobkv.Store) -> None:
    with store.update() as txn:
        for nested in (store.update, lambda: store.batch(len)):
            with pytest.raises(UsageError, match="update"):
                nested()
        txn.put(b"outer", b"goes on")

    assert keys(store) == [b"old", b"outer"]


def test_an_update_that_raises_leaves_no_trace(store: blobkv.Store) -> None:
    before = store.sequence
    with pytest.raises(ZeroDivisionError), store.update() as txn:
        txn.put(b"half", b"done")
        raise ZeroDivisionError

    assert keys(store) == [b"old"]
    assert store.sequence == before
    put(store, b"next")


def test_on_commit_runs_after_the_commit_and_only_then(store: blobkv.Store) -> None:
    calls: list[str] = []
    with store.update() as txn:
        txn.put(b"k", b"v")
        txn.on_commit(lambda: calls.append("first" if b"k" in keys(store) else "early"))
        txn.on_commit(lambda: calls.append("second"))
        assert calls == []
    with store.update() as txn:
        txn.on_commit(lambda: calls.append("rolled back"))
        txn.rollback()

    assert calls == ["first", "second"]


def test_text_asked_for_with_in_is_refused_and_other_types_are_not_there(
    store: blobkv.Store,
) -> None:
    with store.view() as txn:
        with pytest.raises(UsageError, match="encode text"):
            assert "k" in txn
        assert 1 not in txn


def test_a_path_or_a_timeout_that_makes_no_sense_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="the path is empty"):
        blobkv.open("")
    with pytest.raises(UsageError, match="must not be negative"):
        blobkv.open(tmp_path / "db", lock_timeout=-1)
    assert not (tmp_path / "db").exists()
