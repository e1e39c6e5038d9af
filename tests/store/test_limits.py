"""At the edges of what may be asked, the answer is typed, and costs no more than it must.

Method: limits are lowered where reaching them takes gigabytes; costs are counted by what is
made anew, not timed.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

import blobkv
from blobkv import Store
from blobkv._engine import format as frames
from blobkv.bucket import KEY_SIZE_MAX
from blobkv.errors import LimitError, UsageError
from blobkv.testing import SimulatedDisk


@pytest.fixture
def store() -> Iterator[Store]:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        yield store


def put(store: Store, key: bytes, value: bytes = b"") -> None:
    with store.update() as txn:
        txn.put(key, value)


def test_a_transaction_too_large_for_a_frame_fails_alone(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "BODY_SIZE_MAX", 1000)
    put(store, b"before", bytes(900))

    with pytest.raises(LimitError, match="limit 1000; commit in parts"):
        put(store, b"large", bytes(1001))
    put(store, b"after", bytes(900))
    with store.view() as txn:
        assert list(txn) == [b"after", b"before"]
    assert store.verify().ok


def test_deleting_a_key_longer_than_any_is_no_error_and_writes_nothing(store: Store) -> None:
    put(store, b"key")
    before = store.stats().log_written

    with store.update() as txn:
        txn.delete(bytes(KEY_SIZE_MAX + 1))
        assert bytes(KEY_SIZE_MAX + 1) not in txn
        assert list(txn) == [b"key"]
    assert store.stats().log_written == before


def test_a_bucket_name_that_is_no_text_is_the_callers_mistake(store: Store) -> None:
    with store.view() as txn, pytest.raises(UsageError, match="give it as bytes"):
        txn.bucket("\udc80")


@pytest.mark.parametrize("other", [5, None])
def test_what_is_not_bytes_is_in_no_keys_and_no_items(store: Store, other: object) -> None:
    put(store, b"x", b"y")
    with store.view() as txn:
        assert other not in txn.keys(start=b"a")
        assert (other, b"y") not in txn.items(start=b"a")
        assert b"x" in txn.keys(start=b"a")
        assert (b"x", b"y") in txn.items(start=b"a")


def test_the_views_of_a_mapping_are_asked_as_the_mapping_is(store: Store) -> None:
    with store.update() as txn:
        txn.bucket("letters").update({b"a": b"1", b"b": b"2"})
    with store.view() as view:
        txn = view.bucket("letters")
        assert bytearray(b"a") in txn.keys(prefix=b"a")
        assert b"a" not in txn.keys(prefix=b"b")
        keys, items = txn.keys(), txn.items()
        assert 5 not in keys
        for asked in (lambda: "a" in keys, lambda: ("a", b"1") in items):
            with pytest.raises(UsageError, match="key must be bytes"):
                asked()
        assert list(reversed(txn.keys())) == [b"b", b"a"]
        assert list(reversed(txn.values(reverse=True))) == [b"1", b"2"]
        assert list(reversed(txn.items(prefix=b"a"))) == [(b"a", b"1")]


@pytest.mark.usefixtures("clear_by_range")
def test_a_view_takes_what_range_tombstones_cover_as_it_is(store: Store) -> None:
    """A view costs the same however many ranges were cleared before it was opened."""
    for i in range(0, 40, 2):
        put(store, b"%02d" % i)
        with store.update() as txn:
            txn.clear(b"%02d" % i)
    memtable = store._source.layers.active

    covered = memtable.ranges(store.sequence)
    assert list(covered) == [(b"\x00%02d" % i, b"\x00%02d" % (i + 1)) for i in range(0, 40, 2)]
    assert memtable.ranges(store.sequence) is covered
