"""A cursor moves as a finger moves over a sorted list, also while the list changes.

Method: the entries are spread at random over tables, memtable, and pending changes, then one
cursor takes random steps in a transaction and a model takes the same steps over a plain dict.
Between steps the transaction changes entries, or, under a view, other updates commit.
"""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.buckets import entries_at
from support.strategies import edge_keys

import blobkv
from blobkv.errors import ClosedError, ReadOnlyError, UsageError
from blobkv.testing import SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobkv import Bucket, Cursor, Transaction

LAYERS = st.lists(
    st.tuples(
        st.sampled_from(["flush", "memtable", "clear"]),
        st.dictionaries(edge_keys(), st.none() | st.binary(max_size=2), max_size=8),
    ),
    max_size=4,
)
BOUNDS = st.fixed_dictionaries(
    {
        "prefix": st.just(b"") | edge_keys(),
        "start": st.none() | edge_keys(),
        "stop": st.none() | edge_keys(),
    }
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["next", "prev", "first", "last", "delete"]), st.just(b"")),
        st.tuples(st.sampled_from(["seek", "put", "remove", "clear"]), edge_keys()),
        st.tuples(st.just("iterate"), st.integers(0, 3).map(bytes)),
    ),
    max_size=25,
)
PATHS = st.sampled_from([(), (b"\x00",), (b"a", b"\xff")])
Where = Literal["nowhere", "on", "gap", "end"]


class Finger:
    """The model: where the cursor is, over a dict that may change under it."""

    def __init__(
        self, pairs: dict[bytes, bytes], prefix: bytes, start: bytes | None, stop: bytes | None
    ) -> None:
        self.pairs = pairs
        self.prefix, self.start, self.stop = prefix, start, stop
        self.where: Where = "nowhere"
        self.at = b""
        self.value = b""
        self.given = False

    def keys(self) -> list[bytes]:
        return sorted(
            key
            for key in self.pairs
            if key.startswith(self.prefix)
            and (self.start is None or key >= self.start)
            and (self.stop is None or key < self.stop)
        )

    def land(self, found: list[bytes], otherwise: Where) -> bool:
        self.given = False
        if not found:
            self.where, self.at = otherwise, b""
            return False
        self.where, self.at, self.value = "on", found[0], self.pairs[found[0]]
        return True

    def first(self) -> bool:
        return self.land(self.keys(), "end")

    def last(self) -> bool:
        return self.land(self.keys()[::-1], "gap")

    def seek(self, key: bytes) -> bool:
        return self.land([k for k in self.keys() if k >= key], "end")

    def next(self) -> bool:
        if self.where == "end":
            return False
        if self.where == "nowhere":
            return self.first()
        past = self.where == "on"
        return self.land(
            [k for k in self.keys() if k > self.at or (k == self.at and not past)], "end"
        )

    def prev(self) -> bool:
        keys = self.keys()[::-1]
        if self.where in ("on", "gap"):
            keys = [k for k in keys if k < self.at]
        return self.land(keys, "gap")

    def delete(self) -> None:
        del self.pairs[self.at]
        self.where, self.at = "gap", self.at + b"\x00"

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        if self.where != "on" or self.given:
            self.next()
        if self.where != "on":
            raise StopIteration
        self.given = True
        return self.at, self.value


def compare(cursor: Cursor, finger: Finger) -> None:
    if finger.where == "on":
        assert (cursor.key, cursor.value) == (finger.at, finger.value)
        return
    with pytest.raises(UsageError):
        _ = cursor.key
    with pytest.raises(UsageError):
        _ = cursor.value


def fill(
    store: blobkv.Store,
    path: tuple[bytes, ...],
    layers: list[tuple[str, dict[bytes, bytes | None]]],
) -> dict[bytes, bytes]:
    """Commit the layers, oldest first; return what they add up to."""
    pairs: dict[bytes, bytes] = {}
    for how, changes in layers:
        with store.update() as txn:
            entries = entries_at(txn, path)
            if how == "clear":
                entries.clear(b"a")
                for key in [key for key in pairs if key.startswith(b"a")]:
                    del pairs[key]
            write(entries, pairs, changes)
        if how != "memtable":
            store.flush()
    return pairs


def write(
    entries: Transaction | Bucket,
    pairs: dict[bytes, bytes],
    changes: dict[bytes, bytes | None],
) -> None:
    for key, value in changes.items():
        if value is None:
            entries.delete(key)
            pairs.pop(key, None)
        else:
            entries.put(key, value)
            pairs[key] = value


def take(cursor: Cursor, finger: Finger, step: str, key: bytes) -> None:
    """Take one step with both and compare where they stand."""
    if step == "iterate":
        count = len(key)
        assert list(islice(cursor, count)) == list(islice(finger, count))
    elif step == "seek":
        assert cursor.seek(key) == finger.seek(key)
    else:
        assert getattr(cursor, step)() == getattr(finger, step)()
    compare(cursor, finger)


@pytest.mark.usefixtures("clear_by_range")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LAYERS, LAYERS, PATHS, BOUNDS, STEPS)
def test_in_an_update(
    layers: list[tuple[str, dict[bytes, bytes | None]]],
    pending: list[tuple[str, dict[bytes, bytes | None]]],
    path: tuple[bytes, ...],
    bounds: dict[str, bytes],
    steps: list[tuple[str, bytes]],
) -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        pairs = fill(store, path, layers)
        with store.update() as txn:
            entries = entries_at(txn, path)
            for _, changes in pending:
                write(entries, pairs, changes)
            cursor, finger = entries.cursor(**bounds), Finger(pairs, **bounds)
            compare(cursor, finger)
            for step, key in steps:
                if step == "put":
                    write(entries, pairs, {key: b"new"})
                elif step == "remove":
                    write(entries, pairs, {key: None})
                elif step == "clear":
                    entries.clear(key)
                    for doomed in [k for k in pairs if k.startswith(key)]:
                        del pairs[doomed]
                elif step != "delete" or (finger.where == "on" and finger.at in pairs):
                    take(cursor, finger, step, key)
        with store.view() as txn:
            assert dict(entries_at(txn, path).items()) == pairs


@pytest.mark.usefixtures("clear_by_range")
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(LAYERS, PATHS, BOUNDS, STEPS)
def test_in_a_view_beside_commits(
    layers: list[tuple[str, dict[bytes, bytes | None]]],
    path: tuple[bytes, ...],
    bounds: dict[str, bytes],
    steps: list[tuple[str, bytes]],
) -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        pairs = fill(store, path, layers)
        with store.view() as txn:
            cursor = entries_at(txn, path).cursor(**bounds)
            finger = Finger(dict(pairs), **bounds)
            for step, key in steps:
                if step in ("put", "remove", "clear"):
                    with store.update() as other:
                        entries = entries_at(other, path)
                        if step == "clear":
                            entries.clear(key)
                        else:
                            write(entries, pairs, {key: b"new" if step == "put" else None})
                elif step != "delete":
                    take(cursor, finger, step, key)
                elif finger.where == "on":
                    with pytest.raises(ReadOnlyError):
                        cursor.delete()
                    compare(cursor, finger)


def test_deleting_all_the_way_skips_nothing() -> None:
    """Of bolt's cursor, deleting while stepping skipped every key after a deleted one."""
    keys = [b"%03d" % i for i in range(600)]
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        fill(store, (), [("flush", dict.fromkeys(keys, b"v"))])
        with store.update() as txn:
            cursor = txn.cursor()
            seen = []
            while cursor.next():
                seen.append(cursor.key)
                cursor.delete()
            assert seen == keys
            assert not txn


def test_a_cursor_ends_with_its_transaction() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        fill(store, (), [("memtable", {b"a": b"1", b"b": b"2"})])
        with store.view() as txn:
            cursor = txn.cursor()
            assert cursor.first()

        for move in (cursor.first, cursor.last, cursor.next, cursor.prev):
            with pytest.raises(ClosedError):
                move()
        with pytest.raises(ClosedError):
            cursor.seek(b"a")
        with pytest.raises(ClosedError):
            next(iter(cursor))
