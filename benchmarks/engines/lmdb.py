"""LMDB through py-lmdb. Its defaults sync data and meta page at each commit, as we do."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import lmdb

from engines.engine import MAP_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from engines.engine import Pair


class Lmdb:
    version: ClassVar[str] = f"{lmdb.__version__}, LMDB {'.'.join(map(str, lmdb.version()))}"

    def __init__(self, directory: Path) -> None:
        self._env = lmdb.open(str(directory), map_size=MAP_SIZE)

    def commit(self, pairs: Sequence[Pair]) -> None:
        with self._env.begin(write=True) as txn:
            if len(pairs) == 1:
                txn.put(*pairs[0])
            else:
                txn.cursor().putmulti(pairs)

    def get(self, key: bytes) -> bytes | None:
        with self._env.begin() as txn:
            return txn.get(key)

    def get_each(self, keys: Iterable[bytes]) -> list[bytes | None]:
        with self._env.begin() as txn:
            get = txn.get
            return [get(key) for key in keys]

    @contextmanager
    def scan(self, *, reverse: bool = False) -> Iterator[Iterable[Pair]]:
        with self._env.begin() as txn, txn.cursor() as cursor:
            yield cursor.iterprev() if reverse else cursor.iternext()

    def prefixes(self, prefixes: Iterable[bytes]) -> Iterator[list[Pair]]:
        with self._env.begin() as txn, txn.cursor() as cursor:
            for prefix in prefixes:
                found: list[Pair] = []
                if cursor.set_range(prefix):
                    for pair in cursor:
                        if not pair[0].startswith(prefix):
                            break
                        found.append(pair)
                yield found

    def page(self, start: bytes, count: int) -> list[Pair]:
        with self._env.begin() as txn, txn.cursor() as cursor:
            return list(islice(cursor, count)) if cursor.set_range(start) else []

    def settle(self) -> None:
        pass

    def close(self) -> None:
        self._env.close()
