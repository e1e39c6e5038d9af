"""The bytes of a table as pure functions: bytes in, values out, no I/O.

A table is one immutable sorted file. All integers are little-endian, every checksum is
CRC-32, and nothing in it depends on a clock or on chance: equal entries make equal bytes.

    table = header, block*, hash index, block index, checksums, ranges, footer

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

    checksums: u32[blocks], the crc of each block again, in order

    ranges: zero bytes, or a block whose keys are starts and whose values are stops of range
    tombstones, disjoint and ascending; a tombstone there means no bound

The hash index is specified in `hash_index.py`, the block index in `block_index.py`.

    footer (128 bytes)
    offset  size  field         meaning
    ------  ----  ------------  --------------------------------------------------------
         0     8  magic         "blobkv", 0x00, "F"
         8     4  version       1
        12     4  zero
        16     8  entries       tombstones included
        24     8  tombstones
        32     8  blocks
        40     8  homes         see the hash index
        48     8  hash_offset   where each part starts
        56     8  index_offset
        64     8  ranges_offset
        72     8  size          bytes in the file
        80     4  hash_crc      of the checksums of the hash index's pages
        84     4  index_crc     of the block index
        88     4  blocks_crc    of the checksums
        92    32  zero
       124     4  crc           of the 124 bytes before

Invariants:

* A block is valid only as a whole: no entry of one whose checksum fails is served.
* Checksums form a chain from the manifest to every block: it has the footer's, the footer
  those of the parts, and `checksums` each block's. So a block that was right once, or is so
  in another table, is not taken for the one that belongs there.
* Keys ascend strictly, within a block and from block to block.
* Every block but the last has at least 4096 bytes of keys and values or 4095 entries, so at
  most one block starts in any 4096 bytes of the file.
* A key of the table is not covered by the table's own ranges unless it is newer: ranges
  hide what *older* tables hold, never an entry beside them.

Source: the footer follows LevelDB's table format; a checksum beside the pointer to a block
and not only in it is ZFS's.
"""

from __future__ import annotations

import sys
from array import array
from itertools import accumulate, chain
from operator import lt, sub
from struct import Struct
from struct import error as StructError  # noqa: N812  # It is a class.
from struct import pack as pack_struct
from struct import unpack_from as unpack_struct_from
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from blobkv._engine.format import CRC, FORMAT_VERSION, checked
from blobkv._engine.ranges import Ranges
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blobkv._engine.files import Mapped

_HEADER: Final = Struct("<8sI48x")
_HEADER_MAGIC: Final = b"blobkv\x00T"
TABLE_HEADER_SIZE: Final = _HEADER.size + CRC.size

_FOOTER: Final = Struct("<8sI4xQQQQQQQQIII32x")
_FOOTER_MAGIC: Final = b"blobkv\x00F"
FOOTER_SIZE: Final = _FOOTER.size + CRC.size

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

# Blocks of entries of equal sizes share one layout, so its Struct is made once. Without
# this, making it costs more than the unpacking (180 against 38 ns an entry).
_Layout = tuple[Struct, tuple[int, ...], int]
_LAYOUTS: Final[dict[tuple[int, bytes], _Layout]] = {}
_LAYOUTS_MAX: Final = 512


class Footer(NamedTuple):
    """What a table's last 128 bytes say; sizes and offsets in bytes."""

    entries: int
    tombstones: int
    blocks: int
    homes: int
    hash_offset: int
    index_offset: int
    ranges_offset: int
    size: int
    hash_crc: int
    index_crc: int
    blocks_crc: int

    @property
    def checksums_offset(self) -> int:
        """Where the block index ends and the checksums of the blocks start."""
        return self.ranges_offset - 4 * self.blocks


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
    starts = [
        TABLE_HEADER_SIZE,
        footer.hash_offset,
        footer.index_offset,
        footer.checksums_offset,
        footer.ranges_offset,
        offset,
    ]
    if footer.size != offset + FOOTER_SIZE or starts != sorted(starts):
        raise CorruptionError(path, offset, f"table footer makes no sense: {footer}")
    return footer


def block_bounds(key_sizes: Iterable[int], value_sizes: Iterable[int]) -> list[int]:
    """Return where each key, each value, and the end are in a block, without marks."""
    sizes = list(chain.from_iterable(zip(key_sizes, value_sizes, strict=True)))
    return list(accumulate(sizes, initial=BLOCK_HEADER_SIZE + 4 * (len(sizes) + 1)))


def encode_block(
    keys: Sequence[bytes], values: Sequence[bytes | None], bounds: list[int], offset: int
) -> tuple[bytes, bytes]:
    """Return a block in two parts, to be written one after the other.

    Args:
        keys: In key order.
        values: None for a tombstone.
        bounds: What `block_bounds` says of them.
        offset: Where it will stand in its file.

    Returns:
        What comes before its keys and values, and those, which may be large.
    """
    end = bounds[-1]
    assert end < TOMBSTONE_BIT
    if None in values:
        bounds = bounds.copy()
        for i, value in enumerate(values):
            if value is None:
                bounds[2 * i + 1] |= TOMBSTONE_BIT
    entries = chain.from_iterable(zip(keys, _filled(values), strict=True))
    body = b"".join(entries)
    head = _BLOCK_TAIL.pack(end, len(keys)) + pack_struct(f"<{len(bounds)}I", *bounds)
    crc = crc32(body, crc32(head, offset & _U32_MAX))
    return CRC.pack(crc) + head, body


def sizes_of(parts: Sequence[bytes | None]) -> list[int]:
    """Return the size of each key or value, 0 for a tombstone's."""
    return list(map(len, _filled(parts)))


def _filled(parts: Sequence[bytes | None]) -> Sequence[bytes]:
    if None in parts:
        return [part or b"" for part in parts]
    return parts  # type: ignore[return-value]  # mypy cannot see that it has no None.


def block_crc(data: Mapped | bytes | memoryview, at: int) -> int:
    """Return the checksum that the block at `at` says it has."""
    return int(CRC.unpack_from(data, at)[0])


def block_size(data: memoryview, at: int) -> int:
    """Return how long the block at `at` says it is, before it is verified."""
    return int(CRC.unpack_from(data, at + CRC.size)[0])


def check_block(data: memoryview, offset: int, path: str, start: int = 0) -> int:
    """Verify the block at `offset` of a table, whose file `data` holds from `start` on.

    Returns:
        Its size in bytes.

    Raises:
        CorruptionError: The checksum does not match, or the file ends before the block.

    Cost: one pass over the block, without a copy.
    """
    at = offset - start
    try:
        crc, size, count = _BLOCK.unpack_from(data, at)
    except StructError as cause:
        raise CorruptionError(path, offset, "the file ends before this block") from cause
    found = crc32(data[at + CRC.size : at + size], offset & _U32_MAX)
    if found != crc:
        reason = f"block checksum is {found:#010x}, expected {crc:#010x}"
        raise CorruptionError(path, offset, reason)
    if at + size > len(data) or BLOCK_HEADER_SIZE + 4 * (2 * count + 1) > size:
        raise CorruptionError(path, offset, f"block of {size} bytes is cut short")
    return int(size)


def decode_block(
    data: Mapped | bytes, at: int, skip: int = 0
) -> tuple[Sequence[bytes], Sequence[bytes | None]]:
    """Return keys and values of a verified block; a tombstone's value is None.

    Args:
        data: What holds the block.
        at: Where it starts there.
        skip: How many bytes to leave out at the start of each key; none is shorter.

    Raises:
        ValueError: Its bounds point outside it.

    Cost: one dict lookup and one C call where the sizes of its entries were seen before.
    """
    size, count = _BLOCK_TAIL.unpack_from(data, at + 4)
    bounds_at = at + BLOCK_HEADER_SIZE
    entries_at = bounds_at + 4 * (2 * count + 1)
    bounds = skip, data[bounds_at:entries_at]
    layout = _LAYOUTS.get(bounds)
    if layout is None:
        layout = _layout(*bounds, count)
    struct, tombstones, end = layout
    if end != size:
        raise ValueError(f"block's entries end at {end}, it has {size} bytes")
    fields = struct.unpack_from(data, entries_at)
    if not tombstones:
        return fields[::2], fields[1::2]
    values: list[bytes | None] = list(fields[1::2])
    for i in tombstones:
        values[i] = None
    return fields[::2], values


def read_block(
    data: Mapped | bytes, offset: int, path: str, start: int = 0
) -> tuple[Sequence[bytes], Sequence[bytes | None]]:
    """Return keys and values of the block at `offset` of a table, verified.

    Args:
        data: The table from `start` on.
        offset: Where the block starts in the file.
        path: The file's name, for errors.
        start: Where `data` starts in the file.

    Raises:
        CorruptionError: It is not what was written.
    """
    check_block(memoryview(data), offset, path, start)
    try:
        return decode_block(data, offset - start)
    except ValueError as cause:
        raise CorruptionError(path, offset, str(cause)) from cause


def read_ranges(data: Mapped | bytes, offset: int, path: str, start: int = 0) -> Ranges:
    """Return the range tombstones of a table, whose block is at `offset`; as `read_block`.

    Raises:
        CorruptionError: They are not what was written, or not in order.
    """
    starts, stops = read_block(data, offset, path, start)
    if not all(map(lt, starts, starts[1:])):
        raise CorruptionError(path, offset, "range tombstones are not in order")
    return Ranges(zip(starts, stops, strict=True))


def entry_count(data: Mapped | bytes, at: int) -> int:
    """Return how many entries the verified block at `at` has."""
    return int(CRC.unpack_from(data, at + 8)[0])


def find_entry(data: Mapped | bytes, at: int, start: int) -> tuple[int, int | None]:
    """Return where the key at file offset `start` of the verified block at `at` ends.

    Returns:
        Where its value ends, too, or None for a tombstone.

    Raises:
        ValueError: No key starts there.

    Cost: O(entries in the block), in C.
    """
    count = CRC.unpack_from(data, at + 8)[0]
    bounds = unpack_struct_from(f"<{2 * count + 1}I", data, at + BLOCK_HEADER_SIZE)
    i = 2 * bounds[::2].index(start - at)
    middle, stop = bounds[i + 1 : i + 3]
    if middle & TOMBSTONE_BIT:
        return at + (middle ^ TOMBSTONE_BIT), None
    return at + middle, at + stop


def _layout(skip: int, raw: bytes, count: int) -> _Layout:
    bounds = list(unpack_struct_from(f"<{2 * count + 1}I", raw))
    first = BLOCK_HEADER_SIZE + len(raw)
    tombstones = tuple(i for i in range(count) if bounds[2 * i + 1] & TOMBSTONE_BIT)
    for i in tombstones:
        bounds[2 * i + 1] &= ~TOMBSTONE_BIT
    sizes = list(map(sub, bounds[1:], bounds))
    if bounds[0] != first or min(sizes) < 0:
        raise ValueError(f"block's bounds point outside it: {bounds}")
    sizes[::2] = [size - skip for size in sizes[::2]]
    if min(sizes) < 0:
        raise ValueError(f"a key of the block is shorter than {skip} bytes")
    if len(_LAYOUTS) >= _LAYOUTS_MAX:
        _LAYOUTS.clear()
    entry = f"{skip}x%ds%ds" if skip else "%ds%ds"
    struct = Struct(entry * count % tuple(sizes))
    layout = _LAYOUTS[skip, raw] = (struct, tombstones, bounds[-1])
    return layout


def numbers_in_place(raw: memoryview, typecode: str) -> memoryview | array[int]:
    """Return the numbers that `raw` holds, without a copy where the machine allows."""
    if sys.byteorder == "little":
        return raw.cast(typecode)  # type: ignore[call-overload,no-any-return]
    numbers = array(typecode, raw.tobytes())
    numbers.byteswap()
    return numbers


def little_endian(numbers: array[int]) -> bytes:
    """Return the numbers' bytes as every table spells them."""
    if sys.byteorder == "big":
        numbers = array(numbers.typecode, numbers)
        numbers.byteswap()
    return numbers.tobytes()
