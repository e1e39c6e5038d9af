"""A reader beside a live writer shows each state whole, and recovers from what befell it.

Method: one simulated disk, a writer, and a reader on it. The writer commits in the middle of
the reader's reading, by a hook on the disk; or the reader's own reading fails or is
interrupted once, after which it must show what the writer does.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest
from support.interrupts import Interrupts

import blobkv
from blobkv import Store
from blobkv._engine.files import ReadableFile
from blobkv.testing import SimulatedDisk

pytestmark = pytest.mark.usefixtures("small_pieces")


class BusyDisk(SimulatedDisk):
    """A disk where something happens right after one of the reads.

    Attributes:
        reads: How many reads there were.
        busy_at: The read after which it happens, as `reads` counts.
        happens: What happens.
    """

    def __init__(self) -> None:
        super().__init__()
        self.reads = 0
        self.busy_at: int | None = None
        self.happens: Callable[[], object] = bool

    def open(self, path: str) -> ReadableFile:
        return BusyFile(self, super().open(path))

    def after_read(self) -> None:
        self.reads += 1
        if self.reads == self.busy_at:
            self.happens()


class BusyFile:
    def __init__(self, disk: BusyDisk, file: ReadableFile) -> None:
        self._disk = disk
        self._file = file
        self.close = file.close
        self.sync = file.sync

    @property
    def size(self) -> int:
        return self._file.size

    def read(self, offset: int, size: int) -> bytes:
        data = self._file.read(offset, size)
        self._disk.after_read()
        return data


def put(store: Store, key: bytes) -> None:
    with store.update() as txn:
        txn.put(key, b"value")


def keys(store: Store) -> list[bytes]:
    with store.view() as txn:
        return list(txn)


@pytest.fixture
def disk() -> BusyDisk:
    return BusyDisk()


@pytest.fixture
def writer(disk: BusyDisk) -> Iterator[Store]:
    with blobkv.open("/db", fs=disk) as writer:
        put(writer, b"table")
        writer.flush()
        put(writer, b"log")
        yield writer


def open_reader(disk: SimulatedDisk) -> Store:
    return blobkv.open("/db", fs=disk, read_only=True)


# Beside a busy writer.


def commit_twice(writer: Store) -> None:
    """The second commit says that the first was synced."""
    put(writer, b"first")
    put(writer, b"second")


def flush_twice(writer: Store) -> None:
    commit_twice(writer)
    writer.flush()
    commit_twice(writer)
    writer.flush()


@pytest.mark.parametrize("happens", [commit_twice, flush_twice])
def test_what_is_written_while_a_store_is_read_is_no_corruption(
    disk: BusyDisk, writer: Store, happens: Callable[[Store], None]
) -> None:
    disk.happens = lambda: happens(writer)
    for read in count(1):
        put(writer, b"log")
        disk.busy_at = disk.reads + read
        with open_reader(disk) as reader:
            assert keys(reader)[-1] == b"table"
            assert reader.verify().ok
        assert writer.verify().ok
        if disk.reads < disk.busy_at:
            break
    assert read > 10


def test_only_new_tables_are_opened_when_the_manifest_was_replaced(
    disk: BusyDisk, writer: Store
) -> None:
    mapped: list[str] = []

    def note(operation: str, path: str) -> bool:
        if operation == "map":
            mapped.append(path)
        return False

    with open_reader(disk) as reader:
        put(writer, b"new")
        writer.flush()
        disk.fail(when=note)

        assert keys(reader) == keys(writer)
        new, old = writer._source.manifest.tables[:2]
        assert mapped == [f"/db/{new.name}"]
        assert old.number < new.number


# After a refresh that failed.


@pytest.mark.parametrize("operation", ["identity", "open", "read", "map"])
@pytest.mark.parametrize("code", [errno.EIO, errno.EMFILE])
@pytest.mark.parametrize("has_log", [True, False])
def test_a_reader_whose_refresh_failed_once_is_well_at_the_next(
    disk: BusyDisk, writer: Store, operation: str, code: int, *, has_log: bool
) -> None:
    if not has_log:
        writer.flush()
    with open_reader(disk) as reader:
        writer.flush()
        put(writer, b"new")
        writer.flush()
        put(writer, b"newest")
        disk.fail(code, when=lambda tried, _: tried == operation)

        with pytest.raises(OSError, match=errno.errorcode[code]):
            reader.view()
        assert keys(reader) == keys(writer) == [b"log", b"new", b"newest", b"table"]
        put(writer, b"later")
        assert b"later" in keys(reader)


@pytest.mark.parametrize("new_manifest", [True, False])
def test_an_interrupted_refresh_skips_no_commit(
    disk: BusyDisk, writer: Store, *, new_manifest: bool
) -> None:
    for place in count(1):
        with open_reader(disk) as reader:
            if new_manifest:
                writer.flush()
            for i in range(3):
                put(writer, b"%d.%d" % (place, i))
            interrupts = Interrupts(place)
            with suppress(KeyboardInterrupt), interrupts.watching():
                reader.view()

            with reader.view() as shown, writer.view() as written:
                assert list(shown) == list(written)
                assert shown.sequence == written.sequence
            assert not reader._write_lock.locked()
        if interrupts.met < place:
            break
    assert place > 20


def test_what_a_reader_shows_survives_power_loss_though_the_writer_has_not_synced_it() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"synced")
        with blobkv.open("/db", fs=disk, read_only=True) as reader:
            with store.update(durable=False) as txn:
                txn.put(b"appended", b"value")
            shown = keys(reader)
            after = [disk.crash(random.Random(0), keep="none")]
        with store.update(durable=False) as txn:
            txn.put(b"more", b"value")
        # And one that finds it there when it opens.
        with blobkv.open("/db", fs=disk, read_only=True) as reader:
            shown_at_once = keys(reader)
            after.append(disk.crash(random.Random(0), keep="none"))

    assert shown == [b"appended", b"synced"]
    assert shown_at_once == [b"appended", b"more", b"synced"]
    for survivor, expected in zip(after, [shown, shown_at_once], strict=True):
        with blobkv.open("/db", fs=survivor) as store:
            assert keys(store) == expected
