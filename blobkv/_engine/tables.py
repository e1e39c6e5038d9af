"""The tables of a store, the newest first, and point reads over them: its hottest code.

Tables stand in runs. Those of one run have no key in common, nor does a range tombstone of
one reach into another, so that of each run one table at most can say anything about a key;
where they are merged a run counts as one source.

Everything that a point read needs lies in the cells of one closure: attribute lookups and
calls between layers were as dear as the reading itself. Of each run a hit costs a tag or two,
a place, the key, and the value; a miss ends at the first empty tag.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING, Final, overload
from zlib import crc32

from blobkv._engine.hash_index import (
    KEY_LONG,
    KEY_SHIFT,
    OFFSET_MASK,
    PAGE_SHIFT,
    TAG_MASK,
    VALUE_LONG,
    VALUE_MASK,
    VALUE_SHIFT,
)
from blobkv._engine.memtable import ABSENT
from blobkv._engine.ranges import Ranges
from blobkv._engine.table import ALL_VERIFIED, VERIFIED_SHIFT, Table
from blobkv.errors import ClosedError, CorruptionError

if TYPE_CHECKING:
    from array import array
    from collections.abc import Callable, Iterable, Iterator

    from blobkv._engine.files import Mapped
    from blobkv._engine.format import Range
    from blobkv._engine.memtable import Chunk

    _Probe = tuple[
        int, memoryview, memoryview | array[int], bytearray, Mapped, bytearray, Table
    ]
    # Of a run: where the extent of each table begins, and what a read of each needs.
    _RunProbe = tuple[list[bytes], list[_Probe]]

CLOSED: Final = "the store was closed; open it again"


@dataclass(frozen=True, slots=True)
class Run:
    """Tables whose extents have no key in common, in key order.

    Attributes:
        firsts: Where the extent of each begins; empty where there is one table only.
        tables: The tables.
        ranges: What their range tombstones cover in older tables.
    """

    firsts: list[bytes]
    tables: list[Table]
    ranges: Ranges

    @property
    def tombstones(self) -> int:
        """How many of its entries are tombstones."""
        return sum(table.footer.tombstones for table in self.tables)

    def chunks(
        self, start: bytes, stop: bytes | None, *, skip: int = 0, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the entries in [start, stop), as `Table.chunks`."""
        if not self.firsts:
            return self.tables[0].chunks(start, stop, skip=skip, reverse=reverse)
        tables = self._within(start, stop)
        return chain.from_iterable(
            table.chunks(start, stop, skip=skip, reverse=reverse)
            for table in (reversed(tables) if reverse else tables)
        )

    def read_short(self, start: bytes, stop: bytes | None) -> Chunk | None:
        """Return the entries of a short range, as `Table.read_short`."""
        tables = self._within(start, stop)
        if len(tables) > 1:
            return None
        return tables[0].read_short(start, stop) if tables else ((), ())

    def count(self, start: bytes, stop: bytes | None) -> int:
        """Return how many entries are in [start, stop), as `Table.count`."""
        return sum(table.count(start, stop) for table in self._within(start, stop))

    def _within(self, start: bytes, stop: bytes | None) -> list[Table]:
        if not self.firsts:
            return self.tables
        first = max(bisect_right(self.firsts, start) - 1, 0)
        last = len(self.firsts) if stop is None else bisect_left(self.firsts, stop)
        return self.tables[first:last]


class Tables(Sequence[Table]):
    """The tables of a store at one moment; they do not change.

    Args:
        tables: The newest first.

    Attributes:
        runs: The tables again, neighbors without a key in common together, in key order.
        get: Returns the value of a key, or None where no table has one.

    Cost: where there is more than one, of each its block index and two blocks are read, and all
    are compared with each other.
    """

    def __init__(self, tables: Iterable[Table] = ()) -> None:
        self._tables = tuple(tables)
        self.runs = _runs(self._tables)
        self.get, self._close = _reader(self.runs)

    @overload
    def __getitem__(self, i: int) -> Table: ...
    @overload
    def __getitem__(self, i: slice) -> tuple[Table, ...]: ...
    def __getitem__(self, i: int | slice) -> Table | tuple[Table, ...]:
        return self._tables[i]

    def __len__(self) -> int:
        return len(self._tables)

    def close(self) -> None:
        """Have every later `get` raise `ClosedError`, also one that was taken before."""
        self._close()


def _runs(tables: Sequence[Table]) -> list[Run]:
    if len(tables) < 2:
        return [Run([], [table], table.ranges) for table in tables]
    found: list[list[tuple[Range, Table]]] = []
    for table in tables:
        extent = _extent(table)
        if extent is None:
            # The empty list: what is older begins a run of its own.
            found += [((b"", None), table)], []
        elif found and _apart(extent, found[-1]):
            found[-1].append((extent, table))
        else:
            found.append([(extent, table)])
    return [_run(run) for run in found if run]


def _run(parts: list[tuple[Range, Table]]) -> Run:
    parts.sort(key=lambda part: part[0][0])
    tables = [table for _, table in parts]
    if len(tables) == 1:
        return Run([], tables, tables[0].ranges)
    ranges = Ranges(bounds for table in tables for bounds in table.ranges)
    return Run([start for (start, _), _ in parts], tables, ranges)


def _apart(extent: Range, run: list[tuple[Range, Table]]) -> bool:
    start, stop = extent
    # Not by `any`: an interrupt within a generator that it drops would be lost.
    for (first, last), _ in run:
        if (stop is None or first < stop) and (last is None or start < last):
            return False
    return True


def _extent(table: Table) -> Range | None:
    try:
        return table.extent()
    except CorruptionError:
        # Whoever reads what is damaged is told; the rest of the store can be read.
        return None


def _reader(
    runs: Sequence[Run],
) -> tuple[Callable[[bytes], bytes | None], Callable[[], None]]:
    sources: Iterable[_RunProbe] = [(run.firsts, list(map(_probe, run.tables))) for run in runs]

    def get(key: bytes) -> bytes | None:
        crc = crc32(key)
        tag = crc & TAG_MASK or 1
        for firsts, probes in sources:
            # Before the first table any will do: none holds the key.
            probe = probes[bisect_right(firsts, key) - 1 if firsts else 0]
            homes, tags, places, verified_pages, data, verified, table = probe
            try:
                at = crc * homes >> 32
                if not verified_pages[at >> PAGE_SHIFT]:
                    table.hash_index.verify_page(at >> PAGE_SHIFT)
                while mark := tags[at]:
                    if mark == tag:
                        place = places[at]
                        start = place & OFFSET_MASK
                        if verified[start >> VERIFIED_SHIFT] != ALL_VERIFIED:
                            table.verify_around(start)
                        size = len(key)
                        end = start + size
                        if data[start:end] == key:
                            room = place >> VALUE_SHIFT & VALUE_MASK
                            if room < VALUE_LONG and place >> KEY_SHIFT == size < KEY_LONG:
                                return data[end : end + room]
                            found = table.entry_at(key, start)
                            if found is not ABSENT:
                                return found
                    at += 1
            except IndexError:
                # It has no hash index. Caught, since asking each time would cost.
                found = table.get(key)
                if found is not ABSENT:
                    return found
            if table.ranges and table.ranges.covers(key):
                return None
        return None

    def close() -> None:
        nonlocal sources
        sources = _Closed()

    return get, close


def _probe(table: Table) -> _Probe:
    index = table.hash_index
    return (
        index.homes,
        index.tags,
        index.places,
        index.verified,
        table.data,
        table.verified,
        table,
    )


class _Closed:
    """What a closed store reads from."""

    def __iter__(self) -> Iterator[_RunProbe]:
        raise ClosedError(CLOSED)
