"""One state of the store: its layers as of one commit, which no later commit changes.

A layer is a memtable or a run of tables. For any key the first layer that knows it decides:
an entry gives its value, a tombstone or a covering range tombstone says "deleted". A layer's
ranges hide only the layers below it.

All who read the same commit share one state, which costs a view nothing to open; what it
refers to is kept for as long as somebody refers to it.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from blobkv._engine.memtable import ABSENT
from blobkv._engine.merge import merged, read_short, without_tombstones
from blobkv._engine.ranges import Ranges
from blobkv._engine.tables import CLOSED
from blobkv.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blobkv._engine.memtable import Chunk, Link, Memtable
    from blobkv._engine.merge import ShortReader
    from blobkv._engine.tables import Tables

    # Of a memtable: its newest values, what they replaced, and what its ranges cover.
    _Lookup = tuple[dict[bytes, bytes | None], dict[bytes, Link], Ranges]

Pair = tuple[bytes, bytes]

ENDED: Final = "the transaction has ended; open another view or update"


class Owner(Protocol):
    """Whoever reads a state, for a time."""

    ended: bool


class _Lasting:
    ended = False


LASTING: Final[Owner] = _Lasting()


class Reader(Protocol):
    """One consistent state of the whole key space."""

    @property
    def get(self) -> Callable[[bytes], bytes | None]:
        """Returns the value of a key, or None."""

    def items(
        self,
        start: bytes,
        stop: bytes | None,
        *,
        owner: Owner = LASTING,
        skip: int = 0,
        reverse: bool = False,
    ) -> Iterator[Pair]:
        """Yield the pairs in [start, stop) in key order.

        Args:
            start: The smallest key.
            stop: The first key past the range; None for no bound.
            owner: Once it has ended, the next pair is a `ClosedError`.
            skip: How many bytes to leave out at the start of each key; all keys in the range
                have them in common.
            reverse: Whether to go from the last to the first.
        """

    def count(self, start: bytes, stop: bytes | None) -> int:
        """Return how many pairs `items` would yield."""

    def check_open(self) -> None:
        """Raise `ClosedError` if it can be read no more."""


class Layers(NamedTuple):
    """What a store consists of at one moment; replaced as a whole, never changed."""

    active: Memtable
    frozen: tuple[Memtable, ...]
    tables: Tables

    @property
    def memtables(self) -> tuple[Memtable, ...]:
        """All memtables, the newest first."""
        return (self.active, *self.frozen)


class State:
    """The layers as of one sequence: a `Reader` that no later commit changes.

    Cost: O(memtables) to make; holds its memtables and tables for as long as it lives.

    Attributes:
        get: Returns the value of a key, or None. Cost: a dict lookup a memtable, then one
            probe a run of tables, until one knows the key.
        sequence: The commit.
    """

    __slots__ = (
        "__weakref__",
        "_closed",
        "_lookups",
        "_reading",
        "_recent",
        "_sources",
        "_tables",
        "get",
        "sequence",
    )

    def __init__(self, layers: Layers, sequence: int) -> None:
        self.sequence = sequence
        self._tables = layers.tables
        memtables = [
            MemtableSource(memtable, sequence, memtable.ranges(sequence))
            for memtable in layers.memtables
            if memtable
        ]
        self._sources: list[ShortReader] = [*memtables, *layers.tables.runs]
        # The chunks that are being read, to be cut off when their owner ends.
        self._reading: dict[int, tuple[Owner, list[bytes]]] = {}
        # The short range that was read last: whoever asks for its pairs mostly asked for its
        # length just before, as `list` does, or will again.
        self._recent: tuple[bytes, bytes | None, Chunk] | None = None
        self._closed = False
        self._lookups = [
            (memtable.newest, memtable.older, ranges) for memtable, _, ranges in memtables
        ]
        self.get = layers.tables.get
        if memtables:
            self.get = _reader(self._lookups, sequence, layers.tables.get)

    def items(
        self,
        start: bytes,
        stop: bytes | None,
        *,
        owner: Owner = LASTING,
        skip: int = 0,
        reverse: bool = False,
    ) -> Iterator[Pair]:
        """Yield the pairs in [start, stop) in key order, as of `Reader.items`.

        Cost: O(log n) to start for each source, then a tuple a pair: inside a table's blocks no
        Python code runs for a pair, elsewhere one slice does. A short range is read at once
        and kept, in memory, until another is.
        """
        return chain.from_iterable(self._zipped(start, stop, owner, skip, reverse=reverse))

    def count(self, start: bytes, stop: bytes | None) -> int:
        """Return how many keys are in [start, stop).

        Cost: one number a block where there is one run of tables and nothing else, as after
        a compaction; else all but the making of pairs.
        """
        self.check_open()
        found = self._read_short(start, stop)
        if found is not None:
            return len(found[0])
        runs = self._tables.runs
        if len(self._sources) == len(runs) == 1 and not runs[0].tombstones:
            return runs[0].count(start, stop)
        chunks = self.chunks(start, stop)
        return sum(len(keys) - values.count(None) for keys, values in chunks)

    def chunks(
        self, start: bytes, stop: bytes | None, *, skip: int = 0, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the entry of every key in [start, stop), tombstones included."""
        return merged(self._sources, start, stop, skip=skip, reverse=reverse)

    @property
    def entries(self) -> int:
        """How many entries its layers have in all, shadowed ones and tombstones included."""
        tables = sum(table.footer.entries for table in self._tables)
        return tables + sum(len(newest) for newest, _, _ in self._lookups)

    def parts(self) -> tuple[Iterator[Chunk], Ranges, Tables]:
        """Return what the memtables say, entries and range tombstones, and the tables below."""
        memtables = self._sources[: len(self._lookups)]
        ranges = Ranges()
        for source in memtables:
            ranges = ranges.union(source.ranges)
        chunks = merged(memtables, b"", None) if memtables else iter(())
        return chunks, ranges, self._tables

    def check_open(self) -> None:
        """Raise `ClosedError` if the store was closed."""
        if self._closed:
            raise ClosedError(CLOSED)

    def cut(self, owner: Owner) -> None:
        """End what the owner, who has ended, is reading: the next pair raises."""
        if self._reading:
            for reader, keys in list(self._reading.values()):
                if reader is owner:
                    keys.clear()

    def close(self) -> None:
        """Have every later read raise `ClosedError`."""
        self._closed = True
        # In this order: what the memtables do not know the tables are asked for.
        self._tables.close()
        self._lookups.clear()
        for _, keys in list(self._reading.values()):
            keys.clear()

    def _zipped(
        self, start: bytes, stop: bytes | None, owner: Owner, skip: int, *, reverse: bool
    ) -> Iterator[Iterator[Pair]]:
        # The pairs of a chunk are read at C speed, by whoever it may be; to stop that, the
        # keys are taken away.
        shown: list[bytes] = []
        token = id(shown)
        self._reading[token] = owner, shown
        try:
            self._check_read(owner)
            found = self._read_short(start, stop)
            if found is not None:
                keys, values = found
                if reverse:
                    keys, values = keys[::-1], values[::-1]
                shown += [key[skip:] for key in keys]
                yield zip(shown, values)  # type: ignore[arg-type]  # noqa: B905  # Maybe cut.
                self._check_read(owner)
                return
            for chunk in self.chunks(start, stop, skip=skip, reverse=reverse):
                shown[:], values = without_tombstones(chunk)
                yield zip(shown, values)  # type: ignore[arg-type]  # noqa: B905
                self._check_read(owner)
        finally:
            del self._reading[token]

    def _check_read(self, owner: Owner) -> None:
        self.check_open()
        if owner.ended:
            raise ClosedError(ENDED)

    def _read_short(self, start: bytes, stop: bytes | None) -> Chunk | None:
        """Return the pairs of a short range, from memory if asked again; None if it is none."""
        recent = self._recent
        if recent is not None and recent[0] == start and recent[1] == stop:
            return recent[2]
        sources = self._sources
        # Called for every range: one source, as after a compaction, needs no merge.
        found = (
            sources[0].read_short(start, stop)
            if len(sources) == 1
            else read_short(sources, start, stop)
        )
        if found is not None:
            found = without_tombstones(found)
            self._recent = start, stop, found
        return found


class MemtableSource(NamedTuple):
    """A memtable as of one sequence: a source."""

    memtable: Memtable
    sequence: int
    ranges: Ranges

    def chunks(
        self, start: bytes, stop: bytes | None, *, skip: int = 0, reverse: bool = False
    ) -> Iterator[Chunk]:
        chunks = self.memtable.chunks(start, stop, self.sequence, reverse=reverse)
        return (
            (keys if not skip else [key[skip:] for key in keys], values)
            for keys, values in chunks
        )

    def read_short(self, start: bytes, stop: bytes | None) -> Chunk | None:
        return self.memtable.read_short(start, stop, self.sequence)


def _reader(
    lookups: list[_Lookup], sequence: int, below: Callable[[bytes], bytes | None]
) -> Callable[[bytes], bytes | None]:
    # As in `tables.py`: one closure, since calls between layers cost more than the lookups.
    def get(key: bytes) -> bytes | None:
        for newest, older, ranges in lookups:
            value = newest.get(key, ABSENT)
            if older:
                # Read after `newest`, see there.
                link = older.get(key)
                while link is not None and link[0] > sequence:
                    value, link = link[1], link[2]
            if value is not ABSENT:
                return value
            if ranges and ranges.covers(key):
                return None
        return below(key)

    return get
