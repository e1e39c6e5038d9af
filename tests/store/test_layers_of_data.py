"""Entries spread over many blocks, chunks, tables, and memtables read as one ordered mapping.

Method: the models use few keys, so that they collide; here are many, in several overlapping
layers with overwrites, tombstones, and range tombstones, so that every source has many chunks
and merging must stop and resume within them. What is read is compared with a plain dict.
"""

from __future__ import annotations

import random
from itertools import islice
from typing import TYPE_CHECKING
from zlib import crc32

import pytest

import blobkv
from blobkv.testing import SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobkv import Store

KEYS = [b"key %06d" % number for number in range(6000)]


def grow(store: Store, rng: random.Random, *, layers: int, flush: bool) -> dict[bytes, bytes]:
    """Commit overlapping layers; return what they add up to."""
    pairs: dict[bytes, bytes] = {}
    for layer in range(layers):
        first = rng.randrange(len(KEYS))
        with store.update(durable=False) as txn:
            start = KEYS[first][:-2]
            assert txn.clear(start) == sum(key.startswith(start) for key in pairs)
            for key in [key for key in pairs if key.startswith(start)]:
                del pairs[key]
            for key in rng.sample(KEYS, 1500):
                if rng.random() < 0.2:
                    txn.delete(key)
                    pairs.pop(key, None)
                else:
                    txn[key] = pairs[key] = b"%d" % layer * rng.randrange(1, 60)
        if flush or layer % 2 == 0:
            store.flush()
    return pairs


@pytest.fixture(params=["tables", "tables and memtable", "one table"])
def grown(request: pytest.FixtureRequest) -> Iterator[tuple[Store, dict[bytes, bytes]]]:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        pairs = grow(store, random.Random(1), layers=4, flush=request.param == "tables")
        if request.param == "one table":
            store.compact()
        yield store, dict(sorted(pairs.items()))
        assert store.verify().ok


@pytest.mark.usefixtures("clear_by_range")
def test_point_reads(grown: tuple[Store, dict[bytes, bytes]]) -> None:
    store, pairs = grown
    with store.view() as txn:
        assert {key: txn.get(key) for key in KEYS} == {key: pairs.get(key) for key in KEYS}
        assert all(txn.get(key + b"\x00") is None for key in KEYS[::7])


@pytest.mark.usefixtures("clear_by_range")
def test_scans_both_ways(grown: tuple[Store, dict[bytes, bytes]]) -> None:
    store, pairs = grown
    with store.view() as txn:
        assert list(txn.items()) == list(pairs.items())
        assert list(txn.items(reverse=True)) == list(pairs.items())[::-1]


@pytest.mark.usefixtures("clear_by_range")
def test_scans_of_parts(grown: tuple[Store, dict[bytes, bytes]]) -> None:
    store, pairs = grown
    rng = random.Random(2)
    with store.view() as txn:
        for _ in range(60):
            start, stop = sorted(rng.sample(KEYS, 2))
            inside = [key for key in pairs if start <= key < stop]
            reverse = rng.random() < 0.5
            count = rng.randrange(1, 900)
            found = islice(txn.keys(start=start, stop=stop, reverse=reverse), count)
            assert list(found) == (inside[::-1] if reverse else inside)[:count]


@pytest.mark.usefixtures("clear_by_range")
def test_changes_under_a_long_iteration(grown: tuple[Store, dict[bytes, bytes]]) -> None:
    store, pairs = grown
    with store.update() as txn:
        seen = []
        for number, key in enumerate(txn):
            seen.append(key)
            if number % 3 == 0:
                txn.delete(key)
            if number % 5 == 0:
                txn.put(key + b"+", b"new, right behind")
        added = {key + b"+" for key in seen[::5] if not key.endswith(b"+")}
        assert set(pairs) <= set(seen)
        assert {key for key in seen if key not in pairs} >= added
        assert seen == sorted(set(seen))
        txn.rollback()


@pytest.mark.parametrize("count", [1, 64, 65, 100])
def test_what_an_update_has_put_and_then_cleared_is_not_there(count: int) -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS[:count], b"v"))
            assert txn.clear(b"key") == count
            txn.put(KEYS[0], b"again")
            assert dict(txn) == {KEYS[0]: b"again"}
        with store.view() as txn:
            assert dict(txn) == {KEYS[0]: b"again"}


@pytest.mark.usefixtures("clear_by_range")
def test_a_merge_above_older_tables_keeps_what_hides_them() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            for key in KEYS:
                txn.put(key, bytes(50))
        store.flush()
        with store.update() as txn:
            assert txn.clear(KEYS[0][:-3]) == 1000
            txn.delete(KEYS[-1])
        store.flush()
        for number in range(5):
            with store.update() as txn:
                txn.put(b"small %d" % number, bytes(300))
            store.flush()
        stats = store.stats()

        assert stats.compactions > 0
        assert 1 < stats.table_count < 7, "the oldest table was not touched"
        with store.view() as txn:
            assert txn.get(KEYS[0]) is None
            assert txn.get(KEYS[-1]) is None
            assert list(txn.keys(prefix=b"key")) == KEYS[1000:-1]


def test_keys_with_equal_tags_are_told_apart() -> None:
    """The hash index keeps 16 bits of a key's checksum: those of these keys are all equal."""
    by_tag: dict[int, list[bytes]] = {}
    for number in range(100_000):
        key = b"%d" % number
        by_tag.setdefault(crc32(key) & 0xFFFF, []).append(key)
    keys = max(by_tag.values(), key=len)
    assert len(keys) >= 4
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            for key in keys[::2]:
                txn.put(key, key)
        store.flush()
        with store.view() as txn:
            for i, key in enumerate(keys):
                assert txn.get(key) == (None if i % 2 else key)
