"""A store that is closed, dropped, or forked lets go of everything, and of nothing too early.

Method: a disk that stops at a gate as a thread of the test's choice creates a table. While the
thread stands there, the store is closed or dropped, and the next owner tries to come in. What
must not happen is that both are in at once. Descriptors and mappings are looked at on the real
file system.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest

import blobkv
from blobkv import Store
from blobkv._engine.files import WritableFile
from blobkv._engine.fs import OSFileSystem
from blobkv.errors import BlobKVError, ClosedError, LockedError, PoisonedError
from blobkv.testing import SimulatedDisk

TIMEOUT_SECONDS = 20.0


class GatedDisk(SimulatedDisk):
    """A disk that holds up whoever creates a table in a thread of the given name."""

    def __init__(self, thread_name: str) -> None:
        super().__init__()
        self.arrived = threading.Event()
        self.gate = threading.Event()
        self._thread_name = thread_name

    def create(self, path: str) -> WritableFile:
        held = threading.current_thread().name.startswith(self._thread_name)
        if held and path.endswith(".tbl") and not self.arrived.is_set():
            self.arrived.set()
            assert self.gate.wait(TIMEOUT_SECONDS)
        return super().create(path)


def put(store: Store, key: bytes, *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        txn.put(key, bytes(100))


def keys(store: Store) -> list[bytes]:
    with store.view() as txn:
        return list(txn)


def until_locked(store: Store) -> None:
    """Wait until `close` has begun, which is when nobody else can begin."""
    while store._closed is None:
        threading.Event().wait(0.001)


# Closed while others work.


@pytest.mark.parametrize("work", [Store.flush, Store.compact])
def test_close_keeps_the_claim_until_work_in_another_thread_has_ended(
    work: Callable[[Store], None],
) -> None:
    disk = GatedDisk("worker")
    store = blobkv.open("/db", fs=disk)
    put(store, b"old")
    outcome: list[BlobKVError] = []

    def run() -> None:
        try:
            work(store)
        except BlobKVError as error:
            outcome.append(error)

    worker = threading.Thread(target=run, name="worker")
    worker.start()
    assert disk.arrived.wait(TIMEOUT_SECONDS)
    closer = threading.Thread(target=store.close)
    closer.start()
    until_locked(store)

    try:
        with pytest.raises(LockedError):
            blobkv.open("/db", fs=disk)
    finally:
        disk.gate.set()
    worker.join(TIMEOUT_SECONDS)
    closer.join(TIMEOUT_SECONDS)
    assert not outcome or isinstance(outcome[0], ClosedError)
    with blobkv.open("/db", fs=disk) as store:
        assert keys(store) == [b"old"]
        assert store.verify().ok


def test_a_close_that_was_interrupted_keeps_the_claim_and_can_be_made_again() -> None:
    disk = GatedDisk("blobkv")
    store = blobkv.open("/db", fs=disk, memtable_size=1000)
    for i in range(12):
        put(store, b"%02d" % i)
    assert disk.arrived.wait(TIMEOUT_SECONDS)
    pool = store._source._pool
    shutdown = pool.shutdown

    def interrupted(*, wait: bool) -> None:
        pool.shutdown = shutdown
        raise KeyboardInterrupt

    pool.shutdown = interrupted
    with pytest.raises(KeyboardInterrupt):
        store.close()

    try:
        with pytest.raises(LockedError):
            blobkv.open("/db", fs=disk)
    finally:
        disk.gate.set()
    store.close()
    with blobkv.open("/db", fs=disk) as store:
        assert keys(store) == [b"%02d" % i for i in range(12)]


def test_a_store_that_is_dropped_keeps_its_claim_while_its_thread_works(
    tmp_path: Path,
) -> None:
    arrived, gate = threading.Event(), threading.Event()

    class GatedFiles(OSFileSystem):
        def create(self, path: str) -> WritableFile:
            if path.endswith(".tbl"):
                arrived.set()
                assert gate.wait(TIMEOUT_SECONDS)
            return super().create(path)

    store = blobkv.open(tmp_path / "db", fs=GatedFiles(), memtable_size=1000)
    for i in range(12):
        put(store, b"%02d" % i)
    assert arrived.wait(TIMEOUT_SECONDS)
    dropped, work = weakref.ref(store), store._source._work
    working = weakref.ref(store._source)
    del store
    gc.collect()
    assert dropped() is None

    try:
        with pytest.raises(LockedError):
            blobkv.open(tmp_path / "db")
    finally:
        gate.set()
    writer = working()
    work.result(TIMEOUT_SECONDS)
    writer.close()
    writer.lock.release()
    blobkv.open(tmp_path / "db").close()


# What close releases, and what it says.


def mapped_tables(directory: Path) -> int:
    maps = Path("/proc/self/maps")
    if not maps.exists():
        pytest.skip("needs /proc")
    return sum(f"{directory}/" in line for line in maps.read_text().splitlines())


@pytest.mark.parametrize("read_only", [False, True])
def test_close_releases_tables_and_memory(tmp_path: Path, *, read_only: bool) -> None:
    with blobkv.open(tmp_path / "db") as store:
        put(store, b"table")
        store.flush()
        put(store, b"log")
    store = blobkv.open(tmp_path / "db", read_only=read_only)
    assert mapped_tables(tmp_path / "db") == 1
    assert keys(store) == [b"log", b"table"]
    store.close()

    assert mapped_tables(tmp_path / "db") == 0
    assert not store._source.layers.active


def test_close_tells_that_commits_never_became_durable() -> None:
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"not durable", durable=False)
    disk.fail(when=lambda operation, _: operation == "sync")
    with pytest.raises(OSError, match="EIO"):
        put(store, b"refused")
    assert keys(store) == [b"not durable"]

    with pytest.raises(PoisonedError):
        store.close()
    store.close()
    blobkv.open("/db", fs=disk).close()


def test_the_with_block_of_a_poisoned_store_raises_what_poisoned_it() -> None:
    disk = SimulatedDisk()
    with pytest.raises(OSError, match="EIO"), blobkv.open("/db", fs=disk) as store:
        put(store, b"not durable", durable=False)
        disk.fail(when=lambda operation, _: operation == "sync")
        store.sync()


# Descriptors.


def test_a_closed_file_refuses_though_its_descriptor_number_is_another_files(
    tmp_path: Path,
) -> None:
    file = OSFileSystem().create(str(tmp_path / "closed"))
    file.append(b"bytes")
    file.close()
    # As many as it takes for the number to be in use again.
    others = [OSFileSystem().create(str(tmp_path / f"other {i}")) for i in range(8)]

    for use in (file.sync, lambda: file.append(b"more"), lambda: file.truncate(0)):
        with pytest.raises(OSError, match="Bad file descriptor"):
            use()
    for i, other in enumerate(others):
        other.close()
        assert (tmp_path / f"other {i}").read_bytes() == b""
    file.close()


FORK_WHILE_OPENING = """
import os, signal, sys, threading
import blobkv
from blobkv._engine.fs import OSFileSystem

claimed, forked = threading.Event(), threading.Event()

class Slow(OSFileSystem):
    def lock(self, path, timeout):
        lock = super().lock(path, timeout)
        claimed.set()
        forked.wait()
        return lock

opener = threading.Thread(target=lambda: blobkv.open(sys.argv[1], fs=Slow()))
opener.start()
claimed.wait()
if os.fork() == 0:
    # The child lives on, as a pool's worker does, until nobody listens any more.
    os.read(int(sys.argv[2]), 1)
    os._exit(0)
forked.set()
opener.join()
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_child_forked_while_a_store_opened_does_not_keep_its_claim(tmp_path: Path) -> None:
    reading, writing = os.pipe()
    try:
        subprocess.run(
            [sys.executable, "-W", "ignore", "-c", FORK_WHILE_OPENING, tmp_path, str(reading)],
            pass_fds=(reading,),
            check=False,
            timeout=TIMEOUT_SECONDS,
        )

        blobkv.open(tmp_path).close()
    finally:
        os.close(writing)
        os.close(reading)
