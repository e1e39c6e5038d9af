"""A table's checks reach every byte that a read can meet, and no key is taken for another.

Method: tables are made so that what is damaged lies where a check is most easily too short: in
the second block of a page, in slots behind a page's homes, in a key that is the start of
another. `verify` and a merge are asked about tables that lie though every checksum is right.
"""

from __future__ import annotations

from contextlib import closing
from dataclasses import replace
from itertools import count, pairwise
from zlib import crc32

import pytest

import blobkv
from blobkv._engine import table_format as layout
from blobkv._engine.hash_index import PAGE_SHIFT, PROBE_MAX
from blobkv._engine.manifest import Manifest
from blobkv._engine.ranges import Ranges
from blobkv._engine.sequential import BlockReader, SequentialTable
from blobkv._engine.table import VERIFIED_SHIFT, Table, TableFile
from blobkv._engine.table_writer import TableWriter
from blobkv._engine.tables import Tables
from blobkv.errors import CorruptionError
from blobkv.testing import SimulatedDisk

Entries = dict[bytes, bytes]


def built(entries: Entries) -> tuple[TableFile, bytes]:
    """A table of the entries: what the manifest says of it, and its bytes."""
    disk = SimulatedDisk()
    file = disk.create("/000001.tbl")
    writer = TableWriter(file, 1)
    writer.add(sorted(entries), [entries[key] for key in sorted(entries)])
    named = writer.finish(Ranges())
    file.close()
    return named, disk.contents("/000001.tbl")


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def test_a_damaged_block_is_not_served_though_its_neighbor_in_the_page_was_read() -> None:
    entries = {b"%04d" % i: b"v" * 100 for i in range(400)}
    file, data = built(entries)
    sound = Table(data, file)
    offsets = sound.block_index.offsets
    pages = {offset >> VERIFIED_SHIFT for offset in offsets[1:-1] if offset % 4096}
    assert len(pages) > 5, "blocks share pages"
    blocks = [sound._block(i, 0)[0] for i in range(sound.block_index.count)]

    for i, keys in enumerate(blocks):
        # The last byte of the block, in its last value.
        damaged = Table(flipped(data, offsets[i + 1] - 1), file)
        get = Tables([damaged]).get
        for key in (key for block in (*blocks[:i], *blocks[i + 1 :]) for key in block):
            try:
                assert get(key) == entries[key]
            except CorruptionError:
                # It shares a page with the damage.
                continue
        for key in keys:
            with pytest.raises(CorruptionError):
                get(key)


def test_any_flipped_byte_of_the_block_index_or_the_checksums_is_corruption() -> None:
    file, data = built({b"%04d" % i: b"v" * 100 for i in range(400)})
    footer = Table(data, file).footer

    for at in range(footer.index_offset, footer.ranges_offset):
        damaged = Table(flipped(data, at), file)
        part = "block index" if at < footer.checksums_offset else "checksums have"
        with pytest.raises(CorruptionError, match=f"{part} checksum"):
            next(damaged.chunks(b"", None))


def test_a_block_of_another_table_is_not_served_though_its_checksum_is_right() -> None:
    keys = [b"%04d" % i for i in range(400)]
    file, data = built(dict.fromkeys(keys, b"true" * 25))
    _, other = built(dict.fromkeys(keys, b"past" * 25))
    sound = Table(data, file)
    offsets = sound.block_index.offsets
    disk = SimulatedDisk()
    disk.create("/000001.tbl").close()

    for i, (start, stop) in enumerate(pairwise(offsets)):
        mixed = data[:start] + other[start:stop] + data[stop:]
        layout.check_block(memoryview(mixed), start, file.name)
        disk.set_contents("/000001.tbl", mixed)
        table = Table(mixed, file)
        for key in sound._block(i, 0)[0]:
            with pytest.raises(CorruptionError, match="another block"):
                Tables([table]).get(key)
            with pytest.raises(CorruptionError, match="another block"):
                table.get(key)
        with (
            closing(BlockReader(disk, "", table)) as reader,
            pytest.raises(CorruptionError, match="another block"),
        ):
            reader.block(i)
        with pytest.raises(CorruptionError, match="counted"):
            list(SequentialTable(disk, "", file, lambda: None).chunks(b"", None))


@pytest.mark.parametrize("slot", [0, 1, PROBE_MAX - 1, PROBE_MAX])
def test_the_checksum_of_a_page_covers_the_slots_behind_its_homes(slot: int) -> None:
    file, data = built({b"%d" % i: b"" for i in range(5000)})
    sound = Table(data, file)
    sound.hash_index.verify_page(0)
    at = (1 << PAGE_SHIFT) + slot
    tags_at = sound.footer.hash_offset
    places_at = tags_at + len(sound.hash_index.tags)

    for damaged in (flipped(data, tags_at + at), flipped(data, places_at + 8 * at)):
        with pytest.raises(CorruptionError, match="hash index checksum"):
            Table(damaged, file).hash_index.verify_page(0)


def test_a_key_is_not_taken_for_one_that_it_is_the_start_of() -> None:
    """Both have the same tag and the same home, so that only the size tells them apart."""
    short = b"key"

    def mark(key: bytes) -> tuple[int, int]:
        return crc32(key) & 0xFF, crc32(key) >> 31

    long = next(key for key in (b"key%d" % i for i in count()) if mark(key) == mark(short))
    file, data = built({long: b"value"})
    get = Tables([Table(data, file)]).get

    assert (get(long), get(short)) == (b"value", None)


# Lies with good checksums.


def store_of_one_table() -> tuple[SimulatedDisk, Manifest]:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update({b"%03d" % i: b"v" * 50 for i in range(300)})
        store.flush()
    return disk, Manifest.read(disk, "/db")


def relabelled(disk: SimulatedDisk, manifest: Manifest, file: TableFile) -> TableFile:
    """Have the manifest say this of its only table."""
    disk.set_contents("/db/MANIFEST", replace(manifest, tables=(file,)).encode())
    return file


def test_verify_compares_the_digest_of_a_table() -> None:
    disk, manifest = store_of_one_table()
    relabelled(disk, manifest, manifest.tables[0]._replace(sha256="0" * 64))

    with blobkv.open("/db", fs=disk) as store:
        (problem,) = store.verify().problems
    assert "sha256 is " in problem.reason


@pytest.mark.parametrize("field", ["entries", "blocks", "blocks_crc"])
def test_a_merge_does_not_end_well_with_other_entries_than_the_footer_says(field: str) -> None:
    disk, manifest = store_of_one_table()
    (file,) = manifest.tables
    data = disk.contents(f"/db/{file.name}")
    at = len(data) - layout.FOOTER_SIZE
    footer = layout.decode_footer(data[at:], at, file.name)
    raw = layout.encode_footer(footer._replace(**{field: getattr(footer, field) + 1}))
    disk.set_contents(f"/db/{file.name}", data[:at] + raw)
    file = relabelled(disk, manifest, file._replace(crc=layout.footer_crc(raw)))

    table = SequentialTable(disk, "/db", file, lambda: None)
    with pytest.raises(CorruptionError, match="counted"):
        list(table.chunks(b"", None))
