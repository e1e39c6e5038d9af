"""What happens in the middle of a step is not lost, not shown too early, and not shown twice.

Method: the step is held up from within, in one thread: a sync that commits when the bytes are
on the disk already, a dict that commits after a look-up, a memtable that is frozen and not
flushed yet. What the store shows then must survive the loss of every unsynced byte.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from contextlib import suppress

import pytest

import blobkv
from blobkv import Store, Transaction
from blobkv._engine import jobs
from blobkv._engine.files import WritableFile
from blobkv._engine.log import Log, LogFile
from blobkv._engine.memtable import Memtable
from blobkv.errors import CorruptionError, PoisonedError
from blobkv.testing import SimulatedDisk

Change = Callable[[Transaction], object]


def nothing() -> None:
    """Do nothing."""


class MeddledDisk(SimulatedDisk):
    """A disk where something happens at the end of the next sync of a log."""

    def __init__(self) -> None:
        super().__init__()
        self.meanwhile: Callable[[], object] = nothing

    def create(self, path: str) -> WritableFile:
        file = super().create(path)
        sync = file.sync

        def meddled_sync() -> None:
            sync()
            if path.endswith(".log"):
                meanwhile, self.meanwhile = self.meanwhile, nothing
                meanwhile()

        file.sync = meddled_sync
        return file


@pytest.fixture
def disk() -> MeddledDisk:
    return MeddledDisk()


def commit(store: Store, change: Change, *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        change(txn)


def put(store: Store, key: bytes, value: bytes = b"v", *, durable: bool = True) -> None:
    commit(store, lambda txn: txn.put(key, value), durable=durable)


def append(store: Store, change: Change) -> None:
    """Do of a durable commit what is done before its sync."""
    scope, txn = store._begin()
    change(txn)
    store._source.append(scope.changes, durable=True)
    txn.rollback()


def pairs(store: Store) -> dict[bytes, bytes]:
    with store.view() as txn:
        return dict(txn)


def after_power_loss(disk: SimulatedDisk) -> dict[bytes, bytes]:
    with blobkv.open("/db", fs=disk.crash(random.Random(0), keep="none")) as store:
        assert store.verify().ok
        return pairs(store)


# Beside a sync.


def test_what_is_appended_during_a_sync_is_not_synced(disk: MeddledDisk) -> None:
    disk.make_directory("/db")
    log = Log.create(disk, "/db", LogFile(1, 7), bytes(16), 0)
    end = log.append(1, {b"before": b""}, ())
    disk.meanwhile = lambda: log.append(2, {b"meanwhile": b""}, ())
    log.sync()

    assert (log.synced, log.end > end) == (end, True)
    log.close()


def test_what_is_appended_during_a_sync_is_not_shown_by_it(disk: MeddledDisk) -> None:
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"log")
        disk.meanwhile = lambda: append(store, lambda txn: txn.put(b"meanwhile", b"v"))
        put(store, b"before")

        assert list(pairs(store)) == [b"before", b"log"]
        assert after_power_loss(disk) == pairs(store)
        store.sync()
        assert list(pairs(store)) == [b"before", b"log", b"meanwhile"]
        assert after_power_loss(disk) == pairs(store)


def test_a_commit_that_need_not_be_durable_shows_none_that_must_be(disk: MeddledDisk) -> None:
    with blobkv.open("/db", fs=disk) as store:
        append(store, lambda txn: txn.put(b"must", b"v"))
        assert not pairs(store)
        put(store, b"need not", durable=False)

        assert after_power_loss(disk).items() >= {b"must": b"v"}.items()
        assert list(pairs(store)) == [b"must", b"need not"]


@pytest.mark.usefixtures("clear_by_range")
def test_what_is_cleared_and_not_synced_yet_is_still_shown(disk: MeddledDisk) -> None:
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"k")
        store.flush()
        append(store, lambda txn: txn.clear(b""))

        assert pairs(store) == {b"k": b"v"}
        with store.view() as txn:
            assert txn.get(b"k") == b"v"
        store.sync()
        assert pairs(store) == {}


def test_an_interrupt_between_log_and_memtable_poisons(
    disk: MeddledDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has a commit that memory lacks: the next would take its number."""

    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with blobkv.open("/db", fs=disk) as store:
        put(store, b"before")
        with monkeypatch.context() as patch:
            patch.setattr(Memtable, "apply", interrupted)
            with pytest.raises(KeyboardInterrupt):
                put(store, b"interrupted")
        with pytest.raises(PoisonedError):
            put(store, b"after")

        assert pairs(store) == after_power_loss(disk) == {b"before": b"v"}
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"after")
        assert after_power_loss(disk) == pairs(store)


# Between the seal of a log and the flush of its memtable.


def test_a_log_is_sealed_when_all_of_it_is_durable(disk: MeddledDisk) -> None:
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"older", durable=False)
        store._freeze()
        assert after_power_loss(disk) == pairs(store) == {b"older": b"v"}
        put(store, b"newer")

        assert after_power_loss(disk) == pairs(store) == {b"older": b"v", b"newer": b"v"}


def test_a_flush_leaves_what_was_committed_since_the_freeze(disk: MeddledDisk) -> None:
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"frozen")
        writer = store._freeze()
        put(store, b"since")
        writer.maintenance.flush()

        assert after_power_loss(disk) == pairs(store) == {b"frozen": b"v", b"since": b"v"}


def test_of_two_frozen_memtables_the_newer_decides_until_both_are_flushed(
    disk: MeddledDisk,
) -> None:
    expected = {b"both": b"newer", b"older": b"v", b"newer": b"v"}
    with blobkv.open("/db", fs=disk) as store:
        commit(store, lambda txn: txn.update({b"both": b"older", b"older": b"v"}))
        store._freeze()
        commit(store, lambda txn: txn.update({b"both": b"newer", b"newer": b"v"}))
        maintenance = store._freeze().maintenance
        for frozen_count in (2, 1, 0):
            assert len(store._source.layers.frozen) == frozen_count
            assert pairs(store) == after_power_loss(disk) == expected
            with store.view() as txn:
                assert {key: txn.get(key) for key in expected} == expected
            if frozen_count:
                with maintenance._step:
                    maintenance._flush_oldest()


def test_a_flush_that_lost_an_entry_is_not_put_in_force(
    disk: MeddledDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_order = jobs.in_order

    def all_but_one(entries: dict[bytes, bytes], step: Callable[[], None]) -> object:
        for keys, values in in_order(entries, step):
            yield keys[1:], values[1:]

    expected = {b"%d" % i: b"v" for i in range(5)}
    with blobkv.open("/db", fs=disk) as store:
        commit(store, lambda txn: txn.update(expected))
        with monkeypatch.context() as patch:
            patch.setattr(jobs, "in_order", all_but_one)
            with pytest.raises(CorruptionError, match="4 entries, though 5 were written"):
                store.flush()
        assert after_power_loss(disk) == pairs(store) == expected

        store.flush()
        assert after_power_loss(disk) == pairs(store) == expected


def test_a_manifest_of_which_nobody_knows_whether_it_is_in_force_costs_no_file(
    disk: MeddledDisk,
) -> None:
    """It was renamed, and the sync of the directory failed."""
    renamed = False

    def is_sync_of_the_rename(operation: str, _: str) -> bool:
        nonlocal renamed
        renamed = renamed or operation == "rename"
        return renamed and operation == "sync_directory"

    with blobkv.open("/db", fs=disk) as store:
        put(store, b"k")
        disk.fail(when=is_sync_of_the_rename)
        with pytest.raises(OSError, match="EIO"):
            store.flush()
        with pytest.raises(PoisonedError):
            put(store, b"more")
        for keep in ("all", "none", "random"):
            survivor = disk.crash(random.Random(0), keep=keep)
            with blobkv.open("/db", fs=survivor) as after:
                assert pairs(after) == pairs(store) == {b"k": b"v"}


# Between two look-ups of one read.


class MeddledDict(dict[bytes, object]):
    """A dict where something happens after a look-up, once.

    Attributes:
        lookups: How many look-ups are left before it happens.
        meanwhile: What happens.
    """

    lookups = 0
    meanwhile: Callable[[], object] = staticmethod(nothing)

    def get(self, key: bytes, default: object = None) -> object:
        found = super().get(key, default)
        self.looked_up()
        return found

    def __getitem__(self, key: bytes) -> object:
        found = super().__getitem__(key)
        self.looked_up()
        return found

    @classmethod
    def looked_up(cls) -> None:
        cls.lookups -= 1
        if cls.lookups == 0:
            cls.meanwhile()


def meddle(store: Store, lookups: int, meanwhile: Callable[[], object]) -> None:
    """Have that happen after so many look-ups in the active memtable."""
    memtable = store._source.layers.active
    memtable.newest = MeddledDict(memtable.newest)
    memtable.older = MeddledDict(memtable.older)
    MeddledDict.meanwhile, MeddledDict.lookups = staticmethod(meanwhile), lookups


@pytest.mark.parametrize("lookups", [1, 2])
def test_a_get_sees_its_own_version_though_a_commit_comes_between_its_look_ups(
    disk: MeddledDisk, lookups: int
) -> None:
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"k", b"old")
        # Of another key, so that there is a chain to look at from the start.
        other = store.view()
        put(store, b"other")
        meddle(store, lookups, lambda: put(store, b"k", b"new"))
        with store.view() as txn:
            assert txn.get(b"k") == b"old"
            assert MeddledDict.lookups <= 0, "the commit came"
            assert txn.get(b"k") == b"old"
        other.rollback()
        assert pairs(store) == {b"k": b"new", b"other": b"v"}


@pytest.mark.parametrize("lookups", [1, 2])
def test_a_scan_sees_its_own_versions_though_a_commit_comes_between_its_look_ups(
    disk: MeddledDisk, lookups: int
) -> None:
    old, new = (dict.fromkeys([b"a", b"b"], value) for value in (b"old", b"new"))
    with blobkv.open("/db", fs=disk) as store:
        commit(store, lambda txn: txn.update(old))
        meddle(store, lookups, lambda: commit(store, lambda txn: txn.update(new)))
        with store.view() as txn:
            assert dict(txn.items()) == old
            assert MeddledDict.lookups <= 0, "the commit came"
            assert dict(txn.items()) == old
        assert pairs(store) == new


# Tables that cover one another with nothing.


def test_tombstones_of_keys_that_no_older_table_has_are_not_counted(disk: MeddledDisk) -> None:
    keys = [b"%04d" % i for i in range(1000)]
    with blobkv.open("/db", fs=disk) as store:
        commit(store, lambda txn: txn.update(dict.fromkeys(keys, b"v" * 50)))
        store.flush()
        put(store, b"past them")
        with suppress(KeyError):
            commit(store, lambda txn: txn.pop(b"past them"))
        store.flush()
        layers = store._source.layers

        assert [run.tombstones for run in layers.tables.runs] == [1]
        with store.view() as txn:
            assert len(txn) == len(list(txn)) == 1000
