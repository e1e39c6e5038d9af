"""The newest writes, in memory: a dict for point reads, key order only when asked for.

The dict holds the newest value of each key. A commit that readers must not see yet, or that
older readers must never see, leaves what it replaced in `older`: per key a chain of
`(until, value, older)`, newest first, where `value` was in force for sequences before
`until`. With no reader in between, no chain is kept, so a view costs O(1) to open and a
memtable costs one dict entry a key; and a chain has no more links than states are read,
however often its key is changed meanwhile.

Reading is safe beside the one writer: the writer fills `older` before the dict, a reader
reads the dict before `older`, so it finds the old value in one or the other. Order is made
and read under the lock that the store hands in: the first who needs it sorts all keys that are
new (15 ms for 58,000), and then a chunk at a time is read.

Invariants:

* Keys never leave the dict: a delete is an entry whose value is None.
* `_order` holds the dict's first keys, in key order; the rest are ordered at the next need.
* A visible entry is newer than every visible range tombstone that covers its key.

Source: InnoDB's undo log: the newest in place, what it replaced in a chain.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import deque
from enum import Enum
from itertools import islice
from operator import itemgetter
from typing import TYPE_CHECKING, Final, Literal

from sortedcontainers import SortedList

from blobkv._engine.format import SEQUENCE_MAX
from blobkv._engine.ranges import Ranges

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from threading import Lock

    from blobkv._engine.format import Changes, Range

Chunk = tuple["Sequence[bytes]", "Sequence[bytes | None]"]


class Absent(Enum):
    """The type of `ABSENT`, which says "no entry here", where None says "deleted here"."""

    ABSENT = 0


ABSENT: Final = Absent.ABSENT
Found = bytes | None | Literal[Absent.ABSENT]

# Until when a value was in force, the value, and what was in force before it.
Link = tuple[int, Found, "Link | None"]
_CHUNK_COUNT: Final = 256
_SHORT_COUNT_MAX: Final = 64


class Memtable:
    """Changes by key, as of any sequence that a reader still needs.

    Args:
        lock: Held by the caller around `apply` and `forget`; taken here to read key order.

    Attributes:
        newest: The newest value of each key, None for a tombstone.
        older: The chain of what was replaced, of keys where somebody may still need it.
    """

    def __init__(self, lock: Lock) -> None:
        self._lock = lock
        self.newest: dict[bytes, bytes | None] = {}
        self.older: dict[bytes, Link] = {}
        self._trail: deque[tuple[int, bytes]] = deque()
        self._order: SortedList[bytes] = SortedList()
        self._ranges: list[tuple[int, Range]] = []
        # What the first so many of them cover; replaced, never changed, since readers keep it.
        self._covered = (0, Ranges())

    def __len__(self) -> int:
        return len(self.newest)

    def __bool__(self) -> bool:
        return bool(self.newest or self._ranges)

    def apply(
        self,
        sequence: int,
        entries: Changes,
        ranges: Iterable[Range],
        *,
        readers: Sequence[int] = (),
    ) -> None:
        """Take one commit in.

        Args:
            sequence: Its number.
            entries: What it changes.
            ranges: What it deletes before.
            readers: The sequences that are read, ascending, and last the first that a new
                reader may read from now on; nothing, if no earlier one is read or may be.

        Cost: O(entries), and O(keys in the range) for a range tombstone.
        """
        for start, stop in ranges:
            covered = dict.fromkeys(self._ordered(start, stop, reverse=False))
            self._put(sequence, covered, readers)
            self._ranges.append((sequence, (start, stop)))
        self._put(sequence, entries, readers)

    def get(self, key: bytes, sequence: int) -> Found:
        """Return the entry a reader at `sequence` sees; O(1)."""
        value = self.newest.get(key, ABSENT)
        if self.older:
            chain = self.older.get(key)
            while chain is not None and chain[0] > sequence:
                value, chain = chain[1], chain[2]
        return value

    def ranges(self, sequence: int) -> Ranges:
        """Return what range tombstones up to `sequence` cover in older sources.

        Cost: O(log range tombstones) if there are no newer ones since it was asked last, else
        O(range tombstones): a log of nothing else is replayed without this.
        """
        known, covered = self._covered
        count = bisect_right(self._ranges, sequence, key=itemgetter(0))
        if count < known:
            return Ranges(bounds for _, bounds in self._ranges[:count])
        if count > known:
            covered = covered.union(Ranges(bounds for _, bounds in self._ranges[known:count]))
            self._covered = count, covered
        return covered

    def chunks(
        self, start: bytes, stop: bytes | None, sequence: int, *, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the entries in [start, stop) that a reader at `sequence` sees, in key order.

        Each chunk holds up to a few hundred keys and their values, None for a tombstone. A
        writer may go on between chunks. Descending when `reverse`.
        """
        position: bytes | None = None
        while True:
            with self._lock:
                if position is None:
                    found = self._ordered(start, stop, reverse=reverse)
                elif reverse:
                    found = self._ordered(start, position, reverse=True)
                else:
                    found = self._ordered(position, stop, reverse=False, after=True)
                keys = list(islice(found, _CHUNK_COUNT))
            if not keys:
                return
            position = keys[-1]
            chunk = self._seen(keys, sequence)
            if chunk[0]:
                yield chunk

    def read_short(self, start: bytes, stop: bytes | None, sequence: int) -> Chunk | None:
        """Return what a reader sees of a short range, or None if [start, stop) is not one."""
        with self._lock:
            found = self._ordered(start, stop, reverse=False)
            keys = list(islice(found, _SHORT_COUNT_MAX + 1))
        if len(keys) > _SHORT_COUNT_MAX:
            return None
        return self._seen(keys, sequence)

    def forget(self, oldest: int) -> None:
        """Drop what only readers before `oldest` would need. O(1) amortized per entry."""
        trail = self._trail
        while trail and trail[0][0] <= oldest:
            _, key = trail.popleft()
            until = self.older[key][0]
            if until <= oldest:
                del self.older[key]
            else:
                # It was changed again since. The tail of its chain is followed by nobody.
                trail.append((until, key))

    @property
    def shrinks(self) -> bool:
        """Whether it deletes at least as much as it puts. O(entries), in C."""
        return bool(self._ranges) or mostly_deletes(self.newest)

    def drop_covered(self) -> None:
        """Drop the tombstones that a range tombstone says, too. For one that nobody reads."""
        covered = self.ranges(SEQUENCE_MAX)
        for key in [key for key, value in self.newest.items() if value is None]:
            if covered.covers(key):
                del self.newest[key]

    def check(self) -> None:
        """Assert every invariant. O(n log n); for tests."""
        with self._lock:
            assert list(self._ordered(b"", None, reverse=False)) == sorted(self.newest)
        assert self.older.keys() <= self.newest.keys()
        assert sorted(key for _, key in self._trail) == sorted(self.older)

    def _seen(self, keys: list[bytes], sequence: int) -> Chunk:
        # In this order, see above.
        values: list[Found] = [self.newest[key] for key in keys]
        if self.older:
            values = [self.get(key, sequence) for key in keys]
        return _without_absent(keys, values)

    def _put(self, sequence: int, entries: Changes, readers: Sequence[int]) -> None:
        if readers:
            for key in entries:
                chain = self.older.get(key)
                if chain is None:
                    self._trail.append((sequence, key))
                else:
                    chain = _without_unread(chain, readers)
                self.older[key] = (sequence, self.newest.get(key, ABSENT), chain)
        # In this order: a reader that finds the new value finds the chain too.
        self.newest.update(entries)

    def _ordered(
        self, start: bytes, stop: bytes | None, *, reverse: bool, after: bool = False
    ) -> Iterator[bytes]:
        unordered = len(self.newest) - len(self._order)
        if unordered:
            try:
                # A dict keeps first-insertion order, so the newest keys are its last ones.
                self._order.update(list(islice(reversed(self.newest), unordered)))
            except BaseException:
                # An interrupted update leaves a sorted list that is none.
                self._order = SortedList()
                raise
        found: Iterator[bytes] = self._order.irange(
            start, stop, inclusive=(not after, False), reverse=reverse
        )
        return found


def mostly_deletes(entries: Changes) -> bool:
    """Return whether there are at least as many tombstones as values. O(entries), in C."""
    return 2 * list(entries.values()).count(None) >= len(entries)


def _without_unread(link: Link, readers: Sequence[int]) -> Link | None:
    """Drop the first link of a chain if it serves nobody."""
    until, _, rest = link
    since = 0 if rest is None else rest[0]
    reader = readers[bisect_left(readers, since) :][:1]
    if until > readers[-1] or (reader and reader[0] < until):
        return link
    # Whoever is before `since` goes on by this link, which is as good as the next for it.
    return None if rest is None else (until, rest[1], rest[2])


def _without_absent(keys: list[bytes], values: list[Found]) -> Chunk:
    if ABSENT not in values:
        return keys, values  # type: ignore[return-value]  # mypy cannot see it has no ABSENT.
    there = [i for i, value in enumerate(values) if value is not ABSENT]
    return [keys[i] for i in there], [values[i] for i in there]  # type: ignore[misc]
