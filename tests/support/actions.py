"""Each call that a store takes, and what a test needs to judge what became of one.

The store is filled first, a call of `ACTIONS` goes wrong in whatever way the test wants, and
the store goes on. What it acknowledged must be there afterwards, whatever happens to it next.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import blobkv
from blobkv import Store
from blobkv.errors import ClosedError, PoisonedError
from blobkv.testing import SimulatedDisk

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


def open_store(disk: SimulatedDisk, action: str) -> Store:
    """Open the store for that action, filled."""
    size = MEMTABLE_SIZE if action == "rotation" else 1 << 16
    store = blobkv.open("/db", fs=disk, memtable_size=size)
    fill(store)
    return store
