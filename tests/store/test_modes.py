"""Nobody but the owner reads a store, and the owner can, whatever the umask was.

Method: stores are made under umasks that take too little and too much, and the mode of all that
was made is looked at. Since root may do anything, the owner is also tried as another user.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import blobkv

UMASKS = [0o000, 0o022, 0o077, 0o277, 0o777]


@pytest.fixture(params=UMASKS, ids="{:03o}".format)
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def use(path: Path) -> None:
    """Open a store at `path`, and have every kind of file made."""
    for name in (b"first", b"second"):
        with blobkv.open(path / "db") as store:
            for _ in range(2):
                with store.update() as txn:
                    txn.put(name, bytes(1000))
                store.flush()
            store.compact()
            with store.update() as txn:
                txn.put(b"log", name)
            store.backup(path / "backups" / name.decode())


@pytest.mark.usefixtures("umask")
def test_directories_have_0700_and_files_0600_whatever_the_umask(tmp_path: Path) -> None:
    use(tmp_path)

    modes = {
        str(path.relative_to(tmp_path)): oct(stat.S_IMODE(path.lstat().st_mode))
        for path in tmp_path.rglob("*")
    }
    directories = {"db", "backups", "backups/first", "backups/second"}
    assert {"db/LOCK", "db/MANIFEST", "backups/first/MANIFEST"} < modes.keys() - directories
    assert modes == {name: oct(0o700) if name in directories else oct(0o600) for name in modes}


def test_a_directory_that_was_there_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    (tmp_path / "db").chmod(0o2750)
    use(tmp_path)

    assert stat.S_IMODE((tmp_path / "db").stat().st_mode) == 0o2750


AS_ANOTHER_USER = """
import os, sys
import blobkv

if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
os.umask(0o777)
for i in range(3):
    with blobkv.open(sys.argv[1], create=i == 0) as store:
        with store.update() as txn:
            txn.put(b"%d" % i, bytes(100))
        store.flush()
        with store.view() as txn:
            print(len(txn))
"""


@pytest.fixture
def owned(tmp_path: Path) -> Path:
    """A directory that belongs to whoever `AS_ANOTHER_USER` is."""
    for path in (tmp_path.parents[1], tmp_path.parent, tmp_path):
        path.chmod(0o755)
    path = tmp_path / "owned"
    path.mkdir()
    give_away(path)
    return path


def give_away(path: Path) -> None:
    if os.getuid() == 0:
        os.chown(path, 65534, 65534)


def told_by_another_user(path: Path) -> tuple[str, str]:
    done = subprocess.run(
        [sys.executable, "-c", AS_ANOTHER_USER, str(path)],
        capture_output=True,
        text=True,
        check=False,
    )
    return done.stdout, done.stderr


def test_the_owner_can_open_again_what_was_made_under_a_umask_that_takes_all(
    owned: Path,
) -> None:
    assert told_by_another_user(owned / "inner" / "db") == ("1\n2\n3\n", "")


@pytest.mark.parametrize("exists", [True, False])
def test_a_store_needs_no_right_to_list_what_else_is_beside_it(
    owned: Path, *, exists: bool
) -> None:
    if exists:
        (owned / "db").mkdir()
        give_away(owned / "db")
    owned.chmod(0o300)
    try:
        assert told_by_another_user(owned / "db") == ("1\n2\n3\n", "")
    finally:
        owned.chmod(0o700)
