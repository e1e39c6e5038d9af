"""blobkv as its users call it, all options at their defaults."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import blobkv

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from engines.engine import Pair


class BlobKV:
    version: ClassVar[str] = blobkv.__version__

    def __init__(self, directory: Path) -> None:
        self._store = blobkv.open(directory / "store")

    def commit(self, pairs: Sequence[Pair]) -> None:
        with self._store.update() as txn:
            put = txn.put
            for key, value in pairs:
                put(key, value)

    def batch(self, pair: Pair) -> None:
        self._store.batch(lambda txn: txn.put(*pair))

    def get(self, key: bytes) -> bytes | None:
        with self._store.view() as txn:
            return txn.get(key)

    def get_each(self, keys: Iterable[bytes]) -> list[bytes | None]:
        with self._store.view() as txn:
            get = txn.get
            return [get(key) for key in keys]

    @contextmanager
    def scan(self, *, reverse: bool = False) -> Iterator[Iterable[Pair]]:
        with self._store.view() as txn:
            yield txn.items(reverse=reverse)

    def prefixes(self, prefixes: Iterable[bytes]) -> Iterator[list[Pair]]:
        with self._store.view() as txn:
            for prefix in prefixes:
                yield list(txn.items(prefix=prefix))

    def page(self, start: bytes, count: int) -> list[Pair]:
        with self._store.view() as txn:
            return list(islice(txn.items(start=start), count))

    def settle(self) -> None:
        self._store.compact()

    def close(self) -> None:
        self._store.close()
