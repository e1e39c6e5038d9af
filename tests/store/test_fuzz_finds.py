"""Bytes that once went wrong go right: typed errors, and no more room or time than they merit.

Method: a file is changed as whoever means harm would, its checksums are made right, and what
went wrong then is done again. Each test is a find of the fuzz targets, or of writing them.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from struct import pack, pack_into
from types import SimpleNamespace
from typing import Any, cast
from zlib import crc32

import pytest
from support.fuzz_stores import name_table
from support.mending import mended_table

import blobkv
from blobkv import Store
from blobkv._engine import merge, table_format
from blobkv._engine.format import (
    FRAME_MAGIC,
    LogHeader,
    decode_frame,
    encode_frame,
    encode_log_header,
)
from blobkv._engine.hash_index import slot_count
from blobkv._engine.log import LogFile, LogReader
from blobkv._engine.manifest import Manifest
from blobkv._engine.survey import Survey
from blobkv.errors import CorruptionError
from blobkv.testing import SimulatedDisk

Change = Callable[[bytearray, table_format.Footer], None]
ROOT = "/db"
NAMES = (b"a name longer than some keys",)


def damaged(change: Change, *, tables: int = 1) -> SimulatedDisk:
    """A store of some tables over each other, the newest of which was changed and mended."""
    disk = SimulatedDisk()
    with blobkv.open(ROOT, fs=disk) as store:
        for i in range(tables):
            with store.update() as txn:
                txn.bucket(*NAMES).update({b"%03d" % key: b"v" * 50 for key in range(i, 300)})
            store._freeze().maintenance.flush()
    change_newest(disk, change)
    return disk


def change_newest(disk: SimulatedDisk, change: Change) -> None:
    """Change the newest table, mend it, and have the manifest name it so."""
    name = Manifest.read(disk, ROOT).tables[0].name
    data = bytearray(disk.contents(f"{ROOT}/{name}"))
    footer_at = len(data) - table_format.FOOTER_SIZE
    change(data, table_format.decode_footer(bytes(data[footer_at:]), footer_at, name))
    disk.set_contents(f"{ROOT}/{name}", mended_table(bytes(data)))
    name_table(disk, name)


def offsets(data: bytearray, footer: table_format.Footer) -> list[int]:
    assert footer.blocks > 3
    index = memoryview(data)[footer.index_offset : footer.ranges_offset]
    return index[: 8 * footer.blocks + 8].cast("Q").tolist()


def opened(disk: SimulatedDisk) -> Store:
    return blobkv.open(ROOT, fs=disk, create=False)


def check_reported(store: Store) -> None:
    problems = store.verify().problems
    assert problems
    assert all(problem.path.endswith(".tbl") for problem in problems)


# Block indexes.


def second_block_at(offset: int) -> Change:
    def change(data: bytearray, footer: table_format.Footer) -> None:
        pack_into("<Q", data, footer.index_offset + 8, offset)

    return change


def separator_bounds(*bounds: int) -> Change:
    def change(data: bytearray, footer: table_format.Footer) -> None:
        at = footer.index_offset + 8 * (footer.blocks + 1)
        pack_into(f"<{len(bounds)}Q", data, at, *bounds)

    return change


@pytest.mark.parametrize("offset", [0, 65, 2**16, 2**40, 2**63, 2**64 - 1])
def test_a_block_index_that_points_outside_is_corruption_wherever_it_is_read(
    offset: int, tmp_path: Path
) -> None:
    disk = damaged(second_block_at(offset), tables=2)
    # On the real file system, which has its own idea of where in a file nothing can be.
    for name in disk.names(ROOT):
        (tmp_path / name).write_bytes(disk.contents(f"{ROOT}/{name}"))
    with blobkv.open(tmp_path) as store:
        with store.view() as txn:
            # In the first block, in the second, and behind it.
            assert txn.bucket(*NAMES)[b"290"] == b"v" * 50
            for start in (b"010", b"060", b"100"):
                for reverse in (False, True):
                    entries = txn.bucket(*NAMES).items(start=start, reverse=reverse)
                    with suppress(CorruptionError):
                        list(entries)
            with pytest.raises(CorruptionError):
                list(txn.bucket(*NAMES).items(start=b"060", stop=b"070"))
        check_reported(store)
        # How much is garbage is estimated from blocks here and there.
        store.flush()
        with pytest.raises(CorruptionError):
            store.compact()


@pytest.mark.parametrize(
    "bounds", [(5, 9), (0, 0, 2**64 - 1), (0, 0, 60, 0, 60), (0, 2**60), (2**63, 0)]
)
def test_separators_that_overlap_are_corruption(
    bounds: tuple[int, ...],
) -> None:
    """Those that all span the file would take its size in memory once each."""
    with opened(damaged(separator_bounds(*bounds))) as store:
        with store.view() as txn, pytest.raises(CorruptionError):
            list(txn.bucket(*NAMES).items(start=b"200"))
        check_reported(store)


# Blocks.


def keys_reversed(data: bytearray, footer: table_format.Footer) -> None:
    """Put the keys of the second block in descending order."""
    at = offsets(data, footer)[1]
    size = table_format.block_size(memoryview(data), at)
    keys, values = table_format.decode_block(bytes(data), at)
    bounds = table_format.block_bounds(*map(table_format.sizes_of, (keys, values)))
    block = b"".join(table_format.encode_block(keys[::-1], values[::-1], bounds, at))
    assert len(block) == size
    data[at : at + size] = block


def keys_shortened(data: bytearray, footer: table_format.Footer) -> None:
    """Move bytes of the keys of the second block to their values."""
    at = offsets(data, footer)[1]
    keys, values = table_format.decode_block(bytes(data), at)
    both = [len(key + (value or b"")) for key, value in zip(keys, values, strict=True)]
    sizes = [2] * len(keys), [size - 2 for size in both]
    bounds = table_format.block_bounds(*sizes)
    pack_into(f"<{len(bounds)}I", data, at + table_format.BLOCK_HEADER_SIZE, *bounds)


@pytest.mark.parametrize("tables", [1, 2, 3])
def test_keys_out_of_order_end_a_merge_instead_of_keeping_it_for_ever(tables: int) -> None:
    disk = damaged(keys_reversed, tables=tables)
    with opened(disk) as store:
        with pytest.raises(CorruptionError, match="not in order"):
            store._source.maintenance._merge(slice(0, tables), 1 << 20, cut=True)
        check_reported(store)


@pytest.mark.parametrize("reverse", [False, True])
def test_keys_out_of_order_end_a_scan(*, reverse: bool) -> None:
    disordered = [b"5", b"9", b"1"], [b"", b"", b""]
    sources: list[Any] = [
        iter([disordered, ([b"7"], [b""])]),
        iter([([b"6"], [b""]), ([b"8"], [b""])]),
    ]

    found = [key for keys, _ in merge._merge(sources, reverse=reverse) for key in keys]
    assert sorted(found) == [b"1", b"5", b"6", b"7", b"8", b"9"]


def test_a_key_shorter_than_its_buckets_name_is_corruption() -> None:
    with opened(damaged(keys_shortened)) as store:
        with store.view() as txn, pytest.raises(CorruptionError, match="shorter than"):
            list(txn.bucket(*NAMES).items())
        check_reported(store)


# Hash indexes and range tombstones.


def no_slot_empty(data: bytearray, footer: table_format.Footer) -> None:
    slots = slot_count(footer.homes)
    data[footer.hash_offset : footer.hash_offset + slots] = b"\x01" * slots


def test_a_hash_index_without_an_empty_slot_is_reported_before_it_is_searched() -> None:
    """Each key would be looked for in all of its slots."""
    with opened(damaged(no_slot_empty)) as store:
        (problem,) = store.verify().problems
        with store.view() as txn:
            assert txn.bucket(*NAMES)[b"299"] == b"v" * 50

    assert "slots of the hash index in a row are full" in problem.reason


def ranges_reversed(data: bytearray, footer: table_format.Footer) -> None:
    at = footer.ranges_offset
    starts, stops = table_format.decode_block(bytes(data), at)
    assert len(starts) > 1
    bounds = table_format.block_bounds(*map(table_format.sizes_of, (starts, stops)))
    parts = table_format.encode_block(starts[::-1], stops[::-1], bounds, at)
    data[at : footer.size - table_format.FOOTER_SIZE] = b"".join(parts)


def cleared() -> SimulatedDisk:
    """A store whose newest table has range tombstones, and an entry behind them."""
    disk = SimulatedDisk()
    with blobkv.open(ROOT, fs=disk) as store:
        for i in range(3):
            with store.update() as txn:
                txn.update({b"%d %03d" % (i, key): b"v" for key in range(100)})
        store.flush()
        with store.update() as txn:
            assert [txn.clear(b"%d" % i) for i in (0, 2)] == [100, 100]
            txn.put(b"2 050", b"new")
        store._freeze().maintenance.flush()
    return disk


def test_range_tombstones_out_of_order_are_corruption() -> None:
    """To put each before all others takes time in the square of their number."""
    disk = cleared()
    change_newest(disk, ranges_reversed)

    with pytest.raises(CorruptionError, match="not in order"):
        opened(disk)
    assert blobkv.salvage(ROOT, "/new", fs=disk).problems


def test_range_tombstones_are_not_salvaged_as_entries() -> None:
    """They are a block like others, and without a footer nobody knows where blocks end."""
    disk = cleared()
    path = f"{ROOT}/{Manifest.read(disk, ROOT).tables[0].name}"
    data = bytearray(disk.contents(path))
    for at in (table_format.TABLE_HEADER_SIZE, -1):
        data[at] ^= 1
    disk.set_contents(path, bytes(data))
    found = blobkv.salvage(ROOT, "/new", doubtful="/doubtful", fs=disk)

    assert (found.entries, found.doubtful) == (0, 300)
    with blobkv.open("/doubtful", fs=disk) as store, store.view() as txn:
        assert set(txn.values()) == {b"v"}


# What `verify` and `salvage` read.


class Noting:
    """A file that notes how much was asked for at once."""

    def __init__(self, data: bytes) -> None:
        self.size = len(data)
        self.largest = 0
        self._data = data

    def read(self, offset: int, size: int) -> bytes:
        assert size >= 0
        self.largest = max(self.largest, size)
        return self._data[offset : offset + size]

    def sync(self) -> None:
        """Nothing to do."""

    def close(self) -> None:
        """Nothing to do."""


def blocks_claimed(data: bytearray, footer: table_format.Footer) -> None:
    # So that what there is of the block index is no whole number of places.
    assert (footer.ranges_offset - footer.index_offset) % 8
    blocks = (footer.ranges_offset - footer.index_offset) // 4
    pack_into("<Q", data, footer.size - table_format.FOOTER_SIZE + 32, blocks)


def test_a_footer_that_claims_more_blocks_than_bytes_is_reported() -> None:
    disk = damaged(blocks_claimed)
    with opened(disk) as store:
        check_reported(store)
    found = blobkv.salvage(ROOT, "/new", fs=disk)

    assert found.problems


def test_blocks_said_to_overlap_are_not_read_again_and_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A block index may name a place for each 16 of its bytes, and each may claim the file."""
    count = 3000
    size = table_format.TABLE_HEADER_SIZE + 64 * count
    blocks = b"".join(pack("<IIII", 0, size // 2, 1, 0) * 4 for _ in range(count))
    places = range(table_format.TABLE_HEADER_SIZE, size + 1, 16)
    index = pack(f"<{len(places)}Q", *places) + bytes(8 * len(places))
    parts = [table_format.encode_table_header(), blocks, index]
    footer = table_format.Footer(
        entries=0,
        tombstones=0,
        blocks=len(places) - 1,
        homes=0,
        hash_offset=size,
        index_offset=size,
        ranges_offset=size + len(index),
        size=size + len(index) + table_format.FOOTER_SIZE,
        hash_crc=0,
        index_crc=0,
        blocks_crc=0,
    )
    data = b"".join([*parts, table_format.encode_footer(footer)])
    checked: list[int] = []

    def counting(data: bytes, start: int = 0) -> int:
        checked.append(len(data))
        return crc32(data, start)

    monkeypatch.setattr(table_format, "crc32", counting)
    survey = Survey(Noting(mended_table(data)), "000001.tbl", None)

    assert survey.problems
    assert sum(checked) < 64 * len(data)


# Logs.


def test_a_frame_that_claims_4_gib_is_not_asked_for() -> None:
    file = LogFile(7, 5)
    claim = pack("<IIQQIBxH", 0, 2**32 - 1, 1, 64, 1, 1, FRAME_MAGIC)
    promise = encode_frame(1, {b"k": b"v"}, log_id=5, synced=64 + len(claim))
    log = Noting(encode_log_header(LogHeader(5, b"i" * 16, 7, 0)) + claim + promise)
    fs = cast("Any", SimpleNamespace(open=lambda _: log))
    reader = LogReader(fs, ROOT, file, b"i" * 16)

    assert list(reader.frames()) == []
    with pytest.raises(CorruptionError, match="no valid frame"):
        reader.check_end()
    assert log.largest <= 2 << 20


def test_a_range_tombstone_behind_another_entry_makes_no_frame() -> None:
    frame = bytes(encode_frame(1, {b"k": b"v"}, [(b"a", b"b")], log_id=5, synced=64))
    assert decode_frame(frame, 0, 5) is not None
    body = pack("<6I", 1, 1, 1, 1, 0xFFFFFFFE, 0xFFFFFFFE) + b"kabv"
    head = pack("<IQQIBxH", len(body), 1, 64, 3, 1, FRAME_MAGIC)
    moved = pack("<I", crc32(head + body, 5)) + head + body
    assert len(moved) == len(frame)
    assert decode_frame(moved, 0, 5) is None
