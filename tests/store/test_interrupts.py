"""Ctrl-C at any moment of any call costs that call, never a commit that was acknowledged.

Method: a disk counts the moments right before and right after each of its operations in the
main thread. Each call of the store is made once to count them, then once more for each, with
KeyboardInterrupt raised there, while a reader follows. The store then goes on as far as it
will; after that the power is cut, and the store is closed and opened again. Interrupts
between two operations are raised from a seam that stands there.
"""

from __future__ import annotations

import random
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import pytest

import blobkv
from blobkv.errors import ClosedError, PoisonedError
from blobkv.testing import SimulatedDisk

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blobkv._engine.fs import FileSystem, WritableFile

DIRECTORY = "/db"
# So small that two commits fill a log.
MEMTABLE_SIZE = 400


class InterruptedDisk(SimulatedDisk):
    """A disk that counts moments, and raises KeyboardInterrupt at one of them.

    Attributes:
        moments: How many there were in the main thread.
        strike_at: The moment to come that is interrupted, as `moments` counts.
        on_strike: Called there first.
    """

    def __init__(self) -> None:
        super().__init__()
        self.moments = 0
        self.strike_at: int | None = None
        self.on_strike: Callable[[], object] = bool

    def around(self, operation: Callable[..., Any], *arguments: object) -> Any:
        """Do the operation; a moment comes before it, and one after it."""
        self._moment()
        done = operation(*arguments)
        self._moment()
        return done

    def create(self, path: str) -> WritableFile:
        return InterruptedFile(self, self.around(super().create, path))

    def map(self, path: str) -> bytes:
        mapped: bytes = self.around(super().map, path)
        return mapped

    def rename(self, source: str, target: str) -> None:
        self.around(super().rename, source, target)

    def remove(self, path: str) -> None:
        self.around(super().remove, path)

    def sync_directory(self, path: str) -> None:
        self.around(super().sync_directory, path)

    def _moment(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        self.moments += 1
        if self.moments == self.strike_at:
            # A reader that looks on is not interrupted.
            self.strike_at = None
            self.on_strike()
            raise KeyboardInterrupt


class InterruptedFile:
    def __init__(self, disk: InterruptedDisk, file: WritableFile) -> None:
        self._disk = disk
        self._file = file
        self.close = file.close

    def append(self, data: bytes) -> None:
        self._disk.around(self._file.append, data)

    def truncate(self, size: int) -> None:
        self._disk.around(self._file.truncate, size)

    def sync(self) -> None:
        self._disk.around(self._file.sync)


def put(store: blobkv.Store, key: bytes, *, durable: bool = True) -> None:
    with store.update(durable=durable) as txn:
        txn.put(key, bytes(100))


def keys(store: blobkv.Store) -> set[bytes]:
    with store.view() as txn:
        return set(txn)


def fill_a_log(store: blobkv.Store) -> None:
    for i in range(5):
        put(store, b"filled %d" % i)


ACTIONS: dict[str, Callable[[blobkv.Store], object]] = {
    "update": lambda store: put(store, b"new"),
    "update that waits for nobody": lambda store: put(store, b"new", durable=False),
    "batch": lambda store: store.batch(lambda txn: txn.put(b"new", b"")),
    "rotation": fill_a_log,
    "sync": lambda store: store.sync(),
    "flush": lambda store: store.flush(),
    "compact": lambda store: store.compact(),
    "backup": lambda store: store.backup("/backup"),
    "close": lambda store: store.close(),
}


def used_store(disk: FileSystem, size: int = 1 << 16) -> tuple[blobkv.Store, blobkv.Store]:
    """A store with two tables and a log, its last commit not durable yet; and a reader."""
    store = blobkv.open(DIRECTORY, fs=disk, memtable_size=size)
    for key in (b"older table", b"newer table"):
        put(store, key)
        store.flush()
    put(store, b"log")
    put(store, b"not durable", durable=False)
    return store, blobkv.open(DIRECTORY, fs=disk, read_only=True)


DURABLE = {b"older table", b"newer table", b"log"}


def go_on(store: blobkv.Store) -> set[bytes]:
    """Commit until the store refuses; return the keys of what it acknowledged."""
    acknowledged = set()
    with suppress(ClosedError, PoisonedError):
        for i in range(4):
            assert not store._write_lock.locked()
            put(store, b"later %d" % i)
            acknowledged.add(b"later %d" % i)
    return acknowledged


def interrupted(action: Callable[[blobkv.Store], object], moment: int, size: int) -> None:
    """Run the action, interrupted at that moment, and judge what is left of the store."""
    disk = InterruptedDisk()
    store, reader = used_store(disk, size)
    seen: set[bytes] = set()
    disk.on_strike = lambda: seen.update(keys(reader))
    disk.strike_at = disk.moments + moment
    with pytest.raises(KeyboardInterrupt):
        action(store)

    acknowledged = DURABLE | go_on(store)
    assert seen >= {b"log"}
    for keep in ("none", "all", "random"):
        with blobkv.open(DIRECTORY, fs=disk.crash(random.Random(moment), keep=keep)) as after:
            assert after.verify().ok
            assert acknowledged <= keys(after)
            assert keep != "all" or seen <= keys(after), "what a reader saw is gone"
    with suppress(PoisonedError):
        store.close()
    with blobkv.open(DIRECTORY, fs=disk) as store:
        assert acknowledged | seen <= keys(store)
        put(store, b"last")
        assert store.verify().ok
        assert keys(reader) == keys(store)
    reader.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ACTIONS)
def test_an_interrupt_at_any_moment_loses_no_acknowledged_commit(name: str) -> None:
    size = MEMTABLE_SIZE if name == "rotation" else 1 << 16
    disk = InterruptedDisk()
    store, reader = used_store(disk, size)
    before = disk.moments
    ACTIONS[name](store)
    moments = disk.moments - before
    store.close()
    reader.close()

    assert moments > 0
    for moment in range(1, moments + 1):
        interrupted(ACTIONS[name], moment, size)


def unclean_disk() -> InterruptedDisk:
    """A disk whose store could not be closed cleanly, since its log could not be synced."""
    disk = InterruptedDisk()
    store, reader = used_store(disk)
    reader.close()
    disk.fail(when=lambda operation, path: operation == "sync" and path.endswith(".log"))
    with pytest.raises(OSError, match="EIO"):
        store.close()
    return disk


@pytest.mark.slow
def test_an_interrupt_at_any_moment_of_a_recovery_loses_nothing() -> None:
    disk = unclean_disk()
    before = disk.moments
    blobkv.open(DIRECTORY, fs=disk).close()
    moments = disk.moments - before

    assert moments > 0
    for moment in range(1, moments + 1):
        disk = unclean_disk()
        disk.strike_at = disk.moments + moment
        with pytest.raises(KeyboardInterrupt):
            blobkv.open(DIRECTORY, fs=disk).close()
        after = disk.crash(random.Random(moment), keep="none")
        with blobkv.open(DIRECTORY, fs=after) as store:
            assert keys(store) >= DURABLE
            assert store.verify().ok
        with blobkv.open(DIRECTORY, fs=disk) as store:
            assert keys(store) == DURABLE | {b"not durable"}
