"""Logs grow ahead of the commits: only when it pays, never over a frame, never at their cost.

Method: on a simulated disk the room is made at once or in a thread that waits at a gate, and
the file's bytes are looked at; on the real file system appends and growth race.
"""

from __future__ import annotations

import errno
import random
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import blobkv
from blobkv import Store
from blobkv._engine import room
from blobkv._engine.files import FileEnd
from blobkv._engine.fs import OSFileSystem
from blobkv._engine.writer import Writer
from blobkv.errors import PoisonedError
from blobkv.testing import SimulatedDisk

TIMEOUT_SECONDS = 60


def put(store: Store, key: bytes, size: int = 100, *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        txn.put(key, b"v" * size)


def fill(store: Store, count: int) -> None:
    for i in range(count):
        put(store, b"%d" % i)


def writer(store: Store) -> Writer:
    assert isinstance(store._source, Writer)
    return store._source


def log_of(disk: SimulatedDisk) -> bytes:
    """The bytes of the newest log."""
    return disk.contents("/db/" + max(n for n in disk.names("/db") if n.endswith(".log")))


def room_in(data: bytes) -> int:
    return len(data) - len(data.rstrip(b"\0"))


def is_growth(operation: str, _path: str) -> bool:
    return operation == "grow"


# When it pays.


def test_a_stream_of_small_commits_has_room_and_a_closed_store_has_none() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        fill(store, 20)
        assert room_in(log_of(disk)) == 0, "a small store stays small"
        fill(store, 300)
        growth = writer(store)._room._growth
        assert growth is not None
        growth.result(TIMEOUT_SECONDS)
        fill(store, 1)
        assert 0 < room_in(log_of(disk)) <= 2 * room._STEP_MAX
        assert store.stats().log_size == len(log_of(disk).rstrip(b"\0"))
        assert store.verify().ok
    assert room_in(log_of(disk)) == 0


def load_without_sync(store: Store) -> None:
    for i in range(50):
        put(store, b"%d" % i, durable=False)
    store.sync()


def load_large(store: Store) -> None:
    for i in range(3):
        put(store, b"%d" % i, room._FRAME_SIZE_MAX)


@pytest.mark.usefixtures("room_ahead")
@pytest.mark.parametrize("load", [load_without_sync, load_large])
def test_a_bulk_load_just_appends(load: object) -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        assert callable(load)
        load(store)
        assert room_in(log_of(disk)) == 0


@pytest.mark.usefixtures("room_ahead")
def test_room_ends_where_the_log_would_be_rotated() -> None:
    def largest(memtable_size: int) -> int:
        disk = SimulatedDisk()
        sizes = []
        with blobkv.open("/db", fs=disk, memtable_size=memtable_size) as store:
            for i in range(5):
                put(store, b"%d" % i)
                sizes.append(len(log_of(disk)))
        return max(sizes)

    assert largest(1000) <= 1000 < largest(1 << 16)


# Never over a frame.


def test_appends_and_growth_race_and_no_frame_is_written_over(tmp_path: Path) -> None:
    fs = OSFileSystem()
    path = str(tmp_path / "file")
    file, rng, done = fs.create(path), random.Random(0), threading.Event()

    def grow() -> None:
        while not done.is_set():
            end = fs.open_end(path)
            for _ in range(20):
                size = end.grow(rng.randrange(1, 300))
                assert size > 0
            end.sync()
            end.close()

    written = b""
    with ThreadPoolExecutor(2) as pool:
        growing = [pool.submit(grow) for _ in range(2)]
        try:
            for i in range(5000):
                frame = bytes([1 + i % 255]) * random.Random(i).randrange(1, 400)
                file.append(frame)
                written += frame
                if i % 100 == 50:
                    # As after a failed write: the room goes, too.
                    file.append(b"torn")
                    file.truncate(len(written))
        finally:
            done.set()
            file.close()
        for future in growing:
            future.result(TIMEOUT_SECONDS)
    data = Path(path).read_bytes()
    assert data.startswith(written)
    assert not any(data[len(written) :])


def test_commits_and_growth_race_on_a_real_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_LOG_SIZE_MIN", 0)
    monkeypatch.setattr(room, "_STEP_MIN", 300)
    monkeypatch.setattr(room, "_STEP_MAX", 600)

    def write(thread: int) -> None:
        for i in range(100):
            put(store, b"%d.%d" % (thread, i), i)

    # So small a memtable that logs are sealed and removed while they grow.
    with blobkv.open(tmp_path / "db", memtable_size=20_000) as store:
        with ThreadPoolExecutor(4) as pool:
            list(pool.map(write, range(4)))
        assert store.verify().ok
        with blobkv.open(tmp_path / "db", read_only=True) as reader, reader.view() as txn:
            assert len(txn) == 400
    with blobkv.open(tmp_path / "db") as store, store.view() as txn:
        assert {key: len(value) for key, value in txn.items()} == {
            b"%d.%d" % (thread, i): i for thread in range(4) for i in range(100)
        }


# Never at a commit's cost.


class GatedDisk(SimulatedDisk):
    """A disk that grows files only when the gate is open."""

    def __init__(self) -> None:
        super().__init__()
        self.growing = threading.Event()
        self.gate = threading.Event()

    def open_end(self, path: str) -> FileEnd:
        self.growing.set()
        assert self.gate.wait(TIMEOUT_SECONDS)
        return super().open_end(path)


def test_commits_do_not_wait_for_the_growth_and_close_does() -> None:
    disk = GatedDisk()
    store = blobkv.open("/db", fs=disk)
    try:
        fill(store, 100)
        assert disk.growing.wait(TIMEOUT_SECONDS)
        fill(store, 100)
        assert room_in(log_of(disk)) == 0
        with ThreadPoolExecutor(1) as pool:
            closing = pool.submit(store.close)
            with pytest.raises(TimeoutError):
                closing.result(0.05)
            disk.gate.set()
            closing.result(TIMEOUT_SECONDS)
    finally:
        disk.gate.set()
    assert room_in(log_of(disk)) == 0
    with blobkv.open("/db", fs=disk) as store, store.view() as txn:
        assert len(txn) == 100


@pytest.mark.usefixtures("room_ahead")
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO])
@pytest.mark.parametrize("kept_size", [0, 50])
def test_a_log_that_cannot_grow_takes_commits_and_is_not_asked_again(
    code: int, kept_size: int
) -> None:
    disk = SimulatedDisk()
    refused = 0

    def count(operation: str, path: str) -> bool:
        nonlocal refused
        refused += is_growth(operation, path)
        return is_growth(operation, path)

    disk.fail(code, when=count, times=None, kept_size=kept_size)
    with blobkv.open("/db", fs=disk) as store:
        fill(store, 10)
        assert refused == 1
        with store.view() as txn:
            assert len(txn) == 10
    assert room_in(log_of(disk)) == 0
    disk.heal()
    with blobkv.open("/db", fs=disk) as store:
        fill(store, 3)
        assert room_in(log_of(disk)) > 0, "another log is another matter"


@pytest.mark.usefixtures("room_ahead")
def test_a_full_disk_costs_the_room_and_then_the_commit_that_does_not_fit() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"first")
        room_left = room_in(log_of(disk))
        disk.capacity = disk.used_size
        assert room_left > 150
        put(store, b"in the room")
        with pytest.raises(OSError, match="ENOSPC"):
            put(store, b"too large", 2000)
        disk.capacity = None
        put(store, b"later")
        with store.view() as txn:
            assert list(txn) == [b"first", b"in the room", b"later"]


# A sync that fails.


@pytest.mark.usefixtures("room_ahead")
def test_a_failed_sync_of_room_poisons_and_loses_nothing_acknowledged() -> None:
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    grown = False

    def after_growth(operation: str, path: str) -> bool:
        nonlocal grown
        grown = grown or is_growth(operation, path)
        return grown and operation == "sync"

    disk.fail(when=after_growth)
    put(store, b"acknowledged")
    with pytest.raises(PoisonedError):
        put(store, b"refused")
    store.close()
    for keep in ("none", "all"):
        after = disk.crash(random.Random(0), keep=keep)
        with blobkv.open("/db", fs=after) as survivor, survivor.view() as txn:
            assert list(txn) == [b"acknowledged"]


def test_what_one_handle_could_not_sync_fails_the_next_sync_of_the_other() -> None:
    """The commit that is under way when the room's sync fails must hear of it."""
    disk = SimulatedDisk()
    disk.make_directory("/d")
    file = disk.create("/d/log")
    end = disk.open_end("/d/log")
    file.append(b"frame")
    assert end.grow(10) == 15
    disk.fail(errno.ENOSPC, when=lambda operation, _: operation == "sync")
    with pytest.raises(OSError, match="ENOSPC"):
        end.sync()
    with pytest.raises(OSError, match="EIO"):
        file.sync()
    # As on Linux: each has said so once.
    file.sync()
    end.sync()
    disk.sync_directory("/d")
    assert b"frame" not in disk.crash(random.Random(0), keep="none").contents("/d/log")


# Who reads.


@pytest.mark.usefixtures("room_ahead")
def test_a_reader_finds_frames_in_place_and_reads_once_where_nothing_is_new() -> None:
    disk = SimulatedDisk()
    reads = 0

    def count(operation: str, _path: str) -> bool:
        nonlocal reads
        reads += operation == "read"
        return False

    with blobkv.open("/db", fs=disk) as store:
        fill(store, 3)
        sizes = set()
        with blobkv.open("/db", fs=disk, read_only=True) as reader:
            disk.fail(when=count)
            for i in range(3, 10):
                sizes.add(len(log_of(disk)))
                reads = 0
                with reader.view() as txn:
                    assert len(txn) == i
                assert reads == 1
                put(store, b"%d" % i)
                with reader.view() as txn:
                    assert txn.sequence == i + 1
            assert reader.stats().log_size == store.stats().log_size
        assert len(sizes) < 7, "most commits are in place"


@pytest.mark.usefixtures("room_ahead")
def test_a_log_of_room_only_that_no_manifest_names_is_removed() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"key")
    manifest = disk.contents("/db/MANIFEST")
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"torn")
        after = disk.crash(random.Random(0), keep="all")
    name = max(n for n in after.names("/db") if n.endswith(".log"))
    data = after.contents(f"/db/{name}")
    after.set_contents("/db/MANIFEST", manifest)

    with pytest.raises(blobkv.CorruptionError, match="put the newer manifest back"):
        blobkv.open("/db", fs=after)
    after.set_contents(f"/db/{name}", data[:64] + bytes(len(data) - 64))
    with blobkv.open("/db", fs=after) as store, store.view() as txn:
        assert list(txn) == [b"key"]
    assert name not in after.names("/db")
