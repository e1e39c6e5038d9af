"""The engines that are compared, each behind the face of `engines.engine.Engine`.

An engine is either an adapter in this folder, run by `worker.py`, or the Go program in
`bbolt/`, which is given the same tasks and the same inputs.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, cast

import golang

if TYPE_CHECKING:
    from engines.engine import Engine

# By the name that tables show: the adapter's module and class.
ADAPTERS = {
    "blobkv": ("engines.blobkv", "BlobKV"),
    "py-lmdb": ("engines.lmdb", "Lmdb"),
    "SQLite": ("engines.sqlite", "Sqlite"),
    "LevelDB": ("engines.leveldb", "LevelDB"),
    "RocksDB": ("engines.rocksdb", "RocksDB"),
    "tuned LevelDB": ("engines.leveldb", "TunedLevelDB"),
    "tuned RocksDB": ("engines.rocksdb", "TunedRocksDB"),
    "ZODB": ("engines.zodb", "Zodb"),
    "dbm.dumb": ("engines.dumb_dbm", "DumbDbm"),
}
BBOLT = "bbolt"
COMPILED = (
    "py-lmdb",
    BBOLT,
    "SQLite",
    "LevelDB",
    "RocksDB",
    "tuned LevelDB",
    "tuned RocksDB",
)
PURE = ("ZODB", "dbm.dumb")


def missing(name: str) -> str | None:
    """Why an engine cannot be run here, or None if it can."""
    if name == BBOLT:
        return golang.missing()
    if name in ADAPTERS:
        try:
            adapter(name)
        except ImportError as error:
            return f"{error}; pip install 'blobkv[bench]' brings it"
    return None


def adapter(name: str) -> type[Engine]:
    """Return the adapter of that name.

    Raises:
        ImportError: The library it needs is not installed.
    """
    module, class_name = ADAPTERS[name]
    return cast("type[Engine]", getattr(importlib.import_module(module), class_name))
