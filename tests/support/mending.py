"""Checksums made right again over bytes that were changed: as someone would who means harm.

Without this nearly every change is stopped by the first checksum, and what is behind it is
never reached. Each function mends what it can find its way in, and leaves the rest.
"""

from __future__ import annotations

from contextlib import suppress
from struct import error as StructError  # noqa: N812  # It is a class.
from struct import pack_into, unpack_from
from typing import NamedTuple
from zlib import crc32

from blobkv._engine import format as frames
from blobkv._engine import table_format as tables
from blobkv._engine.hash_index import page_count, page_slots, slot_count

_FOOTER_CRCS_AT = 80
_BLOCKS_MAX = 4096


class _Parts(NamedTuple):
    """What a footer says of where things are, believed as it stands."""

    blocks: int
    homes: int
    hash_offset: int
    index_offset: int
    ranges_offset: int

    @property
    def checksums_offset(self) -> int:
        return max(self.ranges_offset - 4 * self.blocks, self.index_offset)


def mended_manifest(body: bytes) -> bytes:
    """Return the manifest with these bytes before its last line."""
    if body and not body.endswith(b"\n"):
        body += b"\n"
    return body + b'{"crc32": "%08x"}\n' % crc32(body)


def mended_log(data: bytes, log_id: int) -> bytes:
    """Make the header's checksum right, and those of all frames that follow each other."""
    log = bytearray(data)
    if len(log) >= frames.LOG_HEADER_SIZE:
        pack_into("<I", log, 60, crc32(log[:60]))
    at = frames.LOG_HEADER_SIZE
    while at + frames.FRAME_SIZE <= len(log):
        (size,) = unpack_from("<I", log, at + 4)
        end = at + frames.FRAME_SIZE + size
        (magic,) = unpack_from("<H", log, at + frames.FRAME_MAGIC_OFFSET)
        if magic != frames.FRAME_MAGIC or end > len(log):
            break
        pack_into("<I", log, at, crc32(memoryview(log)[at + 4 : end], log_id))
        at = end
    return bytes(log)


def mended_table(data: bytes) -> bytes:
    """Make the checksums of all parts right, wherever the footer says that they are."""
    table = bytearray(data)
    footer_at = len(table) - tables.FOOTER_SIZE
    if footer_at < tables.TABLE_HEADER_SIZE:
        return data
    pack_into("<I", table, 60, crc32(table[:60]))
    pack_into("<Q", table, footer_at + 72, len(table))
    _, _, blocks, homes, *offsets = unpack_from("<7Q", table, footer_at + 16)
    parts = _Parts(blocks, homes, *offsets)
    blocks_crc = _mend_blocks(table, parts)
    _mend_block(table, parts.ranges_offset, footer_at)
    hash_crc = _mend_pages(table, parts)
    index_crc = crc32(table[parts.index_offset : parts.checksums_offset])
    pack_into("<III", table, footer_at + _FOOTER_CRCS_AT, hash_crc, index_crc, blocks_crc)
    pack_into("<I", table, len(table) - 4, crc32(table[footer_at:-4]))
    return bytes(table)


def _mend_blocks(table: bytearray, parts: _Parts) -> int:
    """Mend the blocks that the block index names, and those that follow each other."""
    with suppress(StructError, OverflowError):
        for i in range(min(parts.blocks, _BLOCKS_MAX)):
            (offset,) = unpack_from("<Q", table, parts.index_offset + 8 * i)
            _mend_block(table, offset, len(table))
    at, checksum_at = tables.TABLE_HEADER_SIZE, parts.checksums_offset
    while at < parts.hash_offset and (size := _mend_block(table, at, parts.hash_offset)):
        if checksum_at + 4 <= min(parts.ranges_offset, len(table)):
            table[checksum_at : checksum_at + 4] = table[at : at + 4]
        at, checksum_at = at + size, checksum_at + 4
    return crc32(table[parts.checksums_offset : parts.ranges_offset])


def _mend_block(table: bytearray, at: int, end: int) -> int:
    """Mend the block at `at`; return its size, or 0 if there is none."""
    end = min(end, len(table))
    if at + tables.BLOCK_HEADER_SIZE > end:
        return 0
    (size,) = unpack_from("<I", table, at + 4)
    if size < tables.BLOCK_HEADER_SIZE or at + size > end:
        return 0
    pack_into("<I", table, at, crc32(table[at + 4 : at + size], at & 0xFFFFFFFF))
    return int(size)


def _mend_pages(table: bytearray, parts: _Parts) -> int:
    """Mend the hash index's pages; return the checksum of their checksums."""
    slots, pages = slot_count(parts.homes), page_count(parts.homes)
    places_at = parts.hash_offset + slots
    crcs_at = places_at + 8 * slots
    if crcs_at + 4 * pages == parts.index_offset <= len(table):
        for page in range(pages):
            first, last = page_slots(page)
            last = min(last, slots)
            tags = table[parts.hash_offset + first : parts.hash_offset + last]
            places = table[places_at + 8 * first : places_at + 8 * last]
            pack_into("<I", table, crcs_at + 4 * page, crc32(places, crc32(tags)))
    return crc32(table[min(crcs_at, len(table)) : parts.index_offset])
