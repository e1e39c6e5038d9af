"""What is under way while a store is closed, or a log, ends with the truth or with an error.

Method: a patched `close` or check stops at the one moment in question, where this thread or
another then calls.
"""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Callable, Iterator

import pytest

import blobkv
from blobkv._engine.log import Log
from blobkv._engine.tables import Tables
from blobkv.errors import ClosedError, PoisonedError
from blobkv.testing import SimulatedDisk


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def store(disk: SimulatedDisk) -> Iterator[blobkv.Store]:
    store = blobkv.open("/db", fs=disk)
    put(store, b"k", b"old")
    store.flush()
    put(store, b"k", b"new")
    put(store, b"only", b"here")
    yield store
    store.close()


def put(store: blobkv.Store, key: bytes, value: bytes, *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        txn.put(key, value)


def elsewhere(work: Callable[[], object]) -> list[BaseException]:
    """Do the work in another thread; return what came out of it."""
    raised: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except Exception as error:  # noqa: BLE001  # For the test to judge.
            raised.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    thread.join(10)
    assert not thread.is_alive()
    return raised


def test_a_sync_beside_the_end_of_a_log_is_no_failed_sync(
    store: blobkv.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    raised: list[BaseException] = []
    close = Log.close

    def close_then_sync(log: Log) -> None:
        close(log)
        raised.extend(elsewhere(store.sync))

    monkeypatch.setattr(Log, "close", close_then_sync)
    store.flush()
    monkeypatch.undo()

    assert not raised
    put(store, b"goes on", b"")


def test_a_sync_says_nothing_is_durable_that_a_failed_close_has_lost(
    disk: SimulatedDisk, store: blobkv.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(store, b"lost", b"", durable=False)
    tree = store._source.tree
    check = tree.check_writable
    closed: list[BaseException] = []

    def check_then_close() -> None:
        check()
        monkeypatch.undo()
        disk.fail(
            errno.EIO, when=lambda operation, path: operation == "sync" and ".log" in path
        )
        closed.extend(elsewhere(store.close))

    monkeypatch.setattr(tree, "check_writable", check_then_close)
    with pytest.raises((PoisonedError, OSError)):
        store.sync()
    assert [type(error) for error in closed] == [OSError]
    with blobkv.open("/db", fs=disk.crash(random.Random(0), keep="none")) as after:
        assert after.view().get(b"lost") is None


def test_a_get_beside_a_close_finds_the_truth_or_nothing_at_all(
    store: blobkv.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = store.view()
    found: list[object] = []
    close = Tables.close

    def get(key: bytes) -> object:
        try:
            return view.get(key)
        except ClosedError as error:
            return type(error)

    def close_amid_gets(tables: Tables) -> None:
        found.extend(map(get, (b"k", b"only")))
        close(tables)
        found.extend(map(get, (b"k", b"only")))

    monkeypatch.setattr(Tables, "close", close_amid_gets)
    store.close()

    assert found[:2] == [b"new", b"here"]
    assert set(found[2:]) <= {b"new", b"here", ClosedError}
    assert get(b"k") is ClosedError


USES: dict[str, Callable[[blobkv.Transaction, blobkv.Cursor], object]] = {
    "len": lambda txn, _: len(txn),
    "len of a bucket": lambda txn, _: len(txn.bucket("b")),
    "len of keys": lambda txn, _: len(txn.keys()),
    "an empty range": lambda txn, _: list(txn.items(start=b"9", stop=b"1")),
    "with": lambda txn, _: txn.__enter__(),
    "a cursor's key": lambda _, cursor: cursor.key,
    "a cursor's next": lambda _, cursor: cursor.next(),
    "a cursor's prev": lambda _, cursor: cursor.prev(),
}


@pytest.mark.parametrize("use", USES.values(), ids=USES)
@pytest.mark.parametrize("end", ["view", "store"])
@pytest.mark.parametrize("past_end", [False, True])
def test_nothing_answers_after_the_end(
    store: blobkv.Store,
    use: Callable[[blobkv.Transaction, blobkv.Cursor], object],
    end: str,
    *,
    past_end: bool,
) -> None:
    view = store.view()
    cursor = view.cursor()
    cursor.last()
    if past_end:
        cursor.next()
    store.close() if end == "store" else view.rollback()

    for _ in range(2):
        with pytest.raises(ClosedError):
            use(view, cursor)


def test_a_follower_gives_no_view_that_another_thread_is_just_making(
    disk: SimulatedDisk, store: blobkv.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blobkv.open("/db", fs=disk, read_only=True) as reader:
        made = reader._views.state
        seen: list[bytes | None] = []

        def make_then_commit(*args: object, **options: object) -> object:
            state = made(*args, **options)  # type: ignore[arg-type]
            monkeypatch.undo()
            put(store, b"k", b"newer")
            # Without the lock that this thread holds now, if that can be.
            newest = reader._views.newest
            seen.append(None if newest is None else newest.get(b"\x00k"))
            return state

        monkeypatch.setattr(reader._views, "state", make_then_commit)
        assert reader.view()[b"k"] == b"new"
        assert seen == [None]
        assert reader.view()[b"k"] == b"newer"


def test_a_closed_store_keeps_no_table_open_by_what_its_work_failed_with(
    store: blobkv.Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = store._source

    def fail(*_: object) -> None:
        raise OSError(errno.EIO, "a bad disk")

    monkeypatch.setattr(writer.maintenance, "flush", fail)
    writer._maintain()
    assert store.stats().failure is not None
    monkeypatch.undo()
    store.close()
    assert writer.failure is None
