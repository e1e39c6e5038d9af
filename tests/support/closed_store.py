"""A closed store with a table and a log, into whose directory things are planted."""

from __future__ import annotations

from pathlib import Path

import blobkv
from blobkv import Store


def put(store: Store, key: bytes, value: bytes = b"value") -> None:
    with store.update() as txn:
        txn.put(key, value)


def closed_store(path: Path) -> Path:
    """Make it; return its directory."""
    with blobkv.open(path) as store:
        put(store, b"table")
        store.flush()
        put(store, b"log")
    return path
