"""Ctrl-C anywhere in any call costs that call, never a commit that was acknowledged.

Method: each call of the store is made once for each place where an interrupt may come, and is
interrupted there, while a reader follows. The store then goes on as far as it will; after that
the power is cut, and the store is closed and opened again.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from support.interrupts import Interrupts

import blobkv
from blobkv import Store
from blobkv.errors import ClosedError, PoisonedError
from blobkv.testing import SimulatedDisk

pytestmark = pytest.mark.slow

# So small that two commits fill a log.
MEMTABLE_SIZE = 400
TABLES = (b"older table", b"newer table")
DURABLE = {*TABLES, b"log"}


def put(store: Store, key: bytes, *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        txn.put(key, bytes(100))


def keys(store: Store) -> set[bytes]:
    with store.view() as txn:
        found = list(txn)
    assert found == sorted(set(found)), "keys are in order, each once"
    return set(found)


def fill(store: Store) -> None:
    """Put two tables and a log in the store; its last commit is not durable yet."""
    for key in TABLES:
        put(store, key)
        store.flush()
    put(store, b"log")
    put(store, b"not durable", durable=False)


def fill_logs(store: Store) -> None:
    for i in range(3):
        put(store, b"filled %d" % i)


def go_on(store: Store) -> set[bytes]:
    """Commit until the store refuses; return the keys of what it acknowledged."""
    acknowledged = set()
    with suppress(ClosedError, PoisonedError):
        for i in range(3):
            assert not store._write_lock.locked()
            put(store, b"later %d" % i)
            acknowledged.add(b"later %d" % i)
    return acknowledged


ACTIONS: dict[str, Callable[[Store], object]] = {
    "update": lambda store: put(store, b"new"),
    "update that need not be durable": lambda store: put(store, b"new", durable=False),
    "batch": lambda store: store.batch(lambda txn: txn.put(b"new", b"")),
    "rotation": fill_logs,
    "view": lambda store: list(store.view().items()),
    "sync": lambda store: store.sync(),
    "flush": lambda store: store.flush(),
    "compact": lambda store: store.compact(),
    "close": lambda store: store.close(),
}


def was_interrupted(action: Callable[[Store], object], place: int, size: int) -> bool:
    """Run the action, interrupted at that place if it has so many; judge what is left."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk, memtable_size=size)
    fill(store)
    reader = blobkv.open("/db", fs=disk, read_only=True)
    seen: set[bytes] = set()
    interrupts = Interrupts(place, first=lambda: seen.update(keys(reader)))
    with suppress(KeyboardInterrupt), interrupts.watching():
        action(store)
        assert interrupts.met < place, "the interrupt was swallowed"

    acknowledged = DURABLE | go_on(store)
    assert store._closed or store.stats().views == 0
    for keep in ("none", "all"):
        after = disk.crash(random.Random(place), keep=keep)
        with blobkv.open("/db", fs=after) as survivor:
            assert survivor.verify().ok
            assert acknowledged <= keys(survivor)
            assert keep == "none" or seen <= keys(survivor), "what a reader saw is gone"
    with suppress(PoisonedError):
        store.close()
    with blobkv.open("/db", fs=disk) as store:
        assert acknowledged | seen <= keys(store)
        put(store, b"last")
        assert store.verify().ok
        assert keys(reader) == keys(store)
    reader.close()
    return interrupts.met >= place


@pytest.mark.parametrize("name", ACTIONS)
def test_an_interrupt_anywhere_loses_no_acknowledged_commit(name: str) -> None:
    size = MEMTABLE_SIZE if name == "rotation" else 1 << 16
    for place in count(1):
        if not was_interrupted(ACTIONS[name], place, size):
            break
    assert place > 20


def test_an_update_that_was_interrupted_and_goes_on_is_still_in_order() -> None:
    def change(txn: blobkv.Transaction) -> None:
        txn.put(b"b", b"")
        txn.bucket("new").put(b"a", b"")
        assert len(list(txn)) == 3

    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        for place in count(1):
            interrupts = Interrupts(place)
            with store.update() as txn:
                txn.update({b"a": b"", b"c": b""})
                assert list(txn) == [b"a", b"c"]
                with suppress(KeyboardInterrupt), interrupts.watching():
                    change(txn)
                assert list(txn) in ([b"a", b"c"], [b"a", b"b", b"c"])
                change(txn)
                txn.rollback()
            if interrupts.met < place:
                break
    assert place > 20


def killed(disk: SimulatedDisk) -> None:
    """Leave a store on the disk whose log could not be synced when it was closed."""
    store = blobkv.open("/db", fs=disk)
    fill(store)
    disk.fail(when=lambda operation, path: operation == "sync" and path.endswith(".log"))
    with pytest.raises(OSError, match="EIO"):
        store.close()


def test_an_interrupt_anywhere_in_a_recovery_loses_nothing() -> None:
    for place in count(1):
        disk = SimulatedDisk()
        killed(disk)
        interrupts = Interrupts(place)
        with suppress(KeyboardInterrupt), interrupts.watching():
            store = blobkv.open("/db", fs=disk)
        if interrupts.met < place:
            break
        after = disk.crash(random.Random(place), keep="none")
        with blobkv.open("/db", fs=after) as store:
            assert keys(store) >= DURABLE
            assert store.verify().ok
        with blobkv.open("/db", fs=disk) as store:
            assert keys(store) == DURABLE | {b"not durable"}
    assert place > 100
    store.close()


# A descriptor that nobody has yet is closed by the interpreter, and it says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_anywhere_in_an_open_leaves_no_claim(tmp_path: Path) -> None:
    """On the real file system, where a claim is a descriptor that somebody must close."""
    blobkv.open(tmp_path / "db").close()
    for place in count(1):
        interrupts = Interrupts(place)
        with suppress(KeyboardInterrupt), interrupts.watching():
            store = blobkv.open(tmp_path / "db")
        if interrupts.met < place:
            break
        blobkv.open(tmp_path / "db").close()
    assert place > 100
    store.close()
