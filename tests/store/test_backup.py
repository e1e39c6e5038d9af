"""A backup is a store of its own that shows one state, made of copies or of links."""

from __future__ import annotations

import errno
import random
import threading
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from support.fault_table import Note

import blobkv
from blobkv import Store
from blobkv.testing import PowerCut, SimulatedDisk

Pairs = dict[bytes, bytes]
BOTH = pytest.mark.parametrize("hard_links", [True, False])


def fill(store: Store) -> Pairs:
    """Tables with deletes between them, and a log with a cleared prefix."""
    rng = random.Random(1)
    for _ in range(3):
        with store.update() as txn:
            for i in rng.sample(range(500), 200):
                txn.put(b"%03d" % i, rng.randbytes(50))
            for i in rng.sample(range(500), 50):
                txn.delete(b"%03d" % i)
        store._freeze().maintenance.flush()
    with store.update() as txn:
        txn.clear(b"1")
        txn.put(b"150", b"new")
    return shown(store)


def shown(store: Store) -> Pairs:
    with store.view() as txn:
        return dict(txn)


@pytest.fixture
def disk() -> SimulatedDisk:
    return SimulatedDisk()


@pytest.fixture
def store(disk: SimulatedDisk, clear_by_range: None) -> Iterator[Store]:
    with blobkv.open("/db", fs=disk) as store:
        yield store


@BOTH
@pytest.mark.parametrize("read_only", [True, False])
def test_a_backup_shows_the_state_and_is_apart_from_it(
    disk: SimulatedDisk, store: Store, *, hard_links: bool, read_only: bool
) -> None:
    pairs = fill(store)
    if read_only:
        with blobkv.open("/db", fs=disk, read_only=True) as reader:
            reader.backup("/copy", hard_links=hard_links)
    else:
        store.backup("/copy", hard_links=hard_links)

    for apart in (store, blobkv.open("/copy", fs=disk)):
        with apart.update() as txn:
            txn.clear()
            txn.put(b"last", b"")
        apart.compact()
        other = "/copy" if apart is store else "/db"
        with blobkv.open(other, fs=disk, read_only=True) as reader:
            assert shown(reader) == (pairs if other == "/copy" else {b"last": b""})
            assert reader.verify().ok
            assert reader.sequence == store.sequence - (other == "/copy")
        if apart is not store:
            apart.close()


@BOTH
def test_an_empty_store_can_be_backed_up(
    disk: SimulatedDisk, store: Store, *, hard_links: bool
) -> None:
    store.backup("/copy", hard_links=hard_links)
    with blobkv.open("/copy", fs=disk) as copy:
        assert shown(copy) == {}
        with copy.update() as txn:
            txn.put(b"key", b"value")
        assert shown(copy) == {b"key": b"value"}


def test_equal_contents_make_equal_copies(disk: SimulatedDisk, store: Store) -> None:
    fill(store)
    store.backup("/before")
    store.compact()
    store.backup("/after")

    files = {
        path: {name: disk.contents(f"{path}/{name}") for name in disk.names(path)}
        for path in ("/before", "/after")
    }
    assert files["/before"] == files["/after"]


@pytest.mark.parametrize("code", [errno.EXDEV, errno.EPERM, errno.EMLINK])
def test_what_cannot_be_linked_is_copied(disk: SimulatedDisk, store: Store, code: int) -> None:
    pairs = fill(store)
    disk.fail(code, when=lambda operation, _: operation == "link", times=None)
    store.backup("/copy", hard_links=True)

    with blobkv.open("/copy", fs=disk) as copy:
        assert shown(copy) == pairs
        assert copy.verify().ok


def test_what_was_copied_for_want_of_links_survives_power_loss(
    disk: SimulatedDisk, store: Store
) -> None:
    pairs = fill(store)
    disk.fail(errno.EXDEV, when=lambda operation, _: operation == "link", times=None)
    store.backup("/copy", hard_links=True)

    after = disk.crash(random.Random(0), keep="none")
    with blobkv.open("/copy", fs=after, create=False) as copy:
        assert shown(copy) == pairs
        assert copy.verify().ok


def test_a_table_that_is_merged_away_meanwhile_is_copied(
    disk: SimulatedDisk, store: Store
) -> None:
    pairs = fill(store)

    def merge(operation: str, _: str) -> bool:
        if operation == "link":
            store.compact()
        return False

    disk.fail(when=merge, times=None)
    store.backup("/copy", hard_links=True)
    with blobkv.open("/copy", fs=disk) as copy:
        assert shown(copy) == pairs
        assert copy.verify().ok


@pytest.mark.slow
@BOTH
@pytest.mark.usefixtures("clear_by_range")
def test_power_lost_anywhere_in_a_backup_leaves_all_of_it_or_no_store(
    tried: Note, *, hard_links: bool
) -> None:
    whole = none = 0
    for number in count(1):
        disk = SimulatedDisk()
        store = blobkv.open("/db", fs=disk)
        pairs = fill(store)
        store._source._pool.submit(bool).result()
        disk.cut_at = disk.operations + number
        try:
            store.backup("/copy", hard_links=hard_links)
        except PowerCut:
            pass
        else:
            break
        for keep in ("none", "all", "random"):
            after = disk.crash(random.Random(number), keep=keep)
            with blobkv.open("/db", fs=after) as survivor:
                assert shown(survivor) == pairs
            if "copy" in after.names("/") and "MANIFEST" in after.names("/copy"):
                whole += 1
                with blobkv.open("/copy", fs=after, create=False) as copy:
                    assert shown(copy) == pairs
                    assert copy.verify().ok
            else:
                none += 1
    assert whole > 0 < none
    tried("power cut in a backup", whole + none)
    after = disk.crash(random.Random(0), keep="none")
    with blobkv.open("/copy", fs=after, create=False) as copy:
        assert shown(copy) == pairs


def test_links_share_the_files_on_the_real_file_system(tmp_path: Path) -> None:
    with blobkv.open(tmp_path / "db") as store:
        pairs = fill(store)
        store.backup(tmp_path / "copy", hard_links=True)
        inodes = {file.stat().st_ino for file in (tmp_path / "db").glob("*.tbl")}
        linked = [
            file for file in (tmp_path / "copy").glob("*.tbl") if file.stat().st_nlink > 1
        ]
        assert {file.stat().st_ino for file in linked} == inodes
        store.compact()
    with blobkv.open(tmp_path / "copy") as copy:
        assert shown(copy) == pairs
        assert copy.verify().ok


@pytest.mark.slow
@BOTH
def test_backups_while_others_write_show_states_that_were(
    tmp_path: Path, *, hard_links: bool
) -> None:
    stop = threading.Event()
    with blobkv.open(tmp_path / "db", memtable_size=20_000) as store:

        def write() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                with store.update(durable=False) as txn:
                    for i in range(20):
                        txn.put(b"%d" % i, b"%d" % number * 20)

        thread = threading.Thread(target=write)
        thread.start()
        try:
            for number in range(30):
                store.backup(tmp_path / f"copy {number}", hard_links=hard_links)
        finally:
            stop.set()
            thread.join()
    for number in range(30):
        with blobkv.open(tmp_path / f"copy {number}") as copy:
            assert len(set(shown(copy).values())) <= 1
            assert copy.verify().ok
