"""What was acknowledged as durable survives a power cut, and what was not promised may go.

Method: the simulated disk fails or holds up one operation, the store goes on, and the power is
cut with every unsynced byte lost (or, where bytes in the kernel's cache are the trouble, kept).
Whether bytes are torn or corrupt is asked of files that are changed by hand.
"""

from __future__ import annotations

import errno
import random
import struct
import threading
from collections.abc import Callable

import pytest

import blobkv
from blobkv import Store
from blobkv._engine.files import WritableFile
from blobkv.errors import CorruptionError, PoisonedError
from blobkv.testing import SimulatedDisk

TIMEOUT_SECONDS = 20.0


def put(store: Store, key: bytes, *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        txn.put(key, b"value")


def keys(store: Store) -> list[bytes]:
    with store.view() as txn:
        return list(txn)


def keys_on(disk: SimulatedDisk) -> list[bytes]:
    with blobkv.open("/db", fs=disk) as store:
        assert store.verify().ok
        return keys(store)


def after_power_loss(disk: SimulatedDisk) -> list[bytes]:
    """The keys that are left when every unsynced byte is lost."""
    return keys_on(disk.crash(random.Random(0), keep="none"))


def is_log_sync(operation: str, path: str) -> bool:
    return operation == "sync" and path.endswith(".log")


# A store that is just being made.


@pytest.mark.parametrize("failures", [0, 1, 2, 3])
def test_a_store_whose_making_failed_is_durable_once_it_takes_commits(failures: int) -> None:
    disk = SimulatedDisk()
    disk.fail(
        when=lambda operation, path: operation == "sync_directory" and path == "/",
        times=failures,
    )
    for _ in range(failures):
        with pytest.raises(OSError, match="EIO"):
            blobkv.open("/db", fs=disk)

    with blobkv.open("/db", fs=disk) as store:
        put(store, b"k")
        assert after_power_loss(disk) == [b"k"]


# A close that failed, on a machine that stays up.


@pytest.mark.parametrize("durable", [True, False])
@pytest.mark.parametrize("promise", [lambda store: put(store, b"new"), Store.sync])
def test_what_only_the_cache_holds_is_written_anew_before_anything_is_promised(
    promise: Callable[[Store], None], *, durable: bool
) -> None:
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"old", durable=durable)
    disk.fail(when=is_log_sync)
    with pytest.raises(OSError, match="EIO"):
        store.close()

    with blobkv.open("/db", fs=disk) as store:
        promise(store)
        assert after_power_loss(disk) == keys(store)


@pytest.mark.parametrize("work", [Store.flush, Store.compact])
def test_a_seal_that_cannot_be_cut_back_poisons(work: Callable[[Store], None]) -> None:
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"old")
    disk.fail(
        errno.ENOSPC,
        when=lambda operation, path: operation == "append" and path.endswith(".log"),
        kept_size=10,
    )
    disk.fail(when=lambda operation, _: operation == "truncate")
    with pytest.raises(PoisonedError):
        work(store)

    with pytest.raises(PoisonedError):
        put(store, b"behind the torn seal")
    assert keys_on(disk.crash(random.Random(0), keep="all")) == [b"old"]


# A commit that another's sync is to make durable.


class HeldDisk(SimulatedDisk):
    """A disk whose syncs of logs wait at a gate."""

    def __init__(self) -> None:
        super().__init__()
        self.syncing = threading.Event()
        self.gate = threading.Event()
        self.held = False

    def create(self, path: str) -> WritableFile:
        file = super().create(path)
        sync = file.sync

        def held_sync() -> None:
            if self.held and path.endswith(".log"):
                self.syncing.set()
                assert self.gate.wait(TIMEOUT_SECONDS)
            sync()

        file.sync = held_sync
        return file


class Announced:
    """A lock that opens a gate when a thread comes to wait for it."""

    def __init__(self, lock: threading.Lock, gate: threading.Event) -> None:
        self._lock = lock
        self._gate = gate

    def __enter__(self) -> None:
        self._gate.set()
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def test_who_changes_nothing_waits_until_what_it_read_is_durable() -> None:
    disk = HeldDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"old")
    survivors: list[list[bytes]] = []

    def look() -> None:
        survivors.append(after_power_loss(disk))

    def read(txn: blobkv.Transaction) -> bool:
        txn.on_commit(look)
        return b"new" in txn

    disk.held = True
    writer = threading.Thread(target=put, args=(store, b"new"))
    writer.start()
    assert disk.syncing.wait(TIMEOUT_SECONDS)
    shared_sync = store._source._shared_sync
    shared_sync._turn = Announced(shared_sync._turn, disk.gate)
    try:
        assert store.batch(read), "an update builds on the newest commit"
        look()
        with store.update() as txn:
            txn.on_commit(look)
        assert survivors == [[b"new", b"old"]] * 3
    finally:
        disk.gate.set()
        writer.join(TIMEOUT_SECONDS)
        store.close()


# Torn, or corrupt?


def test_a_torn_value_that_looks_like_many_frames_is_a_torn_tail() -> None:
    """Each header in the value claims all that follows, so judging them all is not cheap."""
    count = 300
    headers = [
        struct.pack("<IIQQIBxH", 0, (count - i - 1) * 32, 1, 1, 0, 1, 0xB10B)
        for i in range(count)
    ]
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"old")
    (log,) = (name for name in disk.names("/db") if name.endswith(".log"))
    end = len(disk.contents(f"/db/{log}"))
    with store.update(durable=False) as txn:
        txn.put(b"look-alike", b"".join(headers))
    after = disk.crash(random.Random(0), keep="all")
    data = bytearray(after.contents(f"/db/{log}"))
    data[end : end + 64] = bytes(64)
    after.set_contents(f"/db/{log}", bytes(data))

    assert keys_on(after) == [b"old"]


def test_an_older_manifest_put_back_is_refused_and_the_newer_log_stays() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"old")
    older = disk.contents("/db/MANIFEST")
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"new")
    newer, names = disk.contents("/db/MANIFEST"), disk.names("/db")
    disk.set_contents("/db/MANIFEST", older)

    with pytest.raises(CorruptionError, match="put the newer manifest back") as caught:
        blobkv.open("/db", fs=disk)
    assert caught.value.path == "MANIFEST"
    assert disk.names("/db") == names
    disk.set_contents("/db/MANIFEST", newer)
    assert keys_on(disk) == [b"new", b"old"]


# What nobody needs any more.


@pytest.mark.parametrize("durable", [True, False])
def test_old_versions_are_forgotten_when_their_last_view_ends(*, durable: bool) -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        memtable = store._source.layers.active
        for i in range(50):
            with store.view() as view, store.update(durable=durable) as txn:
                txn.put(b"hot", b"%d" % i)
                assert view.get(b"hot") == (b"%d" % (i - 1) if i else None)

        with store.update(durable=durable) as txn:
            txn.put(b"last", b"")
        assert not memtable._trail
        assert not memtable.older
        memtable.check()
