"""ZODB: one BTree in a FileStorage, which syncs its file at each commit.

The storage and the transactions are Python; BTrees and pickles are C where they are installed
so. The cache holds every node, so gets and scans after the first read no file.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version as installed_version
from itertools import islice
from typing import TYPE_CHECKING, Any, ClassVar

import BTrees
import transaction
import ZODB
from ZODB.FileStorage import FileStorage

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from engines.engine import Pair


class Zodb:
    version: ClassVar[str] = installed_version("ZODB")

    def __init__(self, directory: Path) -> None:
        self._db = ZODB.DB(FileStorage(str(directory / "Data.fs")), cache_size=1 << 20)
        self._manager = transaction.TransactionManager(explicit=True)
        self._connection = self._db.open(self._manager)
        with self._manager:
            root = self._connection.root()
            if "kv" not in root:
                root["kv"] = BTrees.OOBTree.OOBTree()

    def commit(self, pairs: Sequence[Pair]) -> None:
        with self._manager:
            self._tree.update(pairs)

    def get(self, key: bytes) -> bytes | None:
        with self._manager:
            return self._tree.get(key)

    def get_each(self, keys: Iterable[bytes]) -> list[bytes | None]:
        with self._manager:
            get = self._tree.get
            return [get(key) for key in keys]

    @contextmanager
    def scan(self, *, reverse: bool = False) -> Iterator[Iterable[Pair]]:
        with self._manager:
            pairs = self._tree.items()
            yield reversed(pairs) if reverse else pairs

    def prefixes(self, prefixes: Iterable[bytes]) -> Iterator[list[Pair]]:
        with self._manager:
            for prefix in prefixes:
                yield list(self._tree.items(prefix, prefix + b"\xff"))

    def page(self, start: bytes, count: int) -> list[Pair]:
        with self._manager:
            return list(islice(self._tree.items(start), count))

    def settle(self) -> None:
        # What it owes: FileStorage keeps each old version until it is packed.
        self._db.pack()

    def close(self) -> None:
        self._connection.close()
        self._db.close()

    @property
    def _tree(self) -> Any:
        return self._connection.root()["kv"]
