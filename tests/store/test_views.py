"""Views share the state that they read, cost nothing to open, and end when they end."""

from __future__ import annotations

import gc
import threading
import weakref
from collections.abc import Callable, Iterator

import pytest

import blobkv
from blobkv._engine.memtable import ABSENT, Memtable
from blobkv.errors import ClosedError
from blobkv.testing import SimulatedDisk


@pytest.fixture
def store() -> Iterator[blobkv.Store]:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        yield store


def put(store: blobkv.Store, key: bytes, value: bytes, *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        txn.put(key, value)


def fill(store: blobkv.Store) -> None:
    with store.update() as txn:
        for i in range(1000):
            txn.put(b"%04d" % i, b"v")


def test_views_of_one_commit_share_one_state(store: blobkv.Store) -> None:
    put(store, b"k", b"1")
    first, second = store.view(), store.view()
    put(store, b"k", b"2")
    third = store.view()

    assert first._scope.reader is second._scope.reader is not third._scope.reader
    assert [view[b"k"] for view in (first, second, third)] == [b"1", b"1", b"2"]
    assert (store.stats().views, store.stats().oldest_view) == (2, first.sequence)
    first.rollback()
    assert second[b"k"] == b"1"
    second.rollback()
    assert (store.stats().views, store.stats().oldest_view) == (1, third.sequence)


@pytest.mark.parametrize("merge", ["flush", "compact"])
def test_a_state_goes_when_nobody_reads_it(store: blobkv.Store, merge: str) -> None:
    fill(store)
    view = store.view()
    state = weakref.ref(view._scope.reader)
    memtable = weakref.ref(store._source.layers.active)
    getattr(store, merge)()
    assert view[b"0000"] == b"v"

    gc.disable()
    try:
        view.rollback()
        assert state() is None
        assert memtable() is None
    finally:
        gc.enable()


READS: dict[str, Callable[[blobkv.Transaction], Iterator[object]]] = {
    "items": lambda txn: iter(txn.items()),
    "reverse items": lambda txn: iter(txn.items(reverse=True)),
    "keys": lambda txn: iter(txn.keys()),
    "values": lambda txn: iter(txn.values()),
    "a prefix": lambda txn: iter(txn.items(prefix=b"00")),
    "iteration": iter,
    "a cursor": lambda txn: iter(txn.cursor()),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
@pytest.mark.parametrize("flushed", [False, True])
@pytest.mark.parametrize("end", ["view", "store", "update"])
@pytest.mark.parametrize("begun", [False, True])
def test_a_read_ends_with_its_transaction(
    store: blobkv.Store,
    read: Callable[[blobkv.Transaction], Iterator[object]],
    end: str,
    *,
    flushed: bool,
    begun: bool,
) -> None:
    fill(store)
    if flushed:
        store.flush()
    txn = store.update() if end == "update" else store.view()
    reading = read(txn)
    if begun:
        next(reading)
        next(reading)

    store.close() if end == "store" else txn.rollback()

    with pytest.raises(ClosedError):
        next(reading)


def test_the_end_of_one_view_leaves_the_reads_of_another(store: blobkv.Store) -> None:
    fill(store)
    one, other = store.view(), store.view()
    readings = [iter(one.items()), iter(other.items())]
    for reading in readings:
        next(reading)
    one.rollback()

    assert len(list(readings[1])) == 999
    with pytest.raises(ClosedError):
        next(readings[0])


def test_an_abandoned_read_leaves_nothing(store: blobkv.Store) -> None:
    fill(store)
    with store.view() as txn:
        for _ in txn.items():
            break
        for _ in zip(txn.keys(), range(5), strict=False):
            pass
        assert not txn._scope.reader._reading


@pytest.mark.parametrize("durable", [True, False])
def test_old_versions_are_no_more_than_the_views(store: blobkv.Store, *, durable: bool) -> None:
    memtable = store._source.layers.active
    views = []
    for i in range(300):
        put(store, b"hot", b"%d" % i, durable=durable)
        if i % 100 == 50:
            views.append((i, store.view()))
    links, link = 0, memtable.older[b"\x00hot"]
    while link is not None:
        links, link = links + 1, link[2]

    assert links <= len(views) + 2
    assert len(memtable._trail) == 1
    assert [view[b"hot"] for _, view in views] == [b"%d" % i for i, _ in views]
    for _, view in views:
        view.rollback()
    put(store, b"last", b"")
    assert not memtable.older
    memtable.check()


def test_every_reader_sees_its_own_version_whatever_was_dropped() -> None:
    memtable = Memtable(threading.Lock())
    readers = [3, 7, 8, 20]
    for sequence in range(1, 31):
        earlier = [reader for reader in readers if reader < sequence]
        memtable.apply(sequence, {b"k": b"%d" % sequence}, (), readers=[*earlier, sequence - 1])

    assert [memtable.get(b"k", reader) for reader in readers] == [b"3", b"7", b"8", b"20"]
    memtable.forget(8)
    assert [memtable.get(b"k", reader) for reader in (8, 20, 30)] == [b"8", b"20", b"30"]
    memtable.forget(30)
    assert memtable.get(b"k", 30) == b"30"
    assert memtable.get(b"x", 30) is ABSENT


def test_len_counts_what_is_there(store: blobkv.Store) -> None:
    fill(store)
    store.compact()
    with store.view() as txn:
        assert len(txn) == len(list(txn)) == 1000
        assert len(txn.keys(prefix=b"01")) == 100
        assert len(txn.keys(start=b"0005", stop=b"0003")) == 0
    with store.update() as txn:
        del txn[b"0100"]
        txn.bucket("b").put(b"0101", b"")
        assert len(txn) == 999
    for change in (lambda: None, store.flush, store.compact):
        change()
        with store.view() as txn:
            assert len(txn) == 999
            assert len(txn.keys(prefix=b"01")) == 99
            assert len(txn.bucket("b")) == 1
