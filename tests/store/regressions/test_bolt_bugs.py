"""What went wrong in Bolt and its heir bbolt goes right here; each test names its number there.

Method: each scene is theirs, told in this store's words.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from support.pairs import flush_only, pairs, put

import blobkv
from blobkv import Transaction
from blobkv.testing import SimulatedDisk

KEYS = [b"%04d" % i for i in range(600)]
TIMEOUT_SECONDS = 60.0


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


def with_cursor(txn: Transaction) -> list[bytes]:
    cursor = txn.cursor()
    seen = []
    found = cursor.first()
    while found:
        seen.append(cursor.key)
        cursor.delete()
        found = cursor.next()
    return seen


def with_cursor_from_the_end(txn: Transaction) -> list[bytes]:
    cursor = txn.cursor()
    seen = []
    found = cursor.last()
    while found:
        seen.append(cursor.key)
        cursor.delete()
        found = cursor.prev()
    return seen[::-1]


def beside_a_cursor(txn: Transaction) -> list[bytes]:
    cursor = txn.cursor()
    seen = []
    while cursor.next():
        seen.append(cursor.key)
        txn.delete(cursor.key)
    return seen


def under_an_iteration(txn: Transaction) -> list[bytes]:
    seen = []
    for key in txn:
        seen.append(key)
        del txn[key]
    return seen


WAYS = [with_cursor, with_cursor_from_the_end, beside_a_cursor, under_an_iteration]


@pytest.mark.parametrize("delete_all", WAYS)
@pytest.mark.parametrize("places", ["t", "m", "u", "tu", "mu", "tm", "tmu"])
def test_deleting_all_under_a_cursor_skips_none(
    disk: SimulatedDisk, places: str, delete_all: Callable[[Transaction], list[bytes]]
) -> None:
    """Bolt #357, and #620 (bbolt #146): every second key stayed.

    There it depended on whether the same transaction had put before. So the keys are dealt out
    to a table, the memtable, and the update itself.
    """
    with blobkv.open("/db", fs=disk) as store:
        for place in places:
            mine = KEYS[places.index(place) :: len(places)]
            if place != "u":
                with store.update() as txn:
                    txn.update(dict.fromkeys(mine, b"v"))
            if place == "t":
                flush_only(store)
        with store.update() as txn:
            if "u" in places:
                txn.update(dict.fromkeys(KEYS[places.index("u") :: len(places)], b"v"))

            assert delete_all(txn) == KEYS
            assert not txn
        assert pairs(store) == {}


def test_one_put_does_not_make_a_cursor_skip(disk: SimulatedDisk) -> None:
    """Bolt #357, its second case: of keys that are there one is put again, then all go."""
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS[:10], b"v"))
        with store.update() as txn:
            txn.put(KEYS[0], b"again")
            assert with_cursor(txn) == KEYS[:10]
        assert pairs(store) == {}


def test_a_cursor_steps_over_blocks_that_were_emptied(disk: SimulatedDisk) -> None:
    """Bolt #429 and #450: where a page had lost all its keys, the next page's were skipped."""
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update({key: bytes(100) for key in KEYS})
        store.flush()
        assert store._source.layers.tables[0].footer.blocks > 10
        with store.update() as txn:
            for key in KEYS[100:500]:
                del txn[key]
            assert list(txn) == KEYS[:100] + KEYS[500:]
        with store.view() as txn:
            cursor = txn.cursor()
            for key in KEYS[100:500:7]:
                assert cursor.seek(key)
                assert cursor.key == KEYS[500]
                assert cursor.prev()
                assert cursor.key == KEYS[99]
            assert list(txn) == KEYS[:100] + KEYS[500:]


@pytest.mark.usefixtures("small_pieces")
def test_open_views_do_not_stop_a_store_from_growing(disk: SimulatedDisk) -> None:
    """Bolt #378, #392, #489, bbolt #59, #854: a writer that had to map more waited for readers.

    One thread holds views, some within its own updates, while commits rotate logs, flush, and
    merge. It must come to an end.
    """
    sizes: list[int] = []

    def run() -> None:
        with blobkv.open("/db", fs=disk, memtable_size=4096) as store:
            views = [store.view()]
            for i in range(60):
                with store.view(), store.update() as txn:
                    txn.put(b"%d" % i, bytes(500))
                    with store.view() as inner:
                        assert len(inner) == i
                views.append(store.view())
            store.compact()
            sizes.extend(len(view) for view in views)
            assert store.stats().flushes > 3

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(TIMEOUT_SECONDS)
    assert not thread.is_alive()
    assert sizes == list(range(61))


def test_keys_and_values_outlive_transaction_table_and_store(disk: SimulatedDisk) -> None:
    """Bolt #204, #576: what a transaction had given out was another's memory after its end."""
    expected = {key: key * 50 for key in KEYS}
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update(expected)
        store.flush()
        with store.view() as txn:
            kept = [*txn.items(), *((key, txn[key]) for key in txn)]
        with store.update() as txn:
            txn.clear()
        store.compact()
        put(store, b"over", bytes(100_000))

    assert {type(half) for pair in kept for half in pair} == {bytes}
    assert kept == [*expected.items()] * 2


def test_a_store_that_was_emptied_gives_its_room_back(disk: SimulatedDisk) -> None:
    """Bolt #308, bbolt #204: the file never became smaller."""
    with blobkv.open("/db", fs=disk) as store:
        before = disk.used_size
        with store.update() as txn:
            txn.update({key: bytes(1000) for key in KEYS})
        store.flush()
        assert disk.used_size > 600_000
        with store.update() as txn:
            txn.clear()
        store.compact()

        assert disk.used_size - before < 1000


def test_a_small_commit_costs_what_it_holds_whatever_was_deleted(disk: SimulatedDisk) -> None:
    """Bolt #586, #640, bbolt #401: each commit wrote the list of all free pages."""
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.bucket("large").update({key: bytes(1000) for key in KEYS})
        store.flush()
        with store.update() as txn:
            txn.delete_bucket("large")
        before = store.stats()
        put(store, b"key", bytes(50))
        after = store.stats()

    assert after.log_written - before.log_written < 50 + 100
    assert after.syncs - before.syncs == 1
    assert after.table_written == before.table_written


def test_a_length_counts_the_pairs_of_its_own_bucket_only(disk: SimulatedDisk) -> None:
    """Bolt #276, #554: nested buckets were counted as keys."""
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            outer = txn.bucket("outer")
            outer.update({b"a": b"", b"b": b""})
            outer.bucket("inner").update(dict.fromkeys(KEYS, b""))
            outer.bucket("inner", "innermost")[b"c"] = b""
            assert (len(txn), len(outer), len(outer.bucket("inner"))) == (0, 2, 600)
        for _ in range(2):
            with store.view() as txn:
                outer = txn.bucket("outer")
                assert (len(txn), len(outer), len(outer.bucket("inner"))) == (0, 2, 600)
                assert list(outer) == [b"a", b"b"]
            store.flush()


def test_an_absent_prefix_is_found_absent_without_a_walk(disk: SimulatedDisk) -> None:
    """Bbolt #154: with no bound to give, a cursor walked on to the end of the keys.

    All blocks but the two where the prefix would be are damaged: who reads one is told.
    """
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update({b"%c/%s" % (group, key): bytes(100) for group in b"az" for key in KEYS})
        store.flush()
        name = store._source.manifest.tables[0].name
        offsets = list(store._source.layers.tables[0].block_index.offsets)
        first, _ = store._source.layers.tables[0].block_index.span(b"\x00m/", b"\x00m0")
    data = bytearray(disk.contents(f"/db/{name}"))
    for i, at in enumerate(offsets[:-1]):
        if i not in {first - 1, first, first + 1}:
            data[at + 50] ^= 1
    disk.set_contents(f"/db/{name}", bytes(data))

    with blobkv.open("/db", fs=disk, read_only=True) as store, store.view() as txn:
        with pytest.raises(blobkv.CorruptionError):
            list(txn)
        assert list(txn.items(prefix=b"m/")) == []
        assert list(txn.items(prefix=b"m/", reverse=True)) == []
        assert not txn.cursor(prefix=b"m/").first()
        assert not txn.cursor(prefix=b"m/").last()
