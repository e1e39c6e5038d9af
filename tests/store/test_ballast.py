"""On a full disk what gives room back can be committed, and then the room comes back.

Method: a simulated disk is filled up by the store itself; then things are deleted.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path

import pytest
from support.interrupts import Interrupts

import blobkv
from blobkv import Store, Transaction
from blobkv._engine.ballast import Ballast
from blobkv.testing import SimulatedDisk

MEMTABLE_SIZE = 60_000
CAPACITY = 800_000


def fill_up(store: Store) -> int:
    """Commit until the disk is full; return how many commits there are."""
    for number in count():
        try:
            with store.update() as txn:
                for i in range(10):
                    txn.put(b"%06d/%d" % (number, i), bytes(200))
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return number
    raise AssertionError


def sizes(disk: SimulatedDisk) -> list[int]:
    return [len(disk.contents(f"/db/{name}")) for name in disk.names("/db") if "BALL" in name]


def end_work(store: Store) -> None:
    store._source._pool.submit(bool).result()


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk(capacity=CAPACITY)


@pytest.fixture
def store(disk: SimulatedDisk) -> Store:
    return blobkv.open("/db", fs=disk, memtable_size=MEMTABLE_SIZE)


def delete_one(txn: Transaction) -> None:
    del txn[b"000001/1"]


def delete_and_note(txn: Transaction) -> None:
    del txn[b"000001/1"]
    txn.put(b"deleted", b"1")


def clear_some(txn: Transaction) -> None:
    assert txn.clear(b"00000") == 100


@pytest.mark.parametrize("change", [delete_one, delete_and_note, clear_some])
def test_a_delete_commits_on_a_full_disk_and_a_put_does_not(
    change: Callable[[Transaction], None], disk: SimulatedDisk, store: Store
) -> None:
    commits = fill_up(store)
    end_work(store)
    # Not one byte is left, though a log may have had some room.
    disk.capacity = disk.used_size
    with store.view() as txn:
        before = dict(txn)
    assert len(before) == 10 * commits
    for _ in range(3):
        with pytest.raises(OSError, match="ENOSPC"), store.update() as txn:
            txn.put(b"key", bytes(100))
    assert sizes(disk) == [32 << 10]
    # What was cut back has taken with it the room that was made ahead.
    disk.capacity = disk.used_size

    with store.update() as txn:
        change(txn)
        after = dict(txn)
    assert after != before
    survivor = disk.crash(random.Random(0), keep="none")
    survivor.capacity = None
    with blobkv.open("/db", fs=survivor) as again, again.view() as txn:
        assert dict(txn) == after
    store.close()


def test_deletes_use_it_bit_by_bit_and_what_does_not_fit_any_more_is_refused(
    disk: SimulatedDisk, store: Store
) -> None:
    commits = fill_up(store)
    end_work(store)
    disk.capacity = disk.used_size
    left = []
    with pytest.raises(OSError, match="ENOSPC"):
        for number in range(commits):
            for i in range(10):
                with store.update() as txn:
                    del txn[b"%06d/%d" % (number, i)]
                left.append(sum(sizes(disk)))
    with store.view() as txn:
        assert len(txn) == 10 * commits - len(left)

    assert len(left) > 200
    assert left == sorted(left, reverse=True)
    assert left[0] == 32 << 10 > left[len(left) // 2] > left[-1]


def test_a_delete_is_no_excuse_for_a_large_put(disk: SimulatedDisk, store: Store) -> None:
    fill_up(store)
    end_work(store)
    disk.capacity = disk.used_size
    for clear in (True, False):
        with pytest.raises(OSError, match="ENOSPC"), store.update() as txn:
            if clear:
                txn.clear(b"00000")
            for i in range(20):
                txn.delete(b"never there %d" % i)
            txn.put(b"key", bytes(50_000))
    assert sizes(disk) == [32 << 10]


def test_a_put_waits_for_another_time_while_the_reserve_is_used(
    disk: SimulatedDisk, store: Store
) -> None:
    """What is free then is for the work that gives more of it back."""
    disk.capacity = None
    with store.update() as txn:
        txn.update({b"key": b"value", b"other": b""})
    store._source._ballast.in_use = True
    refused = pytest.raises(OSError, match="no space left but what deletes may use")
    with refused as caught, store.update() as txn:
        txn.put(b"key", b"new")
    assert caught.value.errno == errno.ENOSPC
    with store.update() as txn:
        txn.delete(b"other")
    store._source._ballast.in_use = False
    with store.view() as txn:
        assert dict(txn) == {b"key": b"value"}


@pytest.mark.parametrize("killed", [True, False])
def test_a_full_store_can_be_closed_opened_and_cleared(
    disk: SimulatedDisk, store: Store, *, killed: bool
) -> None:
    for i in range(100):
        with store.update() as txn:
            txn.put(b"%03d" % i, bytes(90))
    disk.capacity = disk.used_size
    if killed:
        disk = disk.crash(random.Random(0), keep="all")
    else:
        store.close()
    with blobkv.open("/db", fs=disk, memtable_size=MEMTABLE_SIZE) as again:
        with again.update() as txn:
            assert txn.clear() == 100
        again.compact()
        assert disk.used_size < 40_000
        with again.update() as txn:
            txn.put(b"key", bytes(1000))


def test_a_full_store_with_much_in_its_logs_opens_after_a_close(
    disk: SimulatedDisk, store: Store
) -> None:
    """Sealed logs need not be written anew; that is for when there is room."""
    with store.update() as txn:
        txn.update({b"%04d" % i: bytes(90) for i in range(2000)})
    store.close()
    disk.capacity = disk.used_size
    for _ in range(2):
        again = blobkv.open("/db", fs=disk, memtable_size=MEMTABLE_SIZE)
        with again, again.view() as txn:
            assert len(txn) == 2000


def write(disk: SimulatedDisk, names: Iterator[str]) -> None:
    disk.create(next(names)).append(bytes(5000))


@pytest.mark.slow
def test_an_interrupt_of_who_uses_it_does_not_leave_it_in_use() -> None:
    for place in count(1):
        disk = SimulatedDisk()
        store = blobkv.open("/db", fs=disk)
        with store.update() as txn:
            txn.update({b"a": bytes(90), b"b": b""})
        disk.capacity = disk.used_size
        names = map("/db/{}".format, count())
        interrupts = Interrupts(place)
        with suppress(KeyboardInterrupt), interrupts.watching():
            store._source._ballast.spend_on(partial(write, disk, names))
        assert not store._source._ballast.in_use
        disk.capacity = None
        with store.update() as txn:
            txn.put(b"a", b"new")
        store.close()
        if interrupts.met < place:
            break
    assert place > 10


def test_deleting_from_a_full_store_makes_room_in_it(disk: SimulatedDisk, store: Store) -> None:
    commits = fill_up(store)
    with store.update() as txn:
        txn.clear()
    store.compact()

    assert disk.used_size < CAPACITY // 4
    assert sizes(disk) == [32 << 10], "there is a reserve for the next time"
    assert fill_up(store) > commits // 2
    store.close()
    with blobkv.open("/db", fs=disk) as again:
        assert again.verify().ok


@pytest.mark.parametrize("there", [True, False])
def test_a_flush_may_use_it(disk: SimulatedDisk, *, there: bool) -> None:
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update({b"%d" % i: bytes(90) for i in range(100)})
        store.flush()
        with store.update() as txn:
            for i in range(60):
                del txn[b"%d" % i]
            txn.update({b"%d" % i: bytes(200) for i in range(100, 140)})
        if not there:
            disk.remove("/db/BALLAST")
        disk.capacity = disk.used_size
        if not there:
            with pytest.raises(OSError, match="ENOSPC"):
                store.flush()
            disk.capacity = None
        store.flush()

        assert store.stats().memtable_count == 0
        disk.capacity = None
        store.compact()
        assert sum(sizes(disk)) >= 16 << 10


def test_it_grows_with_the_store(disk: SimulatedDisk) -> None:
    disk.capacity = None
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update({b"%d" % i: bytes(4000) for i in range(1000)})
        store.flush()
        assert sizes(disk) == [store.stats().table_size // 32]
        number = disk.operations
        store.compact()
        assert disk.operations == number


def test_a_disk_that_tells_at_the_sync_that_it_is_full_gets_less(disk: SimulatedDisk) -> None:
    disk.fail(
        errno.ENOSPC,
        when=lambda operation, path: operation == "sync" and path.startswith("/db/BALLAST"),
    )
    with blobkv.open("/db", fs=disk):
        assert sizes(disk) == [24 << 10]


def test_it_is_not_replaced_by_less(disk: SimulatedDisk) -> None:
    with blobkv.open("/db", fs=disk):
        pass
    disk.set_contents("/db/BALLAST", bytes(12 << 10))
    for room, expected in ((9 << 10, 12 << 10), (20 << 10, 18 << 10)):
        disk.capacity = disk.used_size + room
        Ballast(disk, "/db").suit(0)
        assert sizes(disk) == [expected]


def test_what_a_crash_left_of_one_goes_at_the_next_open(disk: SimulatedDisk) -> None:
    with blobkv.open("/db", fs=disk):
        pass
    disk.create("/db/BALLAST.new").append(bytes(1000))
    with blobkv.open("/db", fs=disk):
        assert sizes(disk) == [32 << 10]


@pytest.mark.parametrize("target", ["a file", "a directory", "a symlink"])
def test_whatever_has_its_name_is_in_nobodys_way(target: str, tmp_path: Path) -> None:
    precious = tmp_path / "precious"
    precious.write_bytes(b"precious")
    db = tmp_path / "db"
    db.mkdir()
    match target:
        case "a file":
            (db / "BALLAST").write_bytes(b"short")
        case "a directory":
            (db / "BALLAST").mkdir()
        case _:
            (db / "BALLAST").symlink_to(precious)
            (db / "BALLAST.new").symlink_to(precious)
    with blobkv.open(db) as store, store.update() as txn:
        txn.put(b"key", b"value")

    assert precious.read_bytes() == b"precious"
    with blobkv.open(db) as store, store.view() as txn:
        assert txn[b"key"] == b"value"
