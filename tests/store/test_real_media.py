"""A store on a medium that cannot be written is read, verified, and backed up all the same.

Method: a store that was closed, or killed so that its last log has no seal, is seen through a
read-only mount: of its directory, and of a file system whose device takes no writes.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from support import buckets, children, history, machine, volumes
from support.buckets import Contents
from support.trees import describe

import blobkv
from blobkv import Store
from blobkv.errors import UsageError

SEED = 5


def shown(store: Store) -> Contents:
    with store.view() as txn:
        return buckets.dump(txn)


@contextmanager
def bound(directory: Path, how: str) -> Iterator[Path]:
    """Have a store written, and seen where it cannot be."""
    machine.require_mounts()
    (directory / "origin").mkdir()
    write(directory / "origin" / "db", how)
    with volumes.read_only(directory, directory / "origin") as volume:
        yield volume.path / "db"


@contextmanager
def write_protected(directory: Path, how: str) -> Iterator[Path]:
    """Have a store written to a file system whose device takes no writes any more."""
    with volumes.loop(directory, "ext4") as volume:
        write(volume.path / "db", how)
        volume.unmount()
        volume.mount("-o", "ro")
        yield volume.path / "db"


def write(path: Path, how: str) -> None:
    """Write history into a store, so that it has tables and a log."""
    if how == "killed":
        children.read_until_killed(children.start("history_writer", path, SEED), 50)
        return
    with blobkv.open(path) as store:
        for number in range(20):
            with store.update() as txn:
                history.advance(txn, SEED)
            if number == 10:
                store.flush()


@pytest.mark.slow
@pytest.mark.parametrize("how", ["closed", "killed"])
@pytest.mark.parametrize("medium", [bound, write_protected])
def test_a_read_only_medium_is_read_verified_and_backed_up(
    tmp_path: Path, medium: Callable[[Path, str], AbstractContextManager[Path]], how: str
) -> None:
    with medium(tmp_path, how) as path:
        before = describe(path)
        with blobkv.open(path, read_only=True) as store:
            contents = shown(store)
            assert store.verify().ok
            store.backup(tmp_path / "backup")
        number = history.number_of(contents)

        assert number >= 20
        assert contents == history.replayed({}, SEED, number)
        assert history.read(tmp_path / "backup") == contents
        assert describe(path) == before


def test_a_read_only_medium_refuses_a_writer_in_the_words_of_the_system(
    tmp_path: Path,
) -> None:
    with bound(tmp_path, "closed") as path:
        for _ in range(2):
            with pytest.raises(OSError, match="Read-only file system") as caught:
                blobkv.open(path)
            assert caught.value.errno == errno.EROFS
        with pytest.raises(OSError, match="Read-only file system"):
            blobkv.open(path.parent / "new")
        with pytest.raises(UsageError, match="no store here"):
            blobkv.open(path.parent / "new", read_only=True)
        with blobkv.open(path, read_only=True) as store:
            assert shown(store) == history.replayed({}, SEED, 20)
