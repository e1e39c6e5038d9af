"""A manifest whose checksum is right, but nothing else, costs a store nothing that it has.

Method: lines of a manifest are changed and its checksum is made right. Such a manifest is
corruption; or what is done by it is refused before anything is written.
"""

from __future__ import annotations

import json
from contextlib import suppress

import pytest
from support.mending import mended_manifest

import blobkv
from blobkv import Store
from blobkv._engine.manifest import Manifest
from blobkv.errors import CorruptionError, LimitError
from blobkv.testing import SimulatedDisk

ROOT = "/db"


def opened(disk: SimulatedDisk) -> Store:
    return blobkv.open(ROOT, fs=disk, create=False)


@pytest.mark.parametrize("digits", ["", "00", "0" * 30 + "  ", "0" * 34])
def test_a_store_id_of_another_size_is_corruption(digits: str) -> None:
    """Logs hold 16 bytes of it, which would not be what the manifest says."""
    head = {"format": 1, "store": digits, "epoch": 0, "sequence": 0, "next": 1}

    with pytest.raises(CorruptionError, match="no id of a store"):
        Manifest.decode(mended_manifest(json.dumps(head).encode()))


def with_head(**fields: int) -> SimulatedDisk:
    """A store of a table and a log, whose manifest's first line says something else."""
    disk = SimulatedDisk()
    with blobkv.open(ROOT, fs=disk) as store:
        for key in (b"table", b"log"):
            with store.update() as txn:
                txn.put(key, b"")
            if key == b"table":
                store.flush()
    head, *rest, _ = disk.contents(f"{ROOT}/MANIFEST").splitlines(keepends=True)
    line = json.dumps(json.loads(head) | fields).encode() + b"\n"
    disk.set_contents(f"{ROOT}/MANIFEST", mended_manifest(b"".join([line, *rest])))
    return disk


@pytest.mark.parametrize("kind", ["table", "log"])
def test_a_manifest_that_names_a_file_twice_is_corruption(kind: str) -> None:
    """A merge would remove the file for one of the two, and the next open miss the other."""
    disk = with_head()
    lines = disk.contents(f"{ROOT}/MANIFEST").splitlines(keepends=True)[:-1]
    lines += [line for line in lines if line.startswith(b'{"%s"' % kind.encode())]
    assert len(lines) == 4
    disk.set_contents(f"{ROOT}/MANIFEST", mended_manifest(b"".join(lines)))

    with pytest.raises(CorruptionError, match="named twice"):
        opened(disk)


def test_a_manifest_that_counts_live_files_as_unused_is_corruption() -> None:
    """The next log would have had the place of one that is there, and have removed it."""
    with pytest.raises(CorruptionError, match="though 1 is next"):
        opened(with_head(next=1))


def test_a_manifest_that_counts_no_file_at_all_is_corruption() -> None:
    with pytest.raises(CorruptionError, match="though 0 is next"):
        Manifest.decode(Manifest(b"i" * 16, next_number=0).encode())


@pytest.mark.parametrize("field", ["epoch", "next"])
def test_a_manifest_that_the_next_open_would_refuse_is_not_written(field: str) -> None:
    disk = with_head(**{field: 2**63 - 1})
    for _ in range(2):
        with suppress(LimitError), opened(disk) as store, store.update() as txn:
            txn.put(b"new", b"")
    with blobkv.open(ROOT, fs=disk, read_only=True) as store, store.view() as txn:
        assert list(txn) == [b"log", b"table"]


def test_a_commit_that_the_next_open_would_not_see_is_refused() -> None:
    disk = SimulatedDisk()
    disk.make_directory(ROOT)
    Manifest(b"i" * 16, sequence=2**63 - 2).write(disk, ROOT)
    with opened(disk) as store:
        with store.update() as txn:
            txn.put(b"last", b"")
        with pytest.raises(LimitError), store.update() as txn:
            txn.put(b"one more", b"")
    with opened(disk) as store, store.view() as txn:
        assert list(txn) == [b"last"]
