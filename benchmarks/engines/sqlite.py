"""SQLite as a key-value table, in the mode that syncs each commit once: WAL and FULL.

One connection serves all threads behind a lock: with one each, they would wait for each
other by sleeping. Single puts and gets run outside BEGIN and COMMIT, which is a transaction
each and the cheapest one. Python's module keeps the prepared statements.
"""

from __future__ import annotations

import sqlite3
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

from engines.engine import CACHE_SIZE, WRITE_BUFFER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from engines.engine import Pair

PAGE_SIZE = 4096
PUT = "INSERT INTO kv VALUES (?, ?) ON CONFLICT (k) DO UPDATE SET v = excluded.v"
GET = "SELECT v FROM kv WHERE k = ?"
RANGE = "SELECT k, v FROM kv WHERE k >= ? AND k < ? ORDER BY k"
PAGE = "SELECT k, v FROM kv WHERE k >= ? ORDER BY k LIMIT ?"
FORWARD = "SELECT k, v FROM kv ORDER BY k"
REVERSE = "SELECT k, v FROM kv ORDER BY k DESC"


class Sqlite:
    version: ClassVar[str] = sqlite3.sqlite_version

    def __init__(self, directory: Path) -> None:
        self._lock = threading.Lock()
        self._db = sqlite3.connect(
            directory / "kv.db", isolation_level=None, check_same_thread=False
        )
        for pragma in (
            "journal_mode=WAL",
            "synchronous=FULL",
            f"cache_size={-CACHE_SIZE // 1024}",
            f"mmap_size={1 << 33}",
            f"wal_autocheckpoint={WRITE_BUFFER_SIZE // PAGE_SIZE}",
        ):
            self._db.execute(f"PRAGMA {pragma}")
        self._db.execute(
            "CREATE TABLE IF NOT EXISTS kv (k BLOB PRIMARY KEY, v BLOB) WITHOUT ROWID"
        )

    def commit(self, pairs: Sequence[Pair]) -> None:
        with self._lock:
            if len(pairs) == 1:
                self._db.execute(PUT, pairs[0])
                return
            self._db.execute("BEGIN IMMEDIATE")
            self._db.executemany(PUT, pairs)
            self._db.execute("COMMIT")

    def get(self, key: bytes) -> bytes | None:
        row = self._db.execute(GET, (key,)).fetchone()
        return row[0] if row else None

    def get_each(self, keys: Iterable[bytes]) -> list[bytes | None]:
        execute = self._db.execute
        with self._view():
            rows = (execute(GET, (key,)).fetchone() for key in keys)
            return [row[0] if row else None for row in rows]

    @contextmanager
    def scan(self, *, reverse: bool = False) -> Iterator[Iterable[Pair]]:
        with self._view():
            yield self._db.execute(REVERSE if reverse else FORWARD)

    def prefixes(self, prefixes: Iterable[bytes]) -> Iterator[list[Pair]]:
        with self._view():
            for prefix in prefixes:
                # No key holds a byte above ASCII, so this bound is the tightest.
                yield self._db.execute(RANGE, (prefix, prefix + b"\xff")).fetchall()

    def page(self, start: bytes, count: int) -> list[Pair]:
        return self._db.execute(PAGE, (start, count)).fetchall()

    def settle(self) -> None:
        # What a close would do: what is in the log goes into the database.
        self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        self._db.close()

    @contextmanager
    def _view(self) -> Iterator[None]:
        self._db.execute("BEGIN")
        yield
        self._db.execute("COMMIT")
