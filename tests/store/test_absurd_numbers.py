"""Files that claim absurd sizes are refused in little memory, by whatever reads them.

Method: one file of a store on the real file system is changed so that it claims far more than
there is, with its checksums made right. Another process, which may have a gigabyte of memory,
then opens the store both ways, reads it, verifies it, and salvages it: every call returns, or
raises an error of its own type, and not MemoryError.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from struct import pack, pack_into
from typing import Any

import pytest
from support.fuzz_stores import name_table
from support.mending import mended_manifest, mended_table

import blobkv
from blobkv._engine.format import FRAME_MAGIC, encode_frame
from blobkv._engine.manifest import Manifest
from blobkv._engine.table_format import FOOTER_SIZE, TABLE_HEADER_SIZE
from blobkv.testing import SimulatedDisk

pytestmark = pytest.mark.slow

MEMORY_SIZE_MAX = 1 << 30
TIMEOUT_SECONDS = 120.0
ROOT = "/db"

USE = """
import resource, sys
import blobkv
from blobkv import BlobKVError

path, size = sys.argv[1], int(sys.argv[2])
resource.setrlimit(resource.RLIMIT_AS, (size, size))

def tried(call):
    try:
        call()
    except (BlobKVError, OSError) as error:
        return type(error).__name__
    return "done"

def read(store):
    with store.view() as txn:
        txn.get(b"100"), list(txn.items()), list(txn.items(start=b"200", reverse=True))

def use(read_only):
    with blobkv.open(path, read_only=read_only, create=False) as store:
        found = [tried(lambda: read(store)), tried(store.verify)]
        if not read_only:
            found += [tried(store.flush), tried(store.compact), tried(lambda: read(store))]
        print(*found)

print(tried(lambda: blobkv.salvage(path, path + ".new", doubtful=path + ".doubtful")))
print(tried(lambda: use(True)))
print(tried(lambda: use(False)))
"""


def made() -> SimulatedDisk:
    """A store with a table of a few blocks and a log."""
    disk = SimulatedDisk()
    with blobkv.open(ROOT, fs=disk) as store:
        with store.update() as txn:
            txn.update({b"%03d" % i: b"v" * 50 for i in range(300)})
        store.flush()
        with store.update() as txn:
            txn.put(b"log", b"here")
    return disk


def use(disk: SimulatedDisk, path: Path) -> str:
    """Have another process use the store, written out to `path`; return what became of it."""
    path.mkdir()
    for name in disk.names(ROOT):
        (path / name).write_bytes(disk.contents(f"{ROOT}/{name}"))
    child = subprocess.run(
        [sys.executable, "-c", USE, path, str(MEMORY_SIZE_MAX)],
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_SECONDS,
    )
    assert child.returncode == 0, child.stderr
    return child.stdout


def test_a_sound_store_is_used_in_that_memory(tmp_path: Path) -> None:
    done = use(made(), tmp_path / "db")

    assert done.split() == ["done"] * 10


# The manifest.


def with_lines(change: Callable[[list[dict[str, Any]]], list[object]]) -> SimulatedDisk:
    disk = made()
    lines = [json.loads(line) for line in disk.contents(f"{ROOT}/MANIFEST").splitlines()]
    changed = change(lines[:-1])
    body = "".join(json.dumps(line) + "\n" for line in changed).encode()
    disk.set_contents(f"{ROOT}/MANIFEST", mended_manifest(body))
    return disk


@pytest.mark.parametrize("field", ["size", "crc", "table"])
def test_a_table_of_2_to_the_62(tmp_path: Path, field: str) -> None:
    disk = with_lines(lambda lines: [lines[0], lines[1] | {field: 2**62}, *lines[2:]])

    assert use(disk, tmp_path / "db").count("CorruptionError") == 2


@pytest.mark.parametrize("same", [False, True])
def test_a_hundred_thousand_tables(tmp_path: Path, *, same: bool) -> None:
    def many(lines: list[dict[str, Any]]) -> list[object]:
        table = lines[1] | {"sha256": ""}
        first = table["table"]
        others = [table | {"table": first if same else 9 + i} for i in range(100_000)]
        return [lines[0], *others, *lines[2:]]

    assert use(with_lines(many), tmp_path / "db").count("CorruptionError") == 2


@pytest.mark.parametrize("item", ["[]", '"ab"'])
def test_a_line_of_millions_of_items(tmp_path: Path, item: str) -> None:
    disk = made()
    count = (15 << 20) // (len(item) + 1)
    body = f'{{"format": [{",".join([item] * count)}]}}\n'.encode()
    disk.set_contents(f"{ROOT}/MANIFEST", mended_manifest(body))

    assert use(disk, tmp_path / "db").count("CorruptionError") == 2


# A table.


# Where in a footer they are.
FIELDS = {"entries": 16, "tombstones": 24, "blocks": 32, "homes": 40}


@pytest.mark.parametrize("number", [2**31, 2**60])
@pytest.mark.parametrize("field", FIELDS)
def test_a_footer_that_claims(tmp_path: Path, field: str, number: int) -> None:
    disk = made()
    (table,) = Manifest.read(disk, ROOT).tables
    data = bytearray(disk.contents(f"{ROOT}/{table.name}"))
    at = len(data) - FOOTER_SIZE + FIELDS[field]
    pack_into("<Q", data, at, number)
    disk.set_contents(f"{ROOT}/{table.name}", mended_table(bytes(data)))
    name_table(disk, table.name)

    assert "done" in use(disk, tmp_path / "db")


@pytest.mark.parametrize("offset", [4, 8, 12, 16])
def test_a_block_that_claims_4_gib(tmp_path: Path, offset: int) -> None:
    disk = made()
    (table,) = Manifest.read(disk, ROOT).tables
    data = bytearray(disk.contents(f"{ROOT}/{table.name}"))
    pack_into("<I", data, TABLE_HEADER_SIZE + offset, 2**32 - 1)
    disk.set_contents(f"{ROOT}/{table.name}", mended_table(bytes(data)))
    name_table(disk, table.name)

    assert "CorruptionError" in use(disk, tmp_path / "db")


# A log.


@pytest.mark.parametrize("promised", [False, True])
@pytest.mark.parametrize("count", [1, 2**28])
def test_a_frame_that_claims_4_gib(tmp_path: Path, count: int, *, promised: bool) -> None:
    disk = made()
    (log,) = Manifest.read(disk, ROOT).logs
    path = f"{ROOT}/{log.name}"
    data = disk.contents(path)
    claim = pack("<IIQQIBxH", 0, 2**32 - 1, 1, 64, count, 1, FRAME_MAGIC)
    frame = encode_frame(2, {b"k": b"v"}, log_id=log.log_id, synced=64 + len(claim))
    disk.set_contents(path, data[:64] + claim + (bytes(frame) if promised else b""))

    done = use(disk, tmp_path / "db")
    assert "CorruptionError" in done if promised else done.split() == ["done"] * 10


def test_a_log_of_range_tombstones_alone(tmp_path: Path) -> None:
    """To bring them together anew for each would be too much."""
    disk = made()
    (log,) = Manifest.read(disk, ROOT).logs
    path = f"{ROOT}/{log.name}"
    first = 2
    frames = [
        bytes(
            encode_frame(
                first + i, {}, [(b"r%06d" % i, b"r%06d+" % i)], log_id=log.log_id, synced=64
            )
        )
        for i in range(200_000)
    ]
    disk.set_contents(path, disk.contents(path)[:64] + b"".join(frames))

    assert use(disk, tmp_path / "db").split() == ["done"] * 10
