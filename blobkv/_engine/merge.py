"""Many ordered sources as one: layers from the newest to the oldest.

A layer is a memtable or a table. For any key the first layer that knows it decides: an entry
gives its value, a tombstone or a covering range tombstone says "deleted". A layer's ranges
hide only the layers below it.

Merging works on chunks, not on entries: each round takes, from every source, the entries up
to the nearest end of a chunk. Where one source alone has entries there, its chunk passes
through untouched, which is the common case; where several do, a dict resolves them, oldest
first, and one sort puts them in order, at C speed.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, NamedTuple, Protocol
from zlib import crc32

from blobkv._engine.memtable import ABSENT
from blobkv._engine.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobkv._engine.format import Range
    from blobkv._engine.memtable import Chunk, Memtable
    from blobkv._engine.table import Table


class Reader(Protocol):
    """One consistent state of the whole key space."""

    def get(self, key: bytes) -> bytes | None:
        """Return the key's value, or None."""

    def items(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs in [start, stop) in key order."""

    def count(self, start: bytes, stop: bytes | None) -> int:
        """Return how many pairs `items` would yield."""


class Layers(NamedTuple):
    """What a store consists of at one moment; replaced as a whole, never changed."""

    active: Memtable
    frozen: tuple[Memtable, ...]
    tables: tuple[Table, ...]

    @property
    def memtables(self) -> tuple[Memtable, ...]:
        """All memtables, the newest first."""
        return (self.active, *self.frozen)


class State:
    """The layers as of one sequence: a `Reader` that no later commit changes.

    Cost: O(memtables) to make; holds its memtables and tables for as long as it lives.
    """

    def __init__(self, layers: Layers, sequence: int) -> None:
        self.sequence = sequence
        self._memtables = [
            (memtable, memtable.ranges(sequence)) for memtable in layers.memtables if memtable
        ]
        self._tables = layers.tables

    def get(self, key: bytes) -> bytes | None:
        """Return the key's value, or None. Cost: one probe a layer until one knows."""
        sequence = self.sequence
        for memtable, ranges in self._memtables:
            found = memtable.get(key, sequence)
            if found is not ABSENT:
                return found
            if ranges and ranges.covers(key):
                return None
        if not self._tables:
            return None
        crc = crc32(key)
        for table in self._tables:
            found = table.get(key, crc)
            if found is not ABSENT:
                return found
            if table.ranges and table.ranges.covers(key):
                return None
        return None

    def items(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[tuple[bytes, bytes]]:
        """Yield the pairs in [start, stop) in key order, descending when `reverse`.

        Cost: O(log n) to start for each layer, then little more than one dict lookup and a
        tuple a pair where one layer owns the keys.
        """
        for keys, values in self.chunks(start, stop, reverse=reverse):
            if None in values:
                for key, value in zip(keys, values, strict=True):
                    if value is not None:
                        yield key, value
            else:
                yield from zip(keys, values, strict=True)

    def count(self, start: bytes, stop: bytes | None) -> int:
        """Return how many keys are in [start, stop). Cost: O(n), without a pair made."""
        chunks = self.chunks(start, stop)
        return sum(len(keys) - values.count(None) for keys, values in chunks)

    def chunks(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the newest entry of every key in [start, stop), tombstones included."""
        hidden = Ranges()
        sources: list[Iterator[Chunk]] = []
        for memtable, ranges in self._memtables:
            pieces = _pieces(hidden, start, stop, reverse=reverse)
            sources.append(_memtable_chunks(memtable, self.sequence, pieces, reverse=reverse))
            hidden = _joined(hidden, ranges)
        sources += table_chunks(self._tables, start, stop, hidden, reverse=reverse)
        return merge(sources, reverse=reverse)


def table_chunks(
    tables: Sequence[Table],
    start: bytes,
    stop: bytes | None,
    hidden: Ranges,
    *,
    reverse: bool = False,
) -> list[Iterator[Chunk]]:
    """Return the chunks of each table, the newest first, without what is hidden above it."""
    sources: list[Iterator[Chunk]] = []
    for table in tables:
        pieces = _pieces(hidden, start, stop, reverse=reverse)
        sources.append(_table_chunks(table, pieces, reverse=reverse))
        hidden = _joined(hidden, table.ranges)
    return sources


def merge(sources: Sequence[Iterator[Chunk]], *, reverse: bool = False) -> Iterator[Chunk]:
    """Yield the entries of all sources in key order; for equal keys the first source wins."""
    if len(sources) == 1:
        yield from sources[0]
        return
    # Newest first, each with the rest of its current chunk.
    heads = [(chunk, source) for source in sources if (chunk := next(source, None)) is not None]
    while heads:
        if len(heads) == 1:
            yield heads[0][0]
            yield from heads[0][1]
            return
        ends = [keys[-1] for (keys, _), _ in heads]
        end = max(ends) if reverse else min(ends)
        parts: list[Chunk] = []
        rest: list[tuple[Chunk, Iterator[Chunk]]] = []
        for (keys, values), source in heads:
            count = _count_until(keys, end, reverse=reverse)
            if count:
                parts.append((keys[:count], values[:count]))
            if count < len(keys):
                rest.append(((keys[count:], values[count:]), source))
            elif (chunk := next(source, None)) is not None:
                rest.append((chunk, source))
        heads = rest
        yield parts[0] if len(parts) == 1 else _resolved(parts, reverse=reverse)


def _memtable_chunks(
    memtable: Memtable, sequence: int, pieces: Sequence[Range], *, reverse: bool
) -> Iterator[Chunk]:
    for start, stop in pieces:
        yield from memtable.chunks(start, stop, sequence, reverse=reverse)


def _table_chunks(table: Table, pieces: Sequence[Range], *, reverse: bool) -> Iterator[Chunk]:
    for start, stop in pieces:
        yield from table.chunks(start, stop, reverse=reverse)


def _count_until(keys: Sequence[bytes], end: bytes, *, reverse: bool) -> int:
    if not reverse:
        return bisect_right(keys, end)
    if keys[-1] >= end:
        return len(keys)
    # Descending, which bisect does not know; the keys are few, and mostly none or all match.
    ascending = keys[::-1]
    return len(keys) - bisect_left(ascending, end)


def _resolved(parts: Sequence[Chunk], *, reverse: bool) -> Chunk:
    newest: dict[bytes, bytes | None] = {}
    for keys, values in reversed(parts):
        newest.update(zip(keys, values, strict=True))
    ordered = sorted(newest, reverse=reverse)
    return ordered, [newest[key] for key in ordered]


def _pieces(hidden: Ranges, start: bytes, stop: bytes | None, *, reverse: bool) -> list[Range]:
    if not hidden:
        return [(start, stop)]
    gaps = hidden.gaps(start, stop)
    return gaps[::-1] if reverse else gaps


def _joined(a: Ranges, b: Ranges) -> Ranges:
    if not b:
        return a
    if not a:
        return b
    return Ranges([*a, *b])
