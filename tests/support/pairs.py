"""A store's pairs in one call each: put, read, and what a crash would leave of them."""

from __future__ import annotations

import random

import blobkv
from blobkv import Store
from blobkv.testing import Keep, SimulatedDisk

Pairs = dict[bytes, bytes]


def put(store: Store, key: bytes, value: bytes = b"value", *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        txn.put(key, value)


def pairs(store: Store) -> Pairs:
    """All pairs by a scan; by point reads they must be the same."""
    with store.view() as txn:
        found = dict(txn.items())
        assert list(found) == sorted(found)
        assert {key: txn.get(key) for key in found} == found
        return found


def flush_only(store: Store) -> None:
    """Write the memtable as a table, and merge nothing."""
    store._freeze().maintenance.flush()


def merge(store: Store, first: int, last: int, piece_size: int = 1 << 20) -> None:
    """Merge these neighbors, counted from the newest, and no others."""
    maintenance = store._source.maintenance
    with maintenance._merging:
        maintenance._merge(slice(first, last), piece_size, cut=True)


def after(disk: SimulatedDisk, keep: Keep = "none", seed: int = 0) -> Pairs:
    """What the store holds on the disk that comes up after a crash now; it must be sound."""
    with blobkv.open("/db", fs=disk.crash(random.Random(seed), keep=keep)) as store:
        assert store.verify().ok
        return pairs(store)
