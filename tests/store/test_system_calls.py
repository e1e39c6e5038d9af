"""What the system does with a file, and not only what it says of it, is as the engine needs.

Method: the calls of the one module that touches the system are watched, or cut short, on a real
directory. And: a directory that somebody made a moment ago is a name that a cut can take away,
which the simulated disk shows.
"""

from __future__ import annotations

import errno
import os
import random
import sys
from pathlib import Path

import pytest

import blobkv
from blobkv._engine import fs as system
from blobkv.testing import SimulatedDisk
from blobkv.testing.nodes import DirectoryNode

linux_only = pytest.mark.skipif(
    sys.platform == "darwin", reason="there a sync is another call, F_FULLFSYNC"
)


def put(store: blobkv.Store, key: bytes) -> None:
    with store.update() as txn:
        txn.put(key, b"v")


def watched(monkeypatch: pytest.MonkeyPatch, name: str) -> list[str]:
    """The paths whose descriptors that call is given from now on."""
    paths: list[str] = []
    call = getattr(os, name)

    def record(fd: int) -> None:
        paths.append(str(Path(f"/proc/self/fd/{fd}").readlink()))
        call(fd)

    monkeypatch.setattr(system.os, name, record)
    return paths


@linux_only
def test_a_commit_has_the_system_sync_its_log(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blobkv.open(tmp_path / "db") as store:
        put(store, b"a log is made")
        synced = watched(monkeypatch, "fdatasync")
        put(store, b"k")

        (log,) = (tmp_path / "db").glob("*.log")
        assert synced == [str(log)]


@linux_only
def test_a_flush_has_the_system_sync_the_table_the_manifest_and_the_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blobkv.open(tmp_path / "db") as store:
        put(store, b"k")
        files, directories = watched(monkeypatch, "fdatasync"), watched(monkeypatch, "fsync")
        store.flush()

        (table,) = (tmp_path / "db").glob("*.tbl")
        assert [str(table), str(tmp_path / "db" / "MANIFEST.new")] == files[-2:]
        assert directories == [str(tmp_path / "db")] * 2


def test_an_append_goes_on_where_the_system_has_written_a_part(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.pwrite
    monkeypatch.setattr(system.os, "pwrite", lambda fd, data, at: write(fd, data[:3], at))
    file = system.OSFileSystem().create(str(tmp_path / "file"))
    file.append(b"in parts")
    file.append(bytearray(b", and more"))
    file.close()

    assert (tmp_path / "file").read_bytes() == b"in parts, and more"


def test_what_the_system_wrote_of_a_commit_before_the_disk_was_full_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file has a position of its own, which goes on by what was written."""
    write = os.pwrite

    def write_part(fd: int, data: bytes, at: int) -> int:
        if len(data) <= part:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return write(fd, data[:-part], at)

    with blobkv.open(tmp_path / "db") as store:
        put(store, b"before")
        for part in (1, 30, 50):
            with monkeypatch.context() as patch:
                patch.setattr(system.os, "pwrite", write_part)
                with pytest.raises(OSError, match="No space left"):
                    put(store, b"lost")
            put(store, b"after %d" % part)
        with blobkv.open(tmp_path / "db", read_only=True) as reader, reader.view() as txn:
            assert list(txn) == [b"after 1", b"after 30", b"after 50", b"before"]


def test_a_claim_that_was_given_up_is_free_though_a_copy_of_its_descriptor_is_open(
    tmp_path: Path,
) -> None:
    """As a fork has one, until it comes to close it."""
    disk, path = system.OSFileSystem(), str(tmp_path / "LOCK")
    claim = disk.lock(path, 0)
    copy = os.dup(claim._file.fileno())
    try:
        claim.release()
        disk.lock(path, 0).release()
    finally:
        os.close(copy)


def just_made(disk: SimulatedDisk, name: str) -> None:
    """Make a directory as another program would, without a sync."""
    disk._volume.root.place(name, DirectoryNode())


def test_a_new_store_makes_the_name_of_its_directory_durable() -> None:
    disk = SimulatedDisk()
    just_made(disk, "db")
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"k")

    after = disk.crash(random.Random(0), keep="none")
    with blobkv.open("/db", fs=after, create=False) as store, store.view() as txn:
        assert dict(txn) == {b"k": b"v"}


def test_a_backup_makes_the_name_of_its_directory_durable() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"k")
        just_made(disk, "copy")
        store.backup("/copy")

    after = disk.crash(random.Random(0), keep="none")
    with blobkv.open("/copy", fs=after, create=False) as store, store.view() as txn:
        assert dict(txn) == {b"k": b"v"}
