"""RocksDB through rocksdict in raw mode, which takes and gives bytes and pickles nothing.

Single gets need no snapshot to be consistent, and rocksdict's snapshots have no `get`, so
gets go to the database itself, in one view and in a view each.
"""

from __future__ import annotations

from contextlib import contextmanager
from importlib.metadata import version as installed_version
from itertools import islice, takewhile
from typing import TYPE_CHECKING, ClassVar

from rocksdict import (
    BlockBasedOptions,
    Cache,
    Options,
    Rdict,
    WriteBatch,
    WriteOptions,
)

from engines.engine import BLOOM_BITS, CACHE_SIZE, WRITE_BUFFER_SIZE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from engines.engine import Pair


class RocksDB:
    version: ClassVar[str] = f"in rocksdict {installed_version('rocksdict')}"

    def __init__(self, directory: Path) -> None:
        options = Options(raw_mode=True)
        options.create_if_missing(True)  # noqa: FBT003  # Its signature.
        self.tune(options)
        self._durable = WriteOptions()
        self._durable.sync = True
        self._db = Rdict(str(directory / "db"), options)
        self._db.set_write_options(self._durable)

    def tune(self, options: Options) -> None:
        """Change options from what they are by default."""

    def commit(self, pairs: Sequence[Pair]) -> None:
        if len(pairs) == 1:
            self._db.put(*pairs[0])
            return
        batch = WriteBatch(raw_mode=True)
        put = batch.put
        for key, value in pairs:
            put(key, value)
        self._db.write(batch, self._durable)

    def get(self, key: bytes) -> bytes | None:
        return self._db.get(key)

    def get_each(self, keys: Iterable[bytes]) -> list[bytes | None]:
        get = self._db.get
        return [get(key) for key in keys]

    @contextmanager
    def scan(self, *, reverse: bool = False) -> Iterator[Iterable[Pair]]:
        yield self._db.items(backwards=reverse)

    def prefixes(self, prefixes: Iterable[bytes]) -> Iterator[list[Pair]]:
        snapshot = self._db.snapshot()
        for prefix in prefixes:
            following = snapshot.items(from_key=prefix)
            yield list(takewhile(lambda pair, p=prefix: pair[0].startswith(p), following))

    def page(self, start: bytes, count: int) -> list[Pair]:
        return list(islice(self._db.items(from_key=start), count))

    def settle(self) -> None:
        self._db.flush(wait=True)
        self._db.compact_range(None, None)

    def close(self) -> None:
        self._db.close()


class TunedRocksDB(RocksDB):
    def tune(self, options: Options) -> None:
        blocks = BlockBasedOptions()
        blocks.set_block_cache(Cache(CACHE_SIZE))
        blocks.set_bloom_filter(BLOOM_BITS, block_based=False)
        options.set_write_buffer_size(WRITE_BUFFER_SIZE)
        options.set_block_based_table_factory(blocks)
        options.increase_parallelism(2)
