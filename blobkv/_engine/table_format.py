"""The bytes of a table as pure functions: bytes in, values out, no I/O.

A table is one immutable sorted file. All integers are little-endian, every checksum is
CRC-32, and nothing in it depends on a clock or on chance: equal entries make equal bytes.

    table = header, block*, hash index, block index, ranges, footer

    header (64 bytes): magic "blobkv", 0x00, "T"; u32 version; zeroes; u32 crc of the 60 before

    block, of about 4 KiB
    offset  size  field      meaning
    ------  ----  ---------  -----------------------------------------------------------
         0     4  crc        of everything after this field; seed: the block's file offset
         4     4  size       bytes in the block
         8     4  count      entries, 1 .. 4095
        12     -  bounds     u32[2 * count + 1], from the block's start: key i is at
                             bounds[2i] .. bounds[2i + 1], its value from there to
                             bounds[2i + 2]; the top bit of bounds[2i + 1] marks a tombstone
         -     -  key, value, key, value, ...

    hash index: u64[slots + PROBE_MAX + 1], open addressing without wrapping round. A slot is
    empty (zero) or the place of one entry:

        bits 48 .. 63  tag     low 16 bits of crc32(key)
        bits 36 .. 47  index   the entry's number in its block
        bits  0 .. 35  offset  where its block starts in the file

    The home of a key is crc32(key) * slots >> 32; it is in the first slot free from there,
    at most PROBE_MAX, 128, further. Keys made to collide would need more: then a table has no
    hash index (slots = 0) and is searched by its block index.

    block index: u64[count + 1] block offsets (the last: where blocks end), u64[count + 2]
    key bounds from the end of this array, then the first key of each block and the last key

    ranges: zero bytes, or a block whose keys are starts and whose values are stops of range
    tombstones, disjoint and ascending; a tombstone there means no bound

    footer (128 bytes)
    offset  size  field         meaning
    ------  ----  ------------  --------------------------------------------------------
         0     8  magic         "blobkv", 0x00, "F"
         8     4  version       1
        12     4  zero
        16     8  entries       tombstones included
        24     8  tombstones
        32     8  blocks
        40     8  slots         see the hash index
        48     8  hash_offset   where each part starts
        56     8  index_offset
        64     8  ranges_offset
        72     8  size          bytes in the file
        80     4  hash_crc      of each part
        84     4  index_crc
        88     4  blocks_crc    of the crcs of all blocks, 4 bytes each, in order
        92    32  zero
       124     4  crc           of the 124 bytes before

Invariants:

* A block is valid only as a whole: no entry of one whose checksum fails is served.
* Keys ascend strictly, within a block and from block to block.
* Every block but the last has at least 4096 bytes or 4095 entries.
* A key of the table is not covered by the table's own ranges unless it is newer: ranges
  hide what *older* tables hold, never an entry beside them.

Source: the footer follows LevelDB's table format; the tagged slots follow Swiss tables.
"""

from __future__ import annotations

import sys
from array import array
from itertools import pairwise
from operator import sub
from struct import Struct
from struct import pack as pack_struct
from struct import unpack_from as unpack_struct_from
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from blobkv._engine.format import CRC, FORMAT_VERSION, checked
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobkv._engine.fs import Mapped

_HEADER: Final = Struct("<8sI48x")
_HEADER_MAGIC: Final = b"blobkv\x00T"
TABLE_HEADER_SIZE: Final = _HEADER.size + CRC.size

_FOOTER: Final = Struct("<8sI4xQQQQQQQQIII32x")
_FOOTER_MAGIC: Final = b"blobkv\x00F"
FOOTER_SIZE: Final = _FOOTER.size + CRC.size

TAG_SHIFT: Final = 48
TAG_MASK: Final = 0xFFFF
INDEX_SHIFT: Final = 36
INDEX_MASK: Final = 0xFFF
OFFSET_MASK: Final = (1 << INDEX_SHIFT) - 1
PROBE_MAX: Final = 128

_U32_MAX: Final = 2**32 - 1

BLOCK_SIZE: Final = 4096
BLOCK_COUNT_MAX: Final = 4095

_BLOCK: Final = Struct("<III")
_BLOCK_TAIL: Final = Struct("<II")
BLOCK_HEADER_SIZE: Final = _BLOCK.size
BOUND: Final = Struct("<III")
TOMBSTONE_BIT: Final = 1 << 31

# The diagrams above are the specification; these tie the code to them.
assert TABLE_HEADER_SIZE == 64
assert FOOTER_SIZE == 128
assert BLOCK_HEADER_SIZE == 12
assert BLOCK_COUNT_MAX <= INDEX_MASK
assert PROBE_MAX == 128

# Blocks of entries of equal sizes share one layout, so its Struct is made once. Without
# this, making it costs more than the unpacking (180 against 38 ns an entry).
_LAYOUTS: Final[dict[bytes, tuple[Struct, tuple[int, ...]]]] = {}
_LAYOUTS_MAX: Final = 512


class Footer(NamedTuple):
    """What a table's last 128 bytes say; sizes and offsets in bytes."""

    entries: int
    tombstones: int
    blocks: int
    slots: int
    hash_offset: int
    index_offset: int
    ranges_offset: int
    size: int
    hash_crc: int
    index_crc: int
    blocks_crc: int


def encode_table_header() -> bytes:
    """Return the first 64 bytes of a table."""
    raw = _HEADER.pack(_HEADER_MAGIC, FORMAT_VERSION)
    return raw + CRC.pack(crc32(raw))


def check_table_header(data: bytes, path: str) -> None:
    """Verify a table's first bytes; CorruptionError if they are not a table's."""
    checked(data[:TABLE_HEADER_SIZE], TABLE_HEADER_SIZE, _HEADER_MAGIC, path, 0, "table header")


def encode_footer(footer: Footer) -> bytes:
    """Return the last 128 bytes of a table."""
    raw = _FOOTER.pack(_FOOTER_MAGIC, FORMAT_VERSION, *footer)
    return raw + CRC.pack(crc32(raw))


def footer_crc(data: bytes) -> int:
    """Return the checksum at a footer's end, which stands for the whole table."""
    return int(CRC.unpack_from(data, FOOTER_SIZE - CRC.size)[0])


def decode_footer(data: bytes, offset: int, path: str) -> Footer:
    """Read a table's footer, which stands at `offset`.

    Raises:
        CorruptionError: It is not one, or its parts are not in order within the file.
    """
    raw = checked(data, FOOTER_SIZE, _FOOTER_MAGIC, path, offset, "table footer")
    footer = Footer(*_FOOTER.unpack(raw)[2:])
    hash_size = 8 * (footer.slots + PROBE_MAX + 1) if footer.slots else 0
    starts = (TABLE_HEADER_SIZE, footer.hash_offset, footer.index_offset, footer.ranges_offset)
    if (
        footer.size != offset + FOOTER_SIZE
        or list(starts) != sorted(starts)
        or footer.ranges_offset > offset
        or footer.index_offset - footer.hash_offset != hash_size
    ):
        raise CorruptionError(path, offset, f"table footer makes no sense: {footer}")
    return footer


def encode_block(keys: Sequence[bytes], values: Sequence[bytes | None], offset: int) -> bytes:
    """Return a block that will stand at `offset` of its file."""
    count = len(keys)
    at = BLOCK_HEADER_SIZE + 4 * (2 * count + 1)
    bounds = []
    parts: list[bytes] = []
    for key, value in zip(keys, values, strict=True):
        bounds.append(at)
        at += len(key)
        parts.append(key)
        if value is None:
            bounds.append(at | TOMBSTONE_BIT)
        else:
            bounds.append(at)
            at += len(value)
            parts.append(value)
    bounds.append(at)
    assert at < TOMBSTONE_BIT
    rest = b"".join(
        (_BLOCK_TAIL.pack(at, count), pack_struct(f"<{2 * count + 1}I", *bounds), *parts)
    )
    return CRC.pack(crc32(rest, offset & _U32_MAX)) + rest


def check_block(data: Mapped, offset: int, path: str) -> int:
    """Verify the block at `offset` of a table, whose whole file is `data`.

    Returns:
        Its size in bytes.

    Raises:
        CorruptionError: The checksum does not match, or what it covers makes no sense.
    """
    header = data[offset : offset + BLOCK_HEADER_SIZE].ljust(BLOCK_HEADER_SIZE, b"\x00")
    crc, size, count = _BLOCK.unpack(header)
    block = data[offset : offset + size]
    found = crc32(block[4:], offset & _U32_MAX)
    if found != crc:
        reason = f"block checksum is {found:#010x}, expected {crc:#010x}"
        raise CorruptionError(path, offset, reason)
    first = BLOCK_HEADER_SIZE + 4 * (2 * count + 1)
    if len(block) != size or first > size:
        raise CorruptionError(path, offset, f"block of {size} bytes is cut short")
    bounds = [bound & ~TOMBSTONE_BIT for bound in _bounds(block, count)]
    if bounds[0] != first or bounds[-1] != size or bounds != sorted(bounds):
        raise CorruptionError(path, offset, "block's bounds point outside it")
    return int(size)


def decode_block(
    data: Mapped | bytes, at: int
) -> tuple[Sequence[bytes], Sequence[bytes | None]]:
    """Return keys and values of a verified block; a tombstone's value is None.

    Cost: one dict lookup and one C call where the sizes of its entries were seen before.
    """
    count = CRC.unpack_from(data, at + 8)[0]
    bounds_at = at + BLOCK_HEADER_SIZE
    entries_at = bounds_at + 4 * (2 * count + 1)
    raw = data[bounds_at:entries_at]
    layout = _LAYOUTS.get(raw)
    if layout is None:
        layout = _layout(raw, count)
    struct, tombstones = layout
    fields = struct.unpack_from(data, entries_at)
    if not tombstones:
        return fields[::2], fields[1::2]
    values: list[bytes | None] = list(fields[1::2])
    for i in tombstones:
        values[i] = None
    return fields[::2], values


def _bounds(block: bytes, count: int) -> tuple[int, ...]:
    return unpack_struct_from(f"<{2 * count + 1}I", block, BLOCK_HEADER_SIZE)


def _layout(raw: bytes, count: int) -> tuple[Struct, tuple[int, ...]]:
    bounds = list(unpack_struct_from(f"<{2 * count + 1}I", raw))
    tombstones = tuple(i for i in range(count) if bounds[2 * i + 1] & TOMBSTONE_BIT)
    for i in tombstones:
        bounds[2 * i + 1] &= ~TOMBSTONE_BIT
    sizes = tuple(map(sub, bounds[1:], bounds))
    if len(_LAYOUTS) >= _LAYOUTS_MAX:
        _LAYOUTS.clear()
    layout = _LAYOUTS[raw] = (Struct("%ds" * (2 * count) % sizes), tombstones)
    return layout


def encode_hash_index(hashes: array[int], places: array[int]) -> tuple[int, bytes]:
    """Return the number of home slots and the slots themselves.

    Args:
        hashes: crc32 of each key.
        places: Each entry's index and block offset, as in a slot without its tag.

    Returns:
        `(0, b"")` if some key would stand more than PROBE_MAX slots from its home.

    Cost: O(entries), 8 bytes a slot, two slots an entry, so that a hit reads 1.5 slots and a
    miss 2.5 on average.
    """
    slots = 2 * len(hashes)
    if not slots:
        return 0, b""
    table = array("Q", bytes(8 * (slots + PROBE_MAX + 1)))
    for crc, place in zip(hashes, places, strict=True):
        home = at = crc * slots >> 32
        while table[at]:
            at += 1
            if at - home > PROBE_MAX:
                return 0, b""
        table[at] = (crc & TAG_MASK) << TAG_SHIFT | place
    return slots, little_endian(table)


def encode_index(offsets: Sequence[int], keys: Sequence[bytes]) -> bytes:
    """Return the block index: `offsets` has one more than the blocks, as has `keys`."""
    assert len(offsets) == len(keys)
    bounds = [0]
    for key in keys:
        bounds.append(bounds[-1] + len(key))
    numbers = array("Q", [*offsets, *bounds])
    return b"".join((little_endian(numbers), *keys))


def decode_index(
    data: bytes, blocks: int, path: str, offset: int
) -> tuple[list[int], list[bytes]]:
    """Return block offsets (one more than blocks) and keys (firsts, then the last).

    Raises:
        CorruptionError: The numbers point outside.
    """
    count = 2 * blocks + 3
    if len(data) < 8 * count:
        raise CorruptionError(path, offset, f"block index of {blocks} blocks is cut short")
    numbers = unpack_struct_from(f"<{count}Q", data)
    keys_at = 8 * count
    bounds = numbers[blocks + 1 :]
    if list(bounds) != sorted(bounds) or keys_at + bounds[-1] != len(data):
        raise CorruptionError(path, offset, "block index points outside itself")
    keys = [data[keys_at + start : keys_at + stop] for start, stop in pairwise(bounds)]
    return list(numbers[: blocks + 1]), keys


def numbers_in_place(raw: memoryview) -> memoryview | array[int]:
    """Return the u64 numbers that `raw` holds, without a copy where the machine allows."""
    if sys.byteorder == "little":
        return raw.cast("Q")
    numbers = array("Q", raw)
    numbers.byteswap()
    return numbers


def little_endian(numbers: array[int]) -> bytes:
    """Return the numbers' bytes as every table spells them."""
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()
