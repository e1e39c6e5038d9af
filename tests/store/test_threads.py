"""Many threads at once: every view is one state, every acknowledged commit is in later ones.

Method: each writer counts up its own key, one commit a step, and notes when its commit was
acknowledged; readers note what views show. Afterwards the history must hold: a view reads the
same twice, sequences never fall, a view shows every commit that was acknowledged before it was
opened, and a writer's two keys, changed in one commit, are always equal.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import blobkv
from blobkv.testing import SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blobkv import Store, Transaction

pytestmark = pytest.mark.usefixtures("small_pieces")

WRITERS = 8
READERS = 3
STEPS = 60


@pytest.fixture
def store() -> Iterator[Store]:
    # So small that flushes and compactions run beside the writers.
    with blobkv.open("/db", fs=SimulatedDisk(), memtable_size=4096) as store:
        yield store
        assert store.verify().ok


def counters(txn: Transaction) -> list[int]:
    """Every writer's step as the transaction shows it; both of its keys must agree."""
    found = []
    for i in range(WRITERS):
        first, second = txn.get(b"%d" % i, b"0"), txn.bucket("b").get(b"%d" % i, b"0")
        assert first == second
        found.append(int(first))
    return found


def step(i: int, number: int) -> Callable[[Transaction], int]:
    def fn(txn: Transaction) -> int:
        assert int(txn.get(b"%d" % i, b"0")) == number - 1
        txn.put(b"%d" % i, b"%d" % number)
        txn.bucket("b").put(b"%d" % i, b"%d" % number)
        txn.put(b"padding %d" % number, bytes(100))
        return number

    return fn


def update(store: Store, i: int, number: int) -> None:
    with store.update() as txn:
        step(i, number)(txn)


def batch(store: Store, i: int, number: int) -> None:
    assert store.batch(step(i, number)) == number


@pytest.mark.parametrize("write", [update, batch])
def test_history_holds(store: Store, write: Callable[[Store, int, int], None]) -> None:
    acknowledged = [0] * WRITERS
    done = threading.Event()

    def writer(i: int) -> None:
        for number in range(1, STEPS + 1):
            write(store, i, number)
            acknowledged[i] = number
            with store.view() as txn:
                assert counters(txn)[i] == number, "a thread sees its own commits"

    def reader() -> int:
        views, sequence = 0, 0
        while not done.is_set():
            before = list(acknowledged)
            with store.view() as txn:
                shown = counters(txn)
                assert all(a <= b for a, b in zip(before, shown, strict=True))
                assert counters(txn) == shown, "a view reads the same twice"
                assert sorted(txn) == list(txn)
                assert txn.sequence >= sequence
                sequence = txn.sequence
            views += 1
        return views

    with ThreadPoolExecutor(WRITERS + READERS) as pool:
        readers = [pool.submit(reader) for _ in range(READERS)]
        writers = [pool.submit(writer, i) for i in range(WRITERS)]
        try:
            for future in writers:
                future.result(timeout=120)
        finally:
            done.set()
        assert all(future.result(timeout=120) > 0 for future in readers)

    with store.view() as txn:
        assert counters(txn) == [STEPS] * WRITERS


def test_batch_calls_each_function_once_and_one_that_raises_fails_alone(store: Store) -> None:
    calls = [0] * 64

    def add(i: int) -> None:
        def fn(txn: Transaction) -> int:
            calls[i] += 1
            total = int(txn.get(b"total", b"0")) + 1
            txn.put(b"total", b"%d" % total)
            txn.put(b"mine %d" % i, b"")
            if i % 4 == 0:
                raise LookupError(i)
            return i

        if i % 4 == 0:
            with pytest.raises(LookupError) as caught:
                store.batch(fn)
            assert caught.value.args == (i,)
        else:
            assert store.batch(fn) == i

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(add, range(64)))

    assert calls == [1] * 64
    with store.view() as txn:
        assert txn[b"total"] == b"48"
        assert len(txn.keys(prefix=b"mine ")) == 48


def test_batches_that_wait_share_one_commit() -> None:
    """While one commit syncs, whoever comes in the meantime waits for the next one together."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        come = threading.Event()

        def waiting() -> int:
            joining = store._batches._joining
            return 0 if joining is None else len(joining.calls)

        def slow_sync(operation: str, _path: str) -> bool:
            # Strikes never; the first sync takes until five more callers wait.
            while operation == "sync" and not come.is_set() and waiting() < 5:
                come.wait(0.001)
            if operation == "sync":
                come.set()
            return False

        with ThreadPoolExecutor(7) as pool:
            store.batch(lambda txn: txn.put(b"make", b"the log"))
            disk.fail(when=slow_sync)
            before = store.stats()
            list(pool.map(lambda i: store.batch(lambda txn: txn.put(b"%d" % i, b"")), range(7)))
        after = store.stats()

    assert after.commits - before.commits <= 3
    assert after.syncs - before.syncs <= 3


def test_updates_run_one_at_a_time(store: Store) -> None:
    def add(_: int) -> None:
        for _ in range(25):
            with store.update(durable=False) as txn:
                txn.put(b"n", b"%d" % (int(txn.get(b"n", b"0")) + 1))

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(add, range(8)))

    with store.view() as txn:
        assert txn[b"n"] == b"200"


def test_a_view_never_waits_for_an_update(store: Store) -> None:
    with store.update() as txn:
        txn.put(b"k", b"new")
        with ThreadPoolExecutor(1) as pool:
            assert pool.submit(lambda: counters(store.view())).result(timeout=10) is not None
            assert pool.submit(lambda: store.view().get(b"k")).result(timeout=10) is None


def test_views_outlive_flush_and_compaction(store: Store) -> None:
    for i in range(50):
        with store.update() as txn:
            txn.put(b"%03d" % i, b"old" * 100)
    with store.view() as view:
        before = dict(view)
        with store.update() as txn:
            txn.clear()
        store.flush()
        store.compact()

        assert dict(view) == before
    with store.view() as txn:
        assert not txn


def test_close_waits_for_commits_in_flight() -> None:
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    acknowledged: list[int] = []

    def write(i: int) -> None:
        try:
            store.batch(lambda txn: txn.put(b"%d" % i, b""))
        except blobkv.ClosedError:
            return
        acknowledged.append(i)

    with ThreadPoolExecutor(8) as pool:
        for i in range(100):
            pool.submit(write, i)
            if i == 50:
                store.close()

    with blobkv.open("/db", fs=disk) as store, store.view() as txn:
        assert {int(key) for key in txn} == set(acknowledged)
