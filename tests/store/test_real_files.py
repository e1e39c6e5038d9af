"""What only the real file system meets: systems that do less at once, or call it otherwise.

Method: one call of the operating system is replaced, so that it does what it may do by its
manual but hardly ever does here.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import sys
from pathlib import Path

import pytest

import blobkv
from blobkv._engine.files import ReadableFile
from blobkv._engine.fs import OSFileSystem

DATA = bytes(range(256)) * 100


@pytest.fixture
def fs() -> OSFileSystem:
    return OSFileSystem()


def written(fs: OSFileSystem, path: Path) -> ReadableFile:
    file = fs.create(str(path))
    file.append(DATA)
    file.sync()
    file.close()
    return fs.open(str(path))


def test_on_macos_a_sync_asks_the_drive_too(
    fs: OSFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There `fsync` stops at the drive's cache: bbolt #124."""
    asked: list[int] = []
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(fcntl, "F_FULLFSYNC", 51, raising=False)
    monkeypatch.setattr(fcntl, "fcntl", lambda _, command: asked.append(command))

    written(fs, tmp_path / "file").close()

    assert asked == [51]


def test_a_write_that_the_system_takes_in_parts_is_finished(
    fs: OSFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite, write = os.pwrite, os.write
    monkeypatch.setattr(os, "pwrite", lambda fd, data, at: pwrite(fd, data[:7000], at))
    monkeypatch.setattr(os, "write", lambda fd, data: write(fd, data[:300]))

    file = written(fs, tmp_path / "file")
    end = fs.open_end(str(tmp_path / "file"))
    assert end.grow(1000) == len(DATA) + 1000
    end.close()

    assert file.read(0, 1 << 20) == DATA + bytes(1000)
    file.close()


def test_a_read_that_the_system_gives_in_parts_is_whole(
    fs: OSFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = written(fs, tmp_path / "file")
    pread = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, size, at: pread(fd, min(size, 7000), at))

    assert file.read(0, len(DATA)) == DATA
    assert file.read(5, 1 << 20) == DATA[5:]
    assert file.read(len(DATA), 10) == b""
    file.close()
    assert OSFileSystem(use_mmap=False).map(str(tmp_path / "file")) == DATA


@pytest.mark.parametrize("code", [errno.EROFS, errno.EINVAL, errno.EIO])
def test_a_reader_on_a_medium_without_writes_has_nothing_to_sync(
    fs: OSFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    file = written(fs, tmp_path / "file")

    def refuse(_: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setattr(os, "fdatasync", refuse, raising=False)
    if code == errno.EIO:
        with pytest.raises(OSError, match=os.strerror(code)):
            file.sync()
    else:
        file.sync()
    file.close()


@pytest.mark.parametrize("maker", ["another process", "a file"])
def test_a_directory_that_appears_just_before_it_is_made_is_taken(
    fs: OSFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, maker: str
) -> None:
    mkdir = os.mkdir

    def made_by_another(path: str, mode: int) -> None:
        if maker == "a file":
            Path(path).touch()
        else:
            mkdir(path, mode)
        raise FileExistsError(errno.EEXIST, "there", path)

    monkeypatch.setattr(os, "mkdir", made_by_another)
    if maker == "a file":
        with pytest.raises(blobkv.UsageError, match="not a directory"):
            blobkv.open(tmp_path / "db", fs=fs)
    else:
        blobkv.open(tmp_path / "db", fs=fs).close()


def test_a_lock_holder_that_is_another_users_is_not_taken_for_dead(
    fs: OSFileSystem, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: int, __: int) -> None:
        raise PermissionError(errno.EPERM, "not yours")

    blobkv.open(tmp_path / "db").close()
    with (tmp_path / "db/LOCK").open("w") as file:
        json.dump({"pid": 4321, "host": socket.gethostname()}, file)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        monkeypatch.setattr(os, "kill", refuse)
        with pytest.raises(blobkv.LockedError, match="process 4321"):
            blobkv.open(tmp_path / "db", fs=fs)
