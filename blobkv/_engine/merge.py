"""Many ordered sources as one.

A source is a memtable as of one commit, a table, or a run of tables. For any key the first
source that knows it decides; a source's range tombstones hide only what comes after it.

Merging works on chunks, not on entries: each round takes, from every source, the entries up
to the nearest end of a chunk. Where one source alone has entries there, its chunk passes
through untouched, which is the common case; where several do, a dict resolves them, oldest
first, and one sort puts them in order, at C speed. The longer the chunks, the less Python a
key; so where sources meet, their chunks are gathered, the more of them the longer it goes on.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import TYPE_CHECKING, Final, Protocol

from blobkv._engine.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobkv._engine.format import Range
    from blobkv._engine.memtable import Chunk

_GATHERED_MAX: Final = 1024


class Source(Protocol):
    """Entries in key order."""

    @property
    def ranges(self) -> Ranges:
        """What its range tombstones cover in the sources after it."""

    def chunks(
        self, start: bytes, stop: bytes | None, *, skip: int = 0, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the entries in [start, stop) in key order, without `skip` bytes of each key."""


class ShortReader(Source, Protocol):
    """Entries in key order, with a quick way to those of a short range."""

    def read_short(self, start: bytes, stop: bytes | None) -> Chunk | None:
        """Return the entries of a short range, or None if [start, stop) is not one."""


def read_short(
    sources: Sequence[ShortReader], start: bytes, stop: bytes | None
) -> Chunk | None:
    """Return the first entry of every key of a short range, or None if it is not one.

    Cost: O(log n) for each source, and no generator.
    """
    parts: list[Chunk] = []
    for source in sources:
        part = source.read_short(start, stop)
        if part is None:
            return None
        if part[0]:
            parts.append(part)
        if source.ranges:
            gaps = source.ranges.gaps(start, stop)
            if not gaps:
                break
            if gaps != [(start, stop)]:
                return None
    if len(parts) > 1:
        return _resolved(parts, reverse=False)
    return parts[0] if parts else ((), ())


def merged(
    sources: Sequence[Source],
    start: bytes,
    stop: bytes | None,
    *,
    skip: int = 0,
    reverse: bool = False,
) -> Iterator[Chunk]:
    """Yield the first entry of every key in [start, stop), tombstones included.

    Args:
        sources: The newest first.
        start: The smallest key.
        stop: The first key past the range; None for no bound.
        skip: How many bytes to leave out at the start of each key.
        reverse: Whether to go from the last to the first.

    Cost: O(log n) to start for each source. A key costs next to nothing where one source
    alone has some, a dict lookup and its share of a sort for each source where several do.
    """
    if len(sources) == 1:
        return sources[0].chunks(start, stop, skip=skip, reverse=reverse)
    hidden = Ranges()
    visible: list[Iterator[Chunk]] = []
    for source in sources:
        visible.append(_visible(source, hidden.gaps(start, stop), reverse=reverse))
        hidden = hidden.union(source.ranges)
    chunks = _merge(visible, reverse=reverse)
    return _skipping(chunks, skip) if skip else chunks


def without_tombstones(chunk: Chunk) -> Chunk:
    """Return the chunk without its tombstones; itself, if it has none."""
    keys, values = chunk
    if None not in values:
        return chunk
    there = [i for i, value in enumerate(values) if value is not None]
    return [keys[i] for i in there], [values[i] for i in there]


def _visible(source: Source, pieces: Sequence[Range], *, reverse: bool) -> Iterator[Chunk]:
    for start, stop in reversed(pieces) if reverse else pieces:
        yield from source.chunks(start, stop, reverse=reverse)


def _skipping(chunks: Iterator[Chunk], skip: int) -> Iterator[Chunk]:
    for keys, values in chunks:
        yield [key[skip:] for key in keys], values


def _merge(sources: Sequence[Iterator[Chunk]], *, reverse: bool) -> Iterator[Chunk]:
    # Newest first, each with the rest of its chunk and the chunk that comes after it.
    heads = [
        (chunk, next(source, None), source)
        for source in sources
        if (chunk := next(source, None)) is not None
    ]
    if len(heads) > 1:
        heads = [
            (chunk, ahead, source if ahead is None else _gathered(source))
            for chunk, ahead, source in heads
        ]
    while len(heads) > 1:
        # What is in its last chunk bounds nothing, so that a short range takes one round.
        ends = [keys[-1] for (keys, _), ahead, _ in heads if ahead is not None]
        if not ends:
            yield _resolved([chunk for chunk, _, _ in heads], reverse=reverse)
            return
        end = max(ends) if reverse else min(ends)
        parts: list[Chunk] = []
        rest: list[tuple[Chunk, Chunk | None, Iterator[Chunk]]] = []
        for (keys, values), ahead, source in heads:
            count = _count_until(keys, end, reverse=reverse)
            if count:
                parts.append((keys[:count], values[:count]))
            if count < len(keys):
                rest.append(((keys[count:], values[count:]), ahead, source))
            elif ahead is not None:
                rest.append((ahead, next(source, None), source))
        heads = rest
        yield parts[0] if len(parts) == 1 else _resolved(parts, reverse=reverse)
    for chunk, ahead, source in heads:
        yield chunk
        if ahead is not None:
            yield ahead
            yield from source


def _gathered(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    """Yield the same entries in longer chunks, each twice as long as the one before."""
    wanted = 0
    keys: list[bytes] = []
    values: list[bytes | None] = []
    for more_keys, more_values in chunks:
        keys += more_keys
        values += more_values
        if len(keys) >= wanted:
            yield keys, values
            wanted = min(2 * len(keys), _GATHERED_MAX)
            keys, values = [], []
    if keys:
        yield keys, values


def _count_until(keys: Sequence[bytes], end: bytes, *, reverse: bool) -> int:
    if not reverse:
        # Asked first, so that a merge goes on whatever the order that hostile keys are in.
        return len(keys) if keys[-1] <= end else bisect_right(keys, end)
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
