"""A view shows the same for as long as it is open, however much is written meanwhile.

Method: a view of much data is kept while keys are added, replaced, deleted, and cleared by
thousands, in memory and in tables, in this process and beside it; then it is read in every way.
"""

from __future__ import annotations

import errno

import pytest
from support.pairs import Pairs, after, flush_only, pairs, put

import blobkv
from blobkv import Transaction
from blobkv.testing import SimulatedDisk

KEYS = [b"%04d" % i for i in range(0, 3000, 3)]


def add(txn: Transaction) -> None:
    """So many, that whole stretches hold nothing that the view may show."""
    txn.update({b"%04d+" % i: b"added" for i in range(3000)})
    txn.update({b"0150/%04d" % i: b"added" for i in range(1500)})


def replace(txn: Transaction) -> None:
    txn.update(dict.fromkeys(KEYS, b"replaced"))


def delete(txn: Transaction) -> None:
    for key in KEYS[::2]:
        del txn[key]


def clear(txn: Transaction) -> None:
    assert txn.clear(b"03") > 100
    txn.put(b"0350", b"since")


def clear_all_and_put(txn: Transaction) -> None:
    assert txn.clear() > 100
    txn.put(b"0000", b"since")


CHANGES = [add, replace, delete, clear, clear_all_and_put]


def check(view: Transaction, expected: Pairs) -> None:
    assert list(view.items()) == list(expected.items())
    assert list(view.items(reverse=True)) == list(expected.items())[::-1]
    assert len(view) == len(expected)
    assert list(view.items(start=b"!", stop=b"'")) == []
    for key in [*KEYS[::50], b"0350", b"0351", b"0000+"]:
        assert view.get(key) == expected.get(key)
    assert list(view.keys(start=b"03", stop=b"04")) == [
        key for key in expected if b"03" <= key < b"04"
    ]


@pytest.mark.slow
@pytest.mark.parametrize("where", ["memory", "a table", "both"])
@pytest.mark.parametrize("flushed", [False, True])
def test_a_view_of_the_writer_and_one_beside_it(where: str, *, flushed: bool) -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        for part in (KEYS[::2], KEYS[1::2]):
            with store.update() as txn:
                txn.update({key: key * 3 for key in part})
            if where == "a table" or (where == "both" and part is not KEYS[::2]):
                store.flush()
        expected = pairs(store)
        with blobkv.open("/db", fs=disk, read_only=True) as follower:
            opened = [(store.view(), expected), (follower.view(), expected)]
            for change in CHANGES:
                with store.update() as txn:
                    change(txn)
                if flushed:
                    flush_only(store)
                now = pairs(store)
                opened += [(store.view(), now), (follower.view(), now)]
            store.compact()
            assert pairs(follower) == now
            for view, then in opened:
                check(view, then)
            sequences = [view.sequence for view, _ in opened]
            assert sequences == sorted(sequences)


@pytest.mark.usefixtures("clear_by_range")
def test_a_table_of_nothing_but_a_cleared_range_hides_it_in_short_reads_too() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        for i in range(5):
            put(store, b"%d" % i)
        flush_only(store)
        with store.update() as txn:
            assert txn.clear(b"1") == 1
        flush_only(store)
        assert [table.footer.entries for table in store._source.layers.tables] == [0, 5]
        with store.view() as txn:
            assert list(txn.keys(start=b"1", stop=b"2")) == []
            assert list(txn.keys(start=b"0", stop=b"3")) == [b"0", b"2"]
            assert list(txn) == [b"0", b"2", b"3", b"4"]


@pytest.mark.usefixtures("clear_by_range")
def test_a_view_that_is_opened_while_a_clear_is_synced_shows_what_was_before() -> None:
    disk = SimulatedDisk()
    seen: list[tuple[int, Pairs]] = []
    with blobkv.open("/db", fs=disk) as store:
        for i in range(3):
            put(store, b"%d" % i)

        def look(operation: str, path: str) -> bool:
            if operation == "sync" and path.endswith(".log") and not seen:
                with store.view() as txn:
                    seen.append((txn.sequence, dict(txn)))
                    assert [txn.get(b"%d" % i) for i in range(3)] == [b"value"] * 3
            return False

        disk.fail(when=look, times=None)
        with store.update() as txn:
            assert txn.clear(b"1") == 1
        disk.heal()
        assert seen == [(3, {b"0": b"value", b"1": b"value", b"2": b"value"})]
        assert pairs(store) == {b"0": b"value", b"2": b"value"}


@pytest.mark.parametrize("call", ["batch", "update"])
def test_what_is_cleared_in_an_update_is_gone_in_it(call: str) -> None:
    """Also where calls of one batch stand on each other."""
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS, b"v"))

        def change(txn: Transaction) -> None:
            txn._changes().check()
            assert txn.clear() == len(KEYS)
            assert txn.get(KEYS[7]) is None
            txn.put(KEYS[9], b"since")
            assert dict(txn) == {KEYS[9]: b"since"}
            txn._changes().check()

        if call == "batch":
            store.batch(change)
        else:
            with store.update() as txn:
                change(txn)
        assert pairs(store) == {KEYS[9]: b"since"}


def damaged_sync(operation: str, path: str) -> bool:
    return operation == "sync" and path.endswith(".log")


def test_a_reader_that_cannot_make_durable_what_it_finds_does_not_open() -> None:
    """And the writer hears of it, too, at its next sync."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"durable")
    put(store, b"appended", durable=False)
    disk.fail(errno.EIO, when=damaged_sync)

    with pytest.raises(OSError, match="EIO"):
        blobkv.open("/db", fs=disk, read_only=True)
    disk.heal()
    with pytest.raises(OSError, match="EIO"):
        store.close()
    with blobkv.open("/db", fs=disk) as store:
        assert list(pairs(store)) == [b"appended", b"durable"]
    assert after(disk) == {b"appended": b"value", b"durable": b"value"}
