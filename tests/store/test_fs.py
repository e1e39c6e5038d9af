"""The simulated disk and the real one behave alike, as far as the engine can tell.

Method: one set of checks, run on a `SimulatedDisk` and on an `OSFileSystem` in a temporary
directory. What a power cut leaves, which only the simulated disk can show, is checked in
`test_simulated_disk.py`.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

import pytest

from blobkv._engine.files import FileSystem
from blobkv._engine.fs import OSFileSystem
from blobkv.errors import LockedError
from blobkv.testing import SimulatedDisk

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(params=["simulated", "mmap", "no mmap"])
def fs(request: pytest.FixtureRequest) -> FileSystem:
    if request.param == "simulated":
        return SimulatedDisk()
    return OSFileSystem(use_mmap=request.param == "mmap")


@pytest.fixture
def root(fs: FileSystem, tmp_path: Path) -> str:
    path = f"{tmp_path}/store"
    fs.make_directory(path)
    return path


def put(fs: FileSystem, path: str, data: bytes) -> None:
    file = fs.create(path)
    file.append(data)
    file.close()


def read(fs: FileSystem, path: str) -> bytes:
    file = fs.open(path)
    try:
        return file.read(0, file.size)
    finally:
        file.close()


def test_appends_add_up(fs: FileSystem, root: str) -> None:
    file = fs.create(f"{root}/a")
    file.append(b"one")
    file.append(b"")
    file.append(b"two")
    file.sync()
    file.close()

    assert read(fs, f"{root}/a") == b"onetwo"


def test_an_append_after_truncate_goes_to_the_cut(fs: FileSystem, root: str) -> None:
    file = fs.create(f"{root}/a")
    file.append(b"keep, lose")
    file.truncate(4)
    file.append(b"!")
    file.close()

    assert read(fs, f"{root}/a") == b"keep!"


def test_room_goes_behind_what_is_there_and_is_written_over(fs: FileSystem, root: str) -> None:
    file, end = fs.create(f"{root}/a"), None
    file.append(b"one")
    try:
        end = fs.open_end(f"{root}/a")
        assert end.grow(4) == 7
        file.append(b"two")
        assert read(fs, f"{root}/a") == b"onetwo\0"
        file.append(b"three")
        assert end.grow(2) == 13
        assert read(fs, f"{root}/a") == b"onetwothree\0\0"
        file.truncate(6)
        assert end.grow(1) == 7
        file.append(b"!")
        end.sync()
        file.sync()
    finally:
        file.close()
        if end is not None:
            end.close()

    assert read(fs, f"{root}/a") == b"onetwo!"
    with pytest.raises(OSError, match=r"EBADF|Bad file descriptor"):
        end.grow(1)


def test_create_refuses_a_taken_name(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"mine")

    with pytest.raises(FileExistsError):
        fs.create(f"{root}/a")
    assert read(fs, f"{root}/a") == b"mine"


@pytest.mark.parametrize("call", ["create", "names", "lock"])
def test_nothing_appears_in_a_missing_directory(fs: FileSystem, root: str, call: str) -> None:
    with pytest.raises(FileNotFoundError):
        getattr(fs, call)(f"{root}/missing/a", *([0.0] if call == "lock" else []))
    assert fs.names(root) == []


@pytest.mark.parametrize("call", ["open", "open_end", "map", "remove", "identity"])
def test_a_missing_file_is_not_found(fs: FileSystem, root: str, call: str) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        getattr(fs, call)(f"{root}/missing")
    assert caught.value.errno == errno.ENOENT


def test_renaming_a_missing_file_is_not_found(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"kept")

    with pytest.raises(FileNotFoundError):
        fs.rename(f"{root}/missing", f"{root}/a")
    assert read(fs, f"{root}/a") == b"kept"


def test_a_path_through_a_file_is_refused(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"")

    with pytest.raises(NotADirectoryError):
        fs.create(f"{root}/a/b")
    with pytest.raises(NotADirectoryError):
        fs.names(f"{root}/a")


def test_rename_replaces_and_frees_the_old_name(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"new")
    put(fs, f"{root}/b", b"old")
    before = fs.identity(f"{root}/b")

    fs.rename(f"{root}/a", f"{root}/b")
    fs.sync_directory(root)

    assert fs.names(root) == ["b"]
    assert read(fs, f"{root}/b") == b"new"
    assert fs.identity(f"{root}/b") != before


def test_identity_stays_while_nothing_changes(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"same")

    assert fs.identity(f"{root}/a") == fs.identity(f"{root}/a")


def test_readers_keep_a_removed_file(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"still here")
    mapped = fs.map(f"{root}/a")
    opened = fs.open(f"{root}/a")

    fs.remove(f"{root}/a")

    assert fs.names(root) == []
    assert mapped[6:10] == b"here"
    assert opened.read(0, 5) == b"still"
    opened.close()
    if not isinstance(mapped, bytes):
        mapped.close()


def test_a_slice_of_a_map_is_bytes(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"abc")
    mapped = fs.map(f"{root}/a")

    assert type(mapped[0:2]) is bytes
    assert len(mapped) == 3
    if not isinstance(mapped, bytes):
        mapped.close()


def test_an_empty_file_maps(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"")

    assert fs.map(f"{root}/a") == b""


def test_reads_end_at_the_end(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"abc")
    file = fs.open(f"{root}/a")

    assert file.size == 3
    assert file.read(1, 100) == b"bc"
    assert file.read(3, 1) == b""
    assert file.read(50, 1) == b""
    file.close()


def test_a_reader_sees_what_is_appended_later(fs: FileSystem, root: str) -> None:
    writer = fs.create(f"{root}/a")
    reader = fs.open(f"{root}/a")
    writer.append(b"later")

    assert reader.size == 5
    assert reader.read(0, 5) == b"later"
    writer.close()
    reader.close()


def test_close_is_idempotent_and_final(fs: FileSystem, root: str) -> None:
    writer = fs.create(f"{root}/a")
    reader = fs.open(f"{root}/a")
    for _ in range(2):
        writer.close()
        reader.close()

    for call in (lambda: writer.append(b"x"), lambda: reader.read(0, 1)):
        with pytest.raises(OSError) as caught:  # noqa: PT011 - the errno is checked below.
            call()
        assert caught.value.errno == errno.EBADF
    assert read(fs, f"{root}/a") == b""


def test_make_directory_makes_parents_and_repeats(fs: FileSystem, root: str) -> None:
    for _ in range(2):
        fs.make_directory(f"{root}/a/b/c")

    assert fs.names(root) == ["a"]
    assert fs.names(f"{root}/a/b") == ["c"]


def test_make_directory_refuses_a_file(fs: FileSystem, root: str) -> None:
    put(fs, f"{root}/a", b"")

    with pytest.raises(FileExistsError):
        fs.make_directory(f"{root}/a")


def test_names_are_sorted(fs: FileSystem, root: str) -> None:
    for name in ("b", "c", "a"):
        put(fs, f"{root}/{name}", b"")

    assert fs.names(root) == ["a", "b", "c"]


def test_a_lock_is_held_until_released(fs: FileSystem, root: str) -> None:
    lock = fs.lock(f"{root}/LOCK", 0.0)
    with pytest.raises(LockedError) as caught:
        fs.lock(f"{root}/LOCK", 0.01)
    for _ in range(2):
        lock.release()

    assert caught.value.path == root
    assert fs.names(root) == ["LOCK"]
    fs.lock(f"{root}/LOCK", 0.0).release()


def test_releasing_twice_does_not_free_the_next_holder(fs: FileSystem, root: str) -> None:
    first = fs.lock(f"{root}/LOCK", 0.0)
    first.release()
    second = fs.lock(f"{root}/LOCK", 0.0)
    first.release()

    with pytest.raises(LockedError):
        fs.lock(f"{root}/LOCK", 0.0)
    second.release()


def test_a_directory_that_cannot_be_looked_at_is_the_systems_own_error(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")

    with pytest.raises(OSError, match="symbolic links") as caught:
        OSFileSystem().make_directory(f"{tmp_path}/loop/store")
    assert caught.value.errno == errno.ELOOP
