"""LevelDB through plyvel: as it comes, and with a large cache and a bloom filter."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, ClassVar

import plyvel

from engines.engine import BLOOM_BITS, CACHE_SIZE, WRITE_BUFFER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from engines.engine import Pair


class LevelDB:
    version: ClassVar[str] = f"{plyvel.__leveldb_version__}, plyvel {plyvel.__version__}"
    options: ClassVar[dict[str, int]] = {}

    def __init__(self, directory: Path) -> None:
        self._db = plyvel.DB(str(directory / "db"), create_if_missing=True, **self.options)

    def commit(self, pairs: Sequence[Pair]) -> None:
        if len(pairs) == 1:
            self._db.put(*pairs[0], sync=True)
            return
        batch = self._db.write_batch(sync=True)
        put = batch.put
        for key, value in pairs:
            put(key, value)
        batch.write()

    def get(self, key: bytes) -> bytes | None:
        return self._db.get(key)

    def get_each(self, keys: Iterable[bytes]) -> list[bytes | None]:
        with self._db.snapshot() as snapshot:
            get = snapshot.get
            return [get(key) for key in keys]

    @contextmanager
    def scan(self, *, reverse: bool = False) -> Iterator[Iterable[Pair]]:
        with self._db.iterator(reverse=reverse) as pairs:
            yield pairs

    def prefixes(self, prefixes: Iterable[bytes]) -> Iterator[list[Pair]]:
        with self._db.snapshot() as snapshot:
            for prefix in prefixes:
                yield list(snapshot.iterator(prefix=prefix))

    def page(self, start: bytes, count: int) -> list[Pair]:
        return list(islice(self._db.iterator(start=start), count))

    def settle(self) -> None:
        self._db.compact_range()

    def close(self) -> None:
        self._db.close()


class TunedLevelDB(LevelDB):
    options: ClassVar[dict[str, int]] = {
        "write_buffer_size": WRITE_BUFFER_SIZE,
        "lru_cache_size": CACHE_SIZE,
        "bloom_filter_bits": BLOOM_BITS,
    }
