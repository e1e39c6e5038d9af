"""What others put in a store's directory, or change there, is refused or left alone.

Method: a store on the real file system is closed, something is planted, and the store is
opened again. A child process opens where it might hang or take too much memory. Two files of
the store that change places are planted files, too.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from support.closed_store import closed_store, put

import blobkv
from blobkv.errors import CorruptionError, LockedError

TIMEOUT_SECONDS = 20.0
MEMORY_SIZE_MAX = 1 << 30


def keys(path: Path) -> list[bytes]:
    with blobkv.open(path) as store, store.view() as txn:
        return list(txn)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return closed_store(tmp_path / "db")


def one(path: Path, pattern: str) -> Path:
    (found,) = path.glob(pattern)
    return found


OPEN = """
import resource, sys
import blobkv

size = int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (size, size))
try:
    with blobkv.open(sys.argv[1], read_only=True) as store, store.view() as txn:
        print(*map(bytes.decode, txn))
except blobkv.CorruptionError as error:
    print(error.path)
"""


def opened_elsewhere(path: Path) -> str:
    """Open the store in another process; return its keys, or the name of the corrupt file."""
    child = subprocess.run(
        [sys.executable, "-c", OPEN, path, str(MEMORY_SIZE_MAX)],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=TIMEOUT_SECONDS,
    )
    return child.stdout.strip()


# In place of a file of the store's.


@pytest.mark.parametrize("pattern", ["*.log", "*.tbl", "MANIFEST"])
def test_a_pipe_in_place_of_a_file_is_corruption_and_does_not_hang(
    path: Path, pattern: str
) -> None:
    victim = one(path, pattern)
    victim.unlink()
    os.mkfifo(victim)

    assert opened_elsewhere(path) == victim.name


@pytest.mark.parametrize("pattern", ["*.log", "*.tbl", "MANIFEST"])
def test_a_directory_in_place_of_a_file_is_corruption(path: Path, pattern: str) -> None:
    victim = one(path, pattern)
    victim.unlink()
    victim.mkdir()

    with pytest.raises(CorruptionError) as caught:
        blobkv.open(path)
    assert caught.value.path == victim.name


def test_two_tables_that_changed_places_are_corruption_not_old_values(tmp_path: Path) -> None:
    path = tmp_path / "db"
    with blobkv.open(path) as store:
        for value in (b"old", b"new"):
            put(store, b"balance", value)
            store.flush()
    first, second = sorted(path.glob("*.tbl"))
    assert first.stat().st_size == second.stat().st_size
    first.rename(path / "aside")
    second.rename(first)
    (path / "aside").rename(second)

    with pytest.raises(CorruptionError, match="another table") as caught:
        blobkv.open(path)
    assert caught.value.path in {first.name, second.name}


def test_a_log_grown_by_gigabytes_of_zeroes_opens_in_little_memory(path: Path) -> None:
    # Sparse, so that it takes no room; as large as what may be had of memory, and more.
    os.truncate(one(path, "*.log"), 2 * MEMORY_SIZE_MAX)

    assert opened_elsewhere(path) == "log table"


def test_a_manifest_that_rots_under_an_open_store_is_found_by_verify(path: Path) -> None:
    manifest = path / "MANIFEST"
    data = bytearray(manifest.read_bytes())
    data[30] ^= 1
    with blobkv.open(path) as store:
        manifest.write_bytes(data)
        report = store.verify()

    assert [problem.path for problem in report.problems] == ["MANIFEST"]


def test_an_older_manifest_under_an_open_store_is_found_by_verify(path: Path) -> None:
    older = (path / "MANIFEST").read_bytes()
    with blobkv.open(path) as store:
        put(store, b"new")
        (path / "MANIFEST").write_bytes(older)
        report = store.verify()

    assert [problem.path for problem in report.problems] == ["MANIFEST"]
    assert "epoch" in report.problems[0].reason


# Beside the store's files.


@pytest.mark.parametrize("suffix", ["log", "tbl"])
@pytest.mark.parametrize("number", ["18446744073709551615", "999999999999999999"])
def test_a_stray_file_with_a_huge_number_is_in_nobodys_way(
    path: Path, number: str, suffix: str
) -> None:
    # Not closed: the next open has to write a table, with a number of its own.
    store = blobkv.open(path)
    put(store, b"killed")
    store._source.tree.poison(ValueError("killed"))
    store.close()
    (path / f"{number}.{suffix}").touch()

    for i in range(3):
        assert keys(path)[: i + 1] == [b"%d" % j for j in range(i)] + [b"killed"]
        with blobkv.open(path) as store:
            put(store, b"%d" % i)
            store.flush()
            assert store.verify().ok


@pytest.mark.parametrize("name", ["000099.tbl", "000099.log"])
def test_a_stray_directory_with_the_name_of_a_file_is_in_nobodys_way(
    path: Path, name: str
) -> None:
    (path / name).mkdir()

    assert keys(path) == [b"log", b"table"]
    assert keys(path) == [b"log", b"table"]
    assert (path / name).is_dir()


# The lock file.


def test_a_lock_file_that_is_another_file_too_is_not_written_to(path: Path) -> None:
    precious = path.parent / "precious"
    precious.write_text("precious")
    (path / "LOCK").unlink()
    (path / "LOCK").hardlink_to(precious)

    with pytest.raises(CorruptionError, match="other names"):
        blobkv.open(path)
    assert precious.read_text() == "precious"


@pytest.mark.parametrize("content", [b"[" * 4000, b"\xff", b"null", b"{}", b'{"pid": []}'])
def test_a_lock_file_that_says_nonsense_names_nobody(path: Path, content: bytes) -> None:
    with blobkv.open(path):
        (path / "LOCK").write_bytes(content)
        with pytest.raises(LockedError) as caught:
            blobkv.open(path)

    assert caught.value.pid is None
    assert caught.value.host is None
