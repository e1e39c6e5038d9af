"""How much of a store is garbage is estimated well enough, and what rests on it follows."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

import blobkv
from blobkv import Store
from blobkv._engine import garbage, maintenance
from blobkv._engine.garbage import Garbage
from blobkv.testing import SimulatedDisk

KEYS = [b"key %04d" % number for number in range(1200)]
pytestmark = pytest.mark.usefixtures("small_pieces")


def flush_only(store: Store) -> None:
    store._freeze().maintenance.flush()


@pytest.mark.usefixtures("clear_by_range")
def test_garbage_is_estimated_and_the_estimate_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update({key: bytes(100) for key in KEYS})
        flush_only(store)
        size = store.stats().table_size
        with store.update() as txn:
            txn.update({key: bytes(100) for key in KEYS[::2]})
        flush_only(store)
        garbage = Garbage(store._fs, "/db", lambda: None)
        half = garbage.estimate(store._source.layers.tables.runs)
        monkeypatch.setattr(Garbage, "_weigh", lambda *_: pytest.fail("not kept"))

        assert garbage.estimate(store._source.layers.tables.runs) == half
        assert 0.4 * size < half < 0.6 * size

    monkeypatch.undo()
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update({key: bytes(400) for key in KEYS})
        flush_only(store)
        size = store.stats().table_size
        with store.update() as txn:
            txn.clear(b"key 05")
        flush_only(store)
        garbage = Garbage(store._fs, "/db", lambda: None)

        assert garbage.estimate(store._source.layers.tables.runs) > size // 20


def test_logs_are_smaller_while_what_a_store_holds_is_replaced() -> None:
    size = 800_000
    with blobkv.open("/db", fs=SimulatedDisk(), memtable_size=size) as store:
        writer = store._source
        assert writer._useful_log_size() == size, "a new store may be about to be filled"
        for values, expected in ((b"a", size), (b"b", size // 4)):
            with store.update() as txn:
                txn.update(dict.fromkeys(KEYS, values * 400))
            flush_only(store)
            assert writer._useful_log_size() == expected
        with store.update() as txn:
            txn.update({b"new " + key: bytes(400) for key in KEYS})
        flush_only(store)
        assert writer._useful_log_size() == size


@pytest.mark.parametrize(
    ("blocks", "entries"), [(0, 9), (1, 9), (67, 3), (101, 24), (150, 24), (399, 24), (5000, 1)]
)
def test_a_hundred_to_two_hundred_keys_are_sampled(blocks: int, entries: int) -> None:
    table = SimpleNamespace(block_index=SimpleNamespace(count=blocks))
    read = []

    def block(i: int) -> tuple[list[int], None]:
        read.append(i)
        return [i] * entries, None

    keys = garbage._sample(table, SimpleNamespace(block=block))  # type: ignore[arg-type]
    assert min(blocks * entries, 100) <= len(keys) <= 200
    assert len(read) <= 200


def test_merges_are_behind_where_garbage_takes_the_room(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(maintenance, "_SPACE_MIN", 0)
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        work = store._source.maintenance
        for layer in range(3):
            with store.update() as txn:
                txn.update({b"%03d" % i: b"%d" % layer * 100 for i in range(300)})
            store._freeze().maintenance.flush()
            if layer == 0:
                assert work.behind == 0
        assert work.behind == 1
        store.compact()
        assert work.behind == 0
