"""Bytes that no blobkv wrote, though every checksum is right, are corruption and nothing else.

Method: a frame, a part of a table, or a manifest is changed and its checksums are made right
again. The store must then refuse to open or to read, with CorruptionError and the file's name,
or go on as if the bytes were not there; no other error, no endless search, no wrong value.
"""

from __future__ import annotations

import json
import random
from array import array
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from struct import pack, pack_into, unpack_from
from typing import Any
from zlib import crc32

import pytest

import blobkv
from blobkv._engine import format as frames
from blobkv._engine import table_format as tables
from blobkv._engine.hash_index import encode_hash_index, slot_count
from blobkv._engine.manifest import MANIFEST_NAME, Manifest
from blobkv.errors import CorruptionError
from blobkv.testing import SimulatedDisk


def put(store: blobkv.Store, key: bytes, value: bytes = b"value") -> None:
    with store.update() as txn:
        txn.put(key, value)


def keys(store: blobkv.Store) -> list[bytes]:
    with store.view() as txn:
        return list(txn)


# Frames.


def log_with(
    body: bytes, count: int, kind: int = 1, sequence: int = 2, synced: int | None = None
) -> SimulatedDisk:
    """A killed store with one commit, and behind it a frame of those bytes."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"whole")
    after = disk.crash(random.Random(0), keep="all")
    store.close()
    (log,) = Manifest.read(after, "/db").logs
    data = after.contents(f"/db/{log.name}")
    synced = len(data) if synced is None else synced
    tail = pack("<IQQIBxH", len(body), sequence, synced, count, kind, frames.FRAME_MAGIC)
    crc = crc32(body, crc32(tail, log.log_id))
    after.set_contents(f"/db/{log.name}", data + pack("<I", crc) + tail + body)
    return after


RANGE = 0xFFFFFFFE


@pytest.mark.parametrize(
    ("body", "count", "kind"),
    [
        pytest.param(pack("<2I", 4_000_000_000, 0) + b"\0k", 1, 1, id="key size past the body"),
        pytest.param(pack("<2I", 2, 4_000_000) + b"\0k", 1, 1, id="value size past the body"),
        pytest.param(pack("<2I", 2, 0) + b"\0kmore", 1, 1, id="sizes short of the body"),
        pytest.param(pack("<2I", 2, RANGE) + b"\0k", 1, 1, id="half a range tombstone"),
        pytest.param(pack("<2I", 2, 1) + b"\0kv", 1, 7, id="unknown kind"),
        pytest.param(pack("<2I", 2, 1) + b"\0kv", 2**31, 1, id="count past the body"),
    ],
)
def test_a_frame_that_makes_no_sense_is_none(body: bytes, count: int, kind: int) -> None:
    with blobkv.open("/db", fs=log_with(body, count, kind)) as store:
        assert keys(store) == [b"whole"]
        put(store, b"next")
        assert store.verify().ok


@pytest.mark.parametrize("sequence", [0, 1, 3, 2**63 - 1])
def test_a_frame_of_another_sequence_than_the_next_is_corruption(sequence: int) -> None:
    disk = log_with(pack("<2I", 2, 1) + b"\0kv", 1, sequence=sequence)

    with pytest.raises(CorruptionError, match=f"sequence {sequence}, expected 2") as caught:
        blobkv.open("/db", fs=disk)
    assert caught.value.path.endswith(".log")


def test_a_frame_of_a_sequence_that_no_store_reaches_is_none() -> None:
    disk = log_with(pack("<2I", 2, 1) + b"\0kv", 1, sequence=2**64 - 1)

    with blobkv.open("/db", fs=disk) as store:
        assert keys(store) == [b"whole"]


@pytest.mark.parametrize(("synced", "clean"), [(None, True), (frames.LOG_HEADER_SIZE, False)])
def test_a_seal_is_a_clean_end_if_all_before_it_was_synced(
    synced: int | None, *, clean: bool
) -> None:
    """What was replayed is written anew, as a table, unless it is known to be durable."""
    disk = log_with(b"", 0, kind=frames.SEAL, sequence=1, synced=synced)

    with blobkv.open("/db", fs=disk) as store:
        assert keys(store) == [b"whole"]
        assert store.stats().table_count == (0 if clean else 1)
        assert store.verify().ok


# Tables.

Change = Callable[[bytearray, tables.Footer], tables.Footer]


def hash_index(tag: Callable[[int], int], place: int) -> Change:
    """Put other tags, and one place, in every slot."""

    def change(data: bytearray, footer: tables.Footer) -> tables.Footer:
        count = slot_count(footer.homes)
        parts = [
            *encode_hash_index(bytearray(map(tag, range(count))), array("Q", [place]) * count)
        ]
        data[footer.hash_offset : footer.index_offset] = b"".join(parts)
        return footer._replace(hash_crc=crc32(parts[-1]))

    return change


def block_index(at: int, number: int) -> Change:
    """Put another number at place `at` of the block index."""

    def change(data: bytearray, footer: tables.Footer) -> tables.Footer:
        pack_into("<Q", data, footer.index_offset + 8 * at, number)
        return footer._replace(
            index_crc=crc32(data[footer.index_offset : footer.ranges_offset])
        )

    return change


def first_block(offset: int, number: int) -> Change:
    """Put another number at `offset` of the first block."""

    def change(data: bytearray, footer: tables.Footer) -> tables.Footer:
        start = tables.TABLE_HEADER_SIZE
        (size,) = unpack_from("<I", data, start + 4)
        pack_into("<I", data, start + offset, number)
        pack_into("<I", data, start, crc32(data[start + 4 : start + size], start))
        return footer

    return change


def table_with(change: Change) -> SimulatedDisk:
    """A store of one table with that change, and a manifest that names it as it is."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        for i in range(300):
            with store.update(durable=False) as txn:
                txn.put(b"%d" % i, b"v" * 50)
        store.flush()
    manifest = Manifest.read(disk, "/db")
    (table,) = manifest.tables
    data = bytearray(disk.contents(f"/db/{table.name}"))
    footer_at = len(data) - tables.FOOTER_SIZE
    footer = tables.decode_footer(bytes(data[footer_at:]), footer_at, table.name)
    data[footer_at:] = tables.encode_footer(change(data, footer))
    disk.set_contents(f"/db/{table.name}", bytes(data))
    crc = tables.footer_crc(bytes(data[footer_at:]))
    manifest = replace(manifest, tables=(table._replace(crc=crc),))
    disk.set_contents("/db/MANIFEST", manifest.encode())
    return disk


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(hash_index(lambda i: 1 + i % 255, 2**64 - 1), id="places past the file"),
        pytest.param(hash_index(lambda i: 1 + i % 255, 64), id="no slot empty"),
        pytest.param(hash_index(lambda i: 1 + i % 255, 2**54 | 90), id="places of no entry"),
        pytest.param(block_index(0, 2**60), id="block past the file"),
        pytest.param(block_index(1, 2**64 - 1), id="block far past the file"),
        pytest.param(first_block(8, 2**31 - 1), id="block of too many entries"),
        pytest.param(first_block(16, 5), id="bounds descend"),
        pytest.param(first_block(20, 2**31 - 1), id="bounds past the block"),
    ],
)
def test_a_table_that_makes_no_sense_is_corruption(change: Change) -> None:
    with blobkv.open("/db", fs=table_with(change)) as store, store.view() as txn:
        found: set[bytes | None] = set()
        for i in range(300):
            with suppress(CorruptionError):
                found.add(txn.get(b"%d" % i))
        with suppress(CorruptionError):
            found.update(txn.values())
        assert found <= {b"v" * 50}, "nothing is served that was not written"
        report = store.verify()

    assert [problem.path[-4:] for problem in report.problems] == [".tbl"]


def test_verify_finds_a_key_that_the_hash_index_does_not() -> None:
    with blobkv.open("/db", fs=table_with(hash_index(lambda _: 0, 0))) as store:
        (problem,) = store.verify().problems

    assert "does not find key" in problem.reason


# The manifest.


def manifest_with(change: Callable[[list[dict[str, Any]]], object]) -> SimulatedDisk:
    """A store of a table and a log whose manifest's lines were changed."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        put(store, b"table")
        store.flush()
        put(store, b"log")
    lines = [json.loads(line) for line in disk.contents("/db/MANIFEST").splitlines()[:-1]]
    change(lines)
    body = "".join(json.dumps(line) + "\n" for line in lines).encode()
    crc_line = b'{"crc32": "%08x"}\n' % crc32(body)
    disk.set_contents("/db/MANIFEST", body + crc_line)
    return disk


@pytest.mark.parametrize(
    ("line", "field", "value"),
    [
        (0, "next", 2**64 - 1),
        (0, "next", 2**63),
        (0, "next", -1),
        (0, "next", True),
        (0, "next", 1.0),
        (0, "sequence", 2**64 - 1),
        (0, "epoch", None),
        (0, "store", "no hex"),
        (0, "store", 5),
        (0, "format", 2),
        (1, "table", -1),
        (1, "size", "1"),
        (1, "crc", 2**63),
        (1, "sha256", 5),
        (2, "id", -1),
    ],
)
def test_a_manifest_that_makes_no_sense_is_corruption(
    line: int, field: str, value: object
) -> None:
    disk = manifest_with(lambda lines: lines[line].__setitem__(field, value))

    with pytest.raises(CorruptionError) as caught:
        blobkv.open("/db", fs=disk)
    assert caught.value.path == MANIFEST_NAME


@pytest.mark.parametrize("body", [b"", b"[1]\n", b'"text"\n', b"[" * 5000 + b"\n"])
def test_a_manifest_of_other_lines_is_corruption(body: bytes) -> None:
    disk = manifest_with(list)
    disk.set_contents("/db/MANIFEST", body + b'{"crc32": "%08x"}\n' % crc32(body))

    with pytest.raises(CorruptionError) as caught:
        blobkv.open("/db", fs=disk)
    assert caught.value.path == MANIFEST_NAME
