"""Disjoint key ranges in order: what range tombstones cover.

A range is half-open, [start, stop); a stop of None means no bound. Ranges that touch or
overlap are merged, so a store that clears the same bucket over and over keeps one.

Invariants:

* Starts ascend strictly, and each stop is past its start and before the next start.
* Only the last stop may be None.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from operator import itemgetter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blobkv._engine.format import Range


class Ranges:
    """A set of keys given by ranges, in any order. Falsy when empty. O(n log n)."""

    def __init__(self, ranges: Iterable[Range] = ()) -> None:
        self._starts: list[bytes] = []
        self._stops: list[bytes | None] = []
        # In order, each is added at the end.
        for start, stop in sorted(ranges, key=itemgetter(0)):
            self.add(start, stop)

    def __bool__(self) -> bool:
        return bool(self._starts)

    def __iter__(self) -> Iterator[Range]:
        return iter(list(zip(self._starts, self._stops, strict=True)))

    def add(self, start: bytes, stop: bytes | None) -> None:
        """Cover [start, stop) too. O(ranges)."""
        if stop is not None and start >= stop:
            return
        first = bisect_left(self._starts, start)
        # The range before may reach this one; every range that starts inside it is swallowed.
        if first and _reaches(self._stops[first - 1], start):
            first -= 1
            start = self._starts[first]
        last = len(self._starts) if stop is None else bisect_right(self._starts, stop)
        if last > first:
            stop = _later(self._stops[last - 1], stop)
        self._starts[first:last] = [start]
        self._stops[first:last] = [stop]

    def union(self, others: Ranges) -> Ranges:
        """Return what either covers. O(1) where one of them is empty, else O(n log n)."""
        if not others:
            return self
        return Ranges([*self, *others]) if self else others

    def within(self, start: bytes, stop: bytes | None) -> Ranges:
        """Return what of these lies in [start, stop). O(ranges)."""
        both = Ranges()
        for first, last in self:
            if stop is None or first < stop:
                both.add(max(first, start), stop if last is None else _earlier(last, stop))
        return both

    def covers(self, key: bytes) -> bool:
        """Return whether some range holds `key`. O(log ranges)."""
        i = bisect_right(self._starts, key) - 1
        if i < 0:
            return False
        stop = self._stops[i]
        return stop is None or key < stop

    def gaps(self, start: bytes, stop: bytes | None) -> list[Range]:
        """Return what of [start, stop) no range covers, in order. O(ranges)."""
        if not self:
            return [(start, stop)]
        found: list[Range] = []
        for covered_start, covered_stop in self:
            if stop is not None and covered_start >= stop:
                break
            if start < covered_start:
                found.append((start, covered_start))
            if covered_stop is None:
                return found
            start = max(start, covered_stop)
        if stop is None or start < stop:
            found.append((start, stop))
        return found

    def check(self) -> None:
        """Assert every invariant. O(ranges); for tests."""
        for stop, start in zip(self._stops, self._starts[1:], strict=False):
            assert stop is not None
            assert stop < start
        for start, stop in self:
            assert stop is None or start < stop


def _reaches(stop: bytes | None, key: bytes) -> bool:
    return stop is None or stop >= key


def _later(a: bytes | None, b: bytes | None) -> bytes | None:
    return None if a is None or b is None else max(a, b)


def _earlier(a: bytes, b: bytes | None) -> bytes:
    return a if b is None else min(a, b)
