"""A disk that is really full fails commits and nothing else: none is lost, or there by half.

Method: a small file system of the test's own, one in memory and one on ext4, is filled through
the store until the system says that there is no room, or no inode, left. Each commit puts two
pairs that follow from its number, so half of one would be seen. A file beside the store is
removed when there shall be room again.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from support import volumes
from support.volumes import Volume

import blobkv
from blobkv import Store

pytestmark = pytest.mark.slow

MEMTABLE_SIZE = 128 << 10
FILLER_SIZE = 1 << 20


@pytest.fixture(params=["tmpfs", "ext4"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Volume]:
    if request.param == "tmpfs":
        with volumes.tmpfs(tmp_path, "size=4m") as mounted:
            yield mounted
    else:
        with volumes.loop(tmp_path, "ext4", size=8 << 20) as mounted:
            yield mounted


@pytest.fixture
def filler(volume: Volume) -> Path:
    """A file whose removal makes room."""
    path = volume.path / "filler"
    path.write_bytes(random.Random(0).randbytes(FILLER_SIZE))
    return path


def remove(filler: Path) -> None:
    """Make room, and see to it that there is: ext4 gives blocks back with its next commit."""
    filler.unlink()
    os.sync()


def pairs(numbers: range) -> dict[bytes, bytes]:
    """Return what the commits of these numbers put."""
    found = {}
    for number in numbers:
        value = random.Random(number).randbytes(5000)
        found[b"one %06d" % number] = value
        found[b"two %06d" % number] = value[::-1]
    return found


def put(store: Store, number: int) -> None:
    with store.update() as txn:
        txn.update(pairs(range(number, number + 1)))


def fill(store: Store, first: int = 0) -> int:
    """Commit until there is no room; return the number of the commit that failed."""
    number = first
    while True:
        try:
            put(store, number)
        except OSError as error:
            if error.errno != errno.ENOSPC:
                raise
            return number
        number += 1


def shown(store: Store) -> dict[bytes, bytes]:
    with store.view() as txn:
        return dict(txn)


def test_a_full_disk_fails_commits_and_the_store_goes_on_once_there_is_room(
    volume: Volume, filler: Path
) -> None:
    with blobkv.open(volume.path / "db", memtable_size=MEMTABLE_SIZE) as store:
        count = fill(store)
        assert count > FILLER_SIZE // 10_000
        assert shown(store) == pairs(range(count))
        assert store.verify().ok
        for _ in range(3):
            # A flush or a merge may have made room meanwhile.
            count = fill(store, count)
        assert shown(store) == pairs(range(count))

        remove(filler)
        put(store, count)
        with store.update() as txn:
            for key in pairs(range(count - 10)):
                txn.delete(key)
        free = volumes.free_size(volume.path)
        store.compact()

        assert volumes.free_size(volume.path) > free
        assert shown(store) == pairs(range(count - 10, count + 1))
        assert store.verify().ok
    with blobkv.open(volume.path / "db") as store:
        assert shown(store) == pairs(range(count - 10, count + 1))


def test_a_store_left_on_a_full_disk_loses_nothing(volume: Volume, filler: Path) -> None:
    store = blobkv.open(volume.path / "db", memtable_size=MEMTABLE_SIZE)
    count = fill(store)
    # There may be no room for the seal.
    with suppress(OSError):
        store.close()

    with blobkv.open(volume.path / "db", read_only=True) as reader:
        assert shown(reader) == pairs(range(count))
        assert reader.verify().ok
    for _ in range(3):
        try:
            with blobkv.open(volume.path / "db") as store:
                assert shown(store) == pairs(range(count))
        except OSError as error:
            # Recovery writes before it shows what a crash left.
            if error.errno != errno.ENOSPC:
                raise
    remove(filler)
    with blobkv.open(volume.path / "db") as store:
        assert shown(store) == pairs(range(count))
        assert store.verify().ok
        put(store, count)
        assert shown(store) == pairs(range(count + 1))


def test_a_backup_that_finds_no_room_leaves_nothing(volume: Volume, filler: Path) -> None:
    with blobkv.open(volume.path / "db", memtable_size=MEMTABLE_SIZE) as store:
        count = fill(store)
        with pytest.raises(OSError, match="No space left") as caught:
            store.backup(volume.path / "backup")
        assert caught.value.errno == errno.ENOSPC
        # There may have been no room for the directory, either.
        assert list(volume.path.glob("backup/*")) == []
        assert shown(store) == pairs(range(count))


def test_a_disk_without_inodes_fails_what_needs_a_file_and_loses_nothing(
    tmp_path: Path,
) -> None:
    with volumes.tmpfs(tmp_path, "size=32m,nr_inodes=24") as volume:
        path = volume.path / "db"
        with blobkv.open(path, memtable_size=MEMTABLE_SIZE) as store:
            put(store, 0)
            fillers = use_up_inodes(volume.path)
            count = fill(store, 1)
            assert count > 1
            for _ in range(3):
                with pytest.raises(OSError, match="No space left"):
                    store.flush()
            count = fill(store, count)
            assert shown(store) == pairs(range(count))
            assert store.verify().ok

            for file in fillers:
                file.unlink()
            put(store, count)
            store.compact()
            assert shown(store) == pairs(range(count + 1))
        with blobkv.open(path) as store:
            assert shown(store) == pairs(range(count + 1))
            assert store.verify().ok


def use_up_inodes(directory: Path) -> list[Path]:
    """Make empty files until the file system has no inode left."""
    made: list[Path] = []
    with suppress(OSError):
        while True:
            path = directory / f"empty-{len(made)}"
            path.touch()
            made.append(path)
    return made
