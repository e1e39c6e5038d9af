"""Changes not committed yet, over the state they will change: a `Reader` that can be written.

Iteration is by position, not by a copy: after a key comes the smallest key past it *now*, so
deleting or adding keys under an iteration never skips or repeats a key.

Invariants:

* `entries` are newer than `ranges`: a key in both has the value that `entries` gives it.
* `_order`, once made, holds exactly the keys of `entries`.
* `version` grows with every change.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sortedcontainers import SortedList

from blobkv._engine.memtable import ABSENT, mostly_deletes
from blobkv._engine.ranges import Ranges
from blobkv._engine.state import ENDED, LASTING
from blobkv.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobkv._engine.state import Owner, Pair, Reader

# Up to here one tombstone a key is cheaper to read past than a range tombstone.
_POINT_DELETES_MAX: Final = 64
# What may be put beside deletes on a full disk, in bytes: a note of what was deleted.
_SHRINKING_PUT_MAX: Final = 4096


class Overlay:
    """Pending changes over a base that does not change meanwhile."""

    def __init__(self, base: Reader) -> None:
        self.entries: dict[bytes, bytes | None] = {}
        self.ranges = Ranges()
        self.version = 0
        self._base = base
        self._order: SortedList[bytes] | None = None

    def __bool__(self) -> bool:
        return bool(self.entries or self.ranges)

    @property
    def shrinks(self) -> bool:
        """Whether they delete, and put next to nothing beside. O(entries)."""
        if not self.ranges and not mostly_deletes(self.entries):
            return False
        return sum(len(value or b"") for value in self.entries.values()) <= _SHRINKING_PUT_MAX

    def get(self, key: bytes) -> bytes | None:
        """Return the key's value with the changes applied, or None."""
        found = self.entries.get(key, ABSENT)
        if found is not ABSENT:
            return found
        if self.ranges and self.ranges.covers(key):
            return None
        return self._base.get(key)

    def put(self, key: bytes, value: bytes | None) -> None:
        """Set the key's value; None deletes it. O(1), and O(log n) once order was needed."""
        if self._order is not None and key not in self.entries:
            self._add_to_order(key)
        self.entries[key] = value
        self.version += 1

    def clear(self, start: bytes, stop: bytes | None) -> int:
        """Delete every key in [start, stop).

        Returns:
            How many keys that were.

        Cost: O(keys in the range) to count them, but one range tombstone however many.
        """
        doomed = self.items(start, stop)
        few = [key for _, (key, _) in zip(range(_POINT_DELETES_MAX), doomed, strict=False)]
        rest = sum(1 for _ in doomed)
        if not rest:
            for key in few:
                self.put(key, None)
            return len(few)
        self._cover(start, stop)
        return len(few) + rest

    def absorb(self, changes: Overlay) -> None:
        """Apply the changes of an overlay whose base is this one."""
        for start, stop in changes.ranges:
            self._cover(start, stop)
        for key, value in changes.entries.items():
            self.put(key, value)

    def items(
        self,
        start: bytes,
        stop: bytes | None,
        *,
        owner: Owner = LASTING,
        skip: int = 0,
        reverse: bool = False,
    ) -> Iterator[Pair]:
        """Yield the pairs in [start, stop) in key order, changes made meanwhile included.

        Args: as of `Reader.items`.

        Cost: that of the base, and O(log n) for each own key.
        """
        for key, value in self._pairs(start, stop, owner, reverse=reverse):
            yield key[skip:], value
            if owner.ended:
                raise ClosedError(ENDED)

    def _pairs(
        self, start: bytes, stop: bytes | None, owner: Owner, *, reverse: bool
    ) -> Iterator[Pair]:
        base = self._base.items(start, stop, owner=owner, reverse=reverse)
        below = next(base, None)
        own: Iterator[bytes] = iter(())
        mine: bytes | None = None
        version = -1
        while True:
            if version != self.version:
                # Look up the position anew: the order may have changed under the iterator.
                version = self.version
                own = self._own(start, stop, reverse=reverse)
                mine = next(own, None)
            if below is None and mine is None:
                return
            if mine is None or (
                below is not None and (below[0] > mine if reverse else below[0] < mine)
            ):
                assert below is not None
                key, value = below
                below = next(base, None)
                hidden = self.ranges and self.ranges.covers(key)
                found = None if hidden else value
            else:
                key = mine
                found = self.entries[key]
                if below is not None and below[0] == key:
                    below = next(base, None)
                mine = next(own, None)
            if reverse:
                stop = key
            else:
                start = key + b"\x00"
            if found is not None:
                yield key, found

    def count(self, start: bytes, stop: bytes | None) -> int:
        """Return how many pairs `items` would yield, at its cost unless nothing changed."""
        if not self:
            return self._base.count(start, stop)
        return sum(1 for _ in self.items(start, stop))

    def check_open(self) -> None:
        """Raise `ClosedError` if what it lies over can be read no more."""
        self._base.check_open()

    def check(self) -> None:
        """Assert every invariant. O(n log n); for tests."""
        self.ranges.check()
        if self._order is not None:
            assert list(self._order) == sorted(self.entries)

    def _own(self, start: bytes, stop: bytes | None, *, reverse: bool) -> Iterator[bytes]:
        if not self.entries:
            return iter(())
        if self._order is None:
            self._order = SortedList(self.entries)
        found: Iterator[bytes] = self._order.irange(
            start, stop, inclusive=(True, False), reverse=reverse
        )
        return found

    def _cover(self, start: bytes, stop: bytes | None) -> None:
        covered = list(self._own(start, stop, reverse=False))
        # The order is made anew when it is next needed.
        self._order = None
        for key in covered:
            del self.entries[key]
        self.ranges.add(start, stop)
        self.version += 1

    def _add_to_order(self, key: bytes) -> None:
        assert self._order is not None
        try:
            self._order.add(key)
        except BaseException:
            # An interrupted change leaves a sorted list that is none.
            self._order = None
            raise
