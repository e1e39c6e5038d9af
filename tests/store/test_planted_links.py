"""A symlink planted in a store's directory is followed neither for reading nor for writing.

Method: in a closed store, or in one that is in use, a name is taken by a symlink to a file that
is precious: to the very file that it stands for, so that whoever follows it would find nothing
wrong, or to one that is not there yet. Whatever the store then does, what the link leads to is
as it was, and what is shown is right or an error.
"""

from __future__ import annotations

import errno
import os
from contextlib import suppress
from pathlib import Path

import pytest
from support.closed_store import closed_store, put

import blobkv
from blobkv.errors import BlobKVError

OWN = ["MANIFEST", "LOCK", "*.log", "*.tbl"]


def keys(path: Path, *, read_only: bool = False) -> list[bytes]:
    with blobkv.open(path, read_only=read_only) as store:
        assert store.verify().ok
        with store.view() as txn:
            return list(txn)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return closed_store(tmp_path / "db")


def replace_by_link(path: Path, pattern: str) -> Path:
    """Move a file of the store elsewhere, with a link to it in its place; return the file."""
    (victim,) = path.glob(pattern)
    precious = path.parent / "precious"
    victim.rename(precious)
    victim.symlink_to(precious)
    return precious


# In place of a file of the store's.


@pytest.mark.parametrize("pattern", OWN)
def test_a_link_in_place_of_a_file_is_not_followed_by_a_writer(
    path: Path, pattern: str
) -> None:
    precious = replace_by_link(path, pattern)
    before = precious.read_bytes()

    with pytest.raises(OSError, match="symbolic links") as caught:
        blobkv.open(path)
    assert caught.value.errno == errno.ELOOP
    assert precious.read_bytes() == before
    assert precious.is_file()


@pytest.mark.parametrize("pattern", ["MANIFEST", "*.log", "*.tbl"])
def test_a_link_in_place_of_a_file_is_not_followed_by_a_reader(
    path: Path, pattern: str
) -> None:
    replace_by_link(path, pattern)

    with pytest.raises(OSError, match="symbolic links") as caught:
        blobkv.open(path, read_only=True)
    assert caught.value.errno == errno.ELOOP


def test_a_reader_does_not_care_for_the_lock_file(path: Path) -> None:
    precious = replace_by_link(path, "LOCK")
    before = precious.read_bytes()

    assert keys(path, read_only=True) == [b"log", b"table"]
    assert precious.read_bytes() == before


@pytest.mark.parametrize("pattern", ["*.log", "*.tbl", "MANIFEST"])
def test_a_link_that_comes_while_the_store_is_open_is_found_by_verify(
    path: Path, pattern: str
) -> None:
    with blobkv.open(path) as store:
        precious = replace_by_link(path, pattern)
        report = store.verify()
        (link,) = path.glob(pattern)

        assert [problem.path for problem in report.problems] == [link.name]
        assert precious.is_file()


def test_salvage_follows_no_link(path: Path, tmp_path: Path) -> None:
    replace_by_link(path, "*.tbl")
    blobkv.salvage(path, tmp_path / "saved")

    assert b"table" not in keys(tmp_path / "saved")


# In place of a file that is to be made.


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("name", ["MANIFEST.new", "LOCK"])
def test_a_link_where_a_file_is_to_be_made_leads_nowhere(
    path: Path, name: str, *, exists: bool
) -> None:
    precious = path.parent / "precious"
    if exists:
        precious.write_bytes(b"precious")
    (path / name).unlink(missing_ok=True)
    (path / name).symlink_to(precious)

    with suppress(OSError), blobkv.open(path) as store:
        put(store, b"new")
        store.flush()
        put(store, b"newer")
        store.compact()

    assert precious.exists() == exists
    assert not exists or precious.read_bytes() == b"precious"
    assert keys(path, read_only=True) in (
        [b"log", b"table"],
        [b"log", b"new", b"newer", b"table"],
    )


@pytest.mark.parametrize("exists", [True, False])
@pytest.mark.parametrize("opened", ["before", "after"])
@pytest.mark.parametrize("suffix", ["log", "tbl"])
def test_links_with_the_next_numbers_lead_nowhere_and_lose_nothing(
    path: Path, suffix: str, opened: str, *, exists: bool
) -> None:
    precious = path.parent / "precious"
    if exists:
        precious.write_bytes(b"precious")
    first = 1 + max(int(file.stem) for file in path.iterdir() if file.stem.isdigit())
    acknowledged = {b"log", b"table"}

    store = blobkv.open(path) if opened == "before" else None
    for number in range(first, first + 12):
        with suppress(FileExistsError):
            (path / f"{number:06d}.{suffix}").symlink_to(precious)
    store = store or blobkv.open(path)
    with store:
        for i in range(30):
            with suppress(OSError):
                put(store, b"%02d" % i)
                acknowledged.add(b"%02d" % i)
                store.flush()
        assert b"29" in acknowledged, "at last a number is free"

    assert precious.exists() == exists
    assert not exists or precious.read_bytes() == b"precious"
    assert keys(path) == sorted(acknowledged)


@pytest.mark.parametrize("name", ["MANIFEST", "LOCK", "MANIFEST.new", "000001.log"])
def test_a_store_is_not_made_through_a_link(tmp_path: Path, name: str) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db" / name).symlink_to(tmp_path / "elsewhere")

    with suppress(OSError, BlobKVError), blobkv.open(tmp_path / "db") as store:
        put(store, b"new")
        store.flush()

    assert not os.path.lexists(tmp_path / "elsewhere")


def test_a_backup_does_not_go_through_a_link_in_its_directory(
    path: Path, tmp_path: Path
) -> None:
    (tmp_path / "backup").mkdir()
    (tmp_path / "backup" / "000001.tbl").symlink_to(tmp_path / "elsewhere")

    with blobkv.open(path) as store, pytest.raises(BlobKVError, match="not empty"):
        store.backup(tmp_path / "backup")
    assert not os.path.lexists(tmp_path / "elsewhere")
