"""What went wrong in fjall goes right here: clearing, buckets, and writing against pressure."""

from __future__ import annotations

import errno
import random
import threading

import pytest
from support.pairs import Pairs, after, pairs, put

import blobkv
from blobkv.errors import ClosedError
from blobkv.testing import Keep, SimulatedDisk

TIMEOUT_SECONDS = 60.0


@pytest.mark.parametrize("keep", ["none", "all"])
@pytest.mark.parametrize("flushed", [True, False])
@pytest.mark.parametrize("closed", [True, False])
def test_what_was_cleared_does_not_come_back_with_the_replay(
    keep: Keep, *, flushed: bool, closed: bool
) -> None:
    """Fjall #241: `clear` left no word in the log, so the replay put everything back."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    with store.update() as txn:
        txn.update({b"%04d" % i: b"v" for i in range(1000)})
        txn.bucket("b").update({b"%04d" % i: b"v" for i in range(1000)})
    if flushed:
        store.flush()
    with store.update() as txn:
        assert txn.clear() == 1000
        assert txn.delete_bucket("b") == 1000
    with store.update() as txn:
        txn.put(b"0500", b"since")
    assert pairs(store) == {b"0500": b"since"}
    if closed:
        store.close()

    survivor = disk.crash(random.Random(0), keep=keep)
    for _ in range(2):
        with blobkv.open("/db", fs=survivor) as opened:
            assert pairs(opened) == {b"0500": b"since"}
            assert opened.view().buckets() == []
    store.close()


@pytest.mark.parametrize("closed", [True, False])
def test_no_write_is_lost_where_buckets_are_filled_in_turn(*, closed: bool) -> None:
    """Fjall #112: of two partitions one lost its last writes with the reopen.

    A log went when one of them had been flushed. Here both are in one log; it is small, so that
    it is rotated, flushed, and removed all the time.
    """
    disk, rng = SimulatedDisk(), random.Random(3)
    expected: dict[bytes, Pairs] = {b"likes": {}, b"unlikes": {}}
    store = blobkv.open("/db", fs=disk, memtable_size=4096)
    for i in range(300):
        # One of the two is rare, so that it is in few of the logs.
        name = b"likes" if rng.random() < 0.95 else b"unlikes"
        with store.update() as txn:
            for j in range(5):
                key = b"%d/%d" % (i, j)
                txn.bucket(name)[key] = expected[name][key] = b"v" * rng.randrange(30)
    assert store.stats().flushes > 5
    if closed:
        store.close()
    survivor = disk.crash(random.Random(0), keep="none")
    if not closed:
        store.close()

    with blobkv.open("/db", fs=survivor) as store, store.view() as txn:
        assert {name: dict(txn.bucket(name)) for name in txn.buckets()} == expected
        assert store.verify().ok


def test_a_log_stays_until_all_that_it_holds_is_in_tables() -> None:
    """Fjall #112 again, at its core: of three frozen memtables one is flushed, then a crash."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        for name in (b"a", b"b", b"c"):
            put(store, name)
            store._freeze()
        put(store, b"d")
        expected = pairs(store)
        maintenance = store._source.maintenance
        for waiting in (3, 2, 1):
            assert len(store._source.layers.frozen) == waiting
            assert len([name for name in disk.names("/db") if name.endswith(".log")]) > waiting
            for keep in ("none", "all"):
                assert after(disk, keep=keep) == expected
            with maintenance._step:
                maintenance._flush_oldest()
        assert after(disk) == expected


def test_a_bucket_made_anew_is_not_touched_by_what_deleted_the_old_one() -> None:
    """Fjall #59: when the last reader of a deleted partition went, so did the new one."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.bucket("b").update({b"%d" % i: b"old" for i in range(200)})
        store.flush()
        reader = store.view()
        with store.update() as txn:
            txn.delete_bucket("b")
            txn.bucket("b")[b"7"] = b"new"
        store.compact()
        assert len(reader.bucket("b")) == 200
        reader.rollback()
        store.compact()
        assert dict(store.view().bucket("b")) == {b"7": b"new"}
        store.flush()
    with blobkv.open("/db", fs=disk) as store:
        assert dict(store.view().bucket("b")) == {b"7": b"new"}


def test_commits_go_on_however_far_flushes_are_behind() -> None:
    """Fjall #257: under a steady load writers stood still and never went on.

    Four threads commit into a memtable that a few commits fill; all must come to an end.
    """
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk, memtable_size=2048) as store:

        def write(i: int) -> None:
            for j in range(60):
                put(store, b"%d/%d" % (i, j), bytes(300), durable=j % 3 == 0)

        threads = [threading.Thread(target=write, args=(i,), daemon=True) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(TIMEOUT_SECONDS)
        assert not any(thread.is_alive() for thread in threads)
        assert len(pairs(store)) == 240
        assert store.stats().flushes > 10


def test_commits_fail_and_do_not_wait_for_a_flush_that_cannot_be() -> None:
    """Fjall #257 again: with no flush ever to succeed, whoever waits for one waits for ever."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk, memtable_size=1000) as store:
        disk.fail(
            errno.ENOSPC,
            when=lambda operation, path: operation == "append" and path.endswith(".tbl"),
            times=None,
        )
        acknowledged = []
        with pytest.raises(OSError, match="ENOSPC"):
            for i in range(1000):
                put(store, b"%03d" % i, bytes(100))
                acknowledged.append(b"%03d" % i)
        assert list(pairs(store)) == acknowledged

        disk.heal()
        put(store, b"healed")
        store.flush()
        assert list(pairs(store)) == [*acknowledged, b"healed"]
    assert list(after(disk)) == [*acknowledged, b"healed"]


def test_a_store_closes_while_writers_press() -> None:
    """Fjall pull request #267: its end waited for a worker that waited for it."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk, memtable_size=2048)
    acknowledged: set[bytes] = set()
    pressing = threading.Barrier(4, timeout=TIMEOUT_SECONDS)

    def write(i: int) -> None:
        try:
            for j in range(100_000):
                put(store, b"%d/%d" % (i, j), bytes(300))
                acknowledged.add(b"%d/%d" % (i, j))
                if j == 20:
                    pressing.wait()
        except ClosedError:
            pass

    writers = [threading.Thread(target=write, args=(i,), daemon=True) for i in range(3)]
    for thread in writers:
        thread.start()
    pressing.wait()
    closer = threading.Thread(target=store.close, daemon=True)
    closer.start()
    for thread in (closer, *writers):
        thread.join(TIMEOUT_SECONDS)
        assert not thread.is_alive()

    assert set(after(disk)) == acknowledged


def test_commits_behind_a_bad_byte_do_not_vanish() -> None:
    """Fjall #311: bad bytes in the middle of the log were taken for its torn end."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    ends = []
    for i in range(5):
        put(store, b"%d" % i)
        ends.append(store.stats().log_size)
    (name,) = (name for name in disk.names("/db") if name.endswith(".log"))
    for end in ends[:-1]:
        damaged = disk.crash(random.Random(0), keep="all")
        data = bytearray(damaged.contents(f"/db/{name}"))
        data[end - 1] ^= 1
        damaged.set_contents(f"/db/{name}", bytes(data))
        with pytest.raises(blobkv.CorruptionError, match=name):
            blobkv.open("/db", fs=damaged)
    store.close()
