"""Three stores behind one face, each set to be as durable as blobkv is by default.

py-lmdb syncs each commit unless told not to; SQLite needs `synchronous=FULL` to do so in WAL
mode. Both get what suits them best here: a map large enough, a table without rowid.
"""

# ruff: noqa: D101, D102  # `Engine` says what each class and method does.

from __future__ import annotations

import sqlite3
from typing import TYPE_CHECKING, Protocol

import blobkv

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

Pair = tuple[bytes, bytes]


class Engine(Protocol):
    """One open store."""

    def __init__(self, path: Path) -> None: ...

    def commit(self, pairs: Iterable[Pair]) -> None:
        """Put the pairs in one durable transaction."""

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        """Return the values of the keys, read one by one within one view."""

    def scan(self) -> list[Pair]:
        """Return every pair in key order."""

    def close(self) -> None:
        """Release the store."""


class BlobKV:
    def __init__(self, path: Path) -> None:
        self._store = blobkv.open(path)

    def commit(self, pairs: Iterable[Pair]) -> None:
        with self._store.update() as txn:
            for key, value in pairs:
                txn.put(key, value)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._store.view() as txn:
            get = txn.get
            return [get(key) for key in keys]

    def scan(self) -> list[Pair]:
        with self._store.view() as txn:
            return list(txn.items())

    def close(self) -> None:
        self._store.close()


class Lmdb:
    def __init__(self, path: Path) -> None:
        import lmdb

        self._env = lmdb.open(str(path), map_size=1 << 32)

    def commit(self, pairs: Iterable[Pair]) -> None:
        with self._env.begin(write=True) as txn:
            for key, value in pairs:
                txn.put(key, value)

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        with self._env.begin() as txn:
            get = txn.get
            return [get(key) for key in keys]

    def scan(self) -> list[Pair]:
        with self._env.begin() as txn:
            return list(txn.cursor())

    def close(self) -> None:
        self._env.close()


class Sqlite:
    def __init__(self, path: Path) -> None:
        self._db = sqlite3.connect(path.with_suffix(".db"), isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=FULL")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID"
        )

    def commit(self, pairs: Iterable[Pair]) -> None:
        self._db.execute("BEGIN IMMEDIATE")
        self._db.executemany("INSERT OR REPLACE INTO kv VALUES (?, ?)", pairs)
        self._db.execute("COMMIT")

    def get(self, keys: Sequence[bytes]) -> list[bytes | None]:
        one = self._db.execute
        one("BEGIN")
        values = [one("SELECT v FROM kv WHERE k = ?", (key,)).fetchone()[0] for key in keys]
        one("COMMIT")
        return values

    def scan(self) -> list[Pair]:
        return self._db.execute("SELECT k, v FROM kv ORDER BY k").fetchall()

    def close(self) -> None:
        self._db.close()


ENGINES: dict[str, type[Engine]] = {"blobkv": BlobKV, "lmdb": Lmdb, "sqlite3": Sqlite}
