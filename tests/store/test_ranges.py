"""Ranges stay disjoint and in order, and cover what was added to them and nothing else.

Method: random ranges are added in any order; what they cover is compared, at every key that
could tell, with a set of keys.
"""

from __future__ import annotations

from threading import Lock

from hypothesis import given
from hypothesis import strategies as st
from support.strategies import edge_keys

from blobkv._engine.memtable import Memtable
from blobkv._engine.ranges import Ranges

BOUNDS = st.lists(st.tuples(edge_keys(), st.none() | edge_keys(1)), max_size=12)
ALPHABET = b"\x00a\xfe\xff"
POINTS = [b"", *(bytes((a,)) for a in ALPHABET)]
POINTS += [bytes((a, b)) for a in ALPHABET for b in ALPHABET]


@given(BOUNDS)
def test_what_was_added_is_covered_and_nothing_else(
    bounds: list[tuple[bytes, bytes | None]],
) -> None:
    ranges = Ranges()
    proper = [(start, stop) for start, stop in bounds if stop is None or start < stop]
    for start, stop in proper:
        ranges.add(start, stop)
        ranges.check()

    probes = {*POINTS, *(key for start, stop in proper for key in (start, stop or b""))}
    for key in probes | {probe + b"\x00" for probe in probes}:
        inside = any(start <= key and (stop is None or key < stop) for start, stop in proper)
        assert ranges.covers(key) == inside
    assert bool(ranges) == bool(proper)
    Ranges(ranges).check()
    assert list(Ranges(ranges)) == list(ranges)


def test_a_view_older_than_what_was_asked_for_last_sees_its_own_range_tombstones() -> None:
    memtable = Memtable(Lock())
    memtable.apply(1, {}, [(b"c", b"d")])
    memtable.apply(2, {}, [(b"a", b"b")])

    assert list(memtable.ranges(2)) == [(b"a", b"b"), (b"c", b"d")]
    assert list(memtable.ranges(1)) == [(b"c", b"d")]
    assert list(memtable.ranges(0)) == []
    memtable.apply(3, {}, [(b"b", b"c")])
    assert list(memtable.ranges(3)) == [(b"a", b"d")]
