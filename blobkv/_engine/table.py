"""One immutable sorted file: built once, then read by point and by range.

The bytes are specified in `table_format.py`. Opening reads the header, the footer, and the
range tombstones. A block is
verified the first time it is touched, the hash index and the block index the first time one
of them is needed; nothing unverified is ever served.

A table stays readable for as long as something refers to it, whatever happens to its name.

Invariants:

* `_verified[offset >> 12]` says whether the block at `offset` was verified; blocks start at
  least 4 KiB apart, or else hold 4095 entries of at least 8 bytes each, so no two share one.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from hashlib import sha256
from struct import error as StructError  # noqa: N812  # It is a class.
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from blobkv._engine import table_format as layout
from blobkv._engine.memtable import ABSENT
from blobkv._engine.ranges import Ranges
from blobkv.errors import CorruptionError, LimitError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobkv._engine.fs import FileSystem, Mapped, WritableFile
    from blobkv._engine.memtable import Chunk, Found

_WRITE_SIZE: Final = 1 << 18
_VERIFIED_SHIFT: Final = 12


class TableFile(NamedTuple):
    """A table as the manifest names it.

    Attributes:
        number: Its number, which is also its file name.
        size: Bytes in the file.
        crc: The checksum of its footer, which covers those of all its parts: compared at open.
        sha256: The digest of the file: compared by `verify`.
    """

    number: int
    size: int
    crc: int
    sha256: str

    @property
    def name(self) -> str:
        """The file's name in the store's directory."""
        return table_name(self.number)


def table_name(number: int) -> str:
    """Return the name of table `number`."""
    return f"{number:06d}.tbl"


class Table:
    """An open table. Safe to read from many threads.

    Args:
        data: The whole file.
        file: What the manifest says of it.

    Raises:
        CorruptionError: The file's size or its footer is not what the manifest says.
    """

    def __init__(self, data: Mapped, file: TableFile) -> None:
        self.file = file
        self._name = file.name
        self._data = data
        size = len(data)
        if size != file.size:
            raise CorruptionError(self._name, 0, f"{size} bytes long, expected {file.size}")
        layout.check_table_header(data[: layout.TABLE_HEADER_SIZE], self._name)
        footer_at = size - layout.FOOTER_SIZE
        raw = data[footer_at:]
        self.footer = layout.decode_footer(raw, max(footer_at, 0), self._name)
        crc = layout.footer_crc(raw)
        if crc != file.crc:
            reason = f"another table: footer checksum {crc:#010x}, expected {file.crc:#010x}"
            raise CorruptionError(self._name, footer_at, reason)
        self._verified = bytearray((self.footer.hash_offset >> _VERIFIED_SHIFT) + 1)
        self._slots: memoryview | Sequence[int] | None = None
        self._blocks: list[int] | None = None
        self._keys: list[bytes] = []
        self.ranges = self._read_ranges(footer_at)

    @classmethod
    def open(cls, fs: FileSystem, directory: str, file: TableFile) -> Table:
        """Open a table of the store in `directory`. Cost: one mapping, no key is read."""
        return cls(fs.map(f"{directory}/{file.name}"), file)

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self.file.size

    def get(self, key: bytes, crc: int) -> Found:
        """Return the entry of `key`, whose crc32 is `crc`; ABSENT if there is none.

        Raises:
            CorruptionError: What would answer is not what was written.

        Cost: 1.5 slots and one entry for a hit, 2.5 slots for a miss, on average; with keys
        made to collide, a search in the block index. The first time, one pass over the hash
        index, 16 bytes an entry.
        """
        slots = self._slots
        if slots is None:
            slots = self._read_slots()
        home_count = self.footer.slots
        if not home_count:
            return self._get_without_hash(key)
        at = crc * home_count >> 32
        tag = crc & layout.TAG_MASK
        try:
            while slot := slots[at]:
                if slot >> layout.TAG_SHIFT == tag:
                    offset = slot & layout.OFFSET_MASK
                    if not self._verified[offset >> _VERIFIED_SHIFT]:
                        self._verify(offset)
                    data = self._data
                    index = slot >> layout.INDEX_SHIFT & layout.INDEX_MASK
                    start, middle, stop = layout.BOUND.unpack_from(
                        data, offset + layout.BLOCK_HEADER_SIZE + 8 * index
                    )
                    deleted = middle & layout.TOMBSTONE_BIT
                    if deleted:
                        middle ^= layout.TOMBSTONE_BIT
                    if data[offset + start : offset + middle] == key:
                        if deleted:
                            return None
                        return data[offset + middle : offset + stop]
                at += 1
        except (IndexError, StructError) as cause:
            # Bytes that no blobkv wrote. Caught, since asking at each probe would cost.
            offset = self.footer.hash_offset
            raise CorruptionError(self._name, offset, "hash index points outside") from cause
        return ABSENT

    def chunks(
        self, start: bytes, stop: bytes | None, *, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the entries in [start, stop), a block at a time, in key order.

        Raises:
            CorruptionError: A block is not what was written; nothing of it was yielded.

        Cost: O(log blocks) to start, then one C call a block where entry sizes repeat.
        """
        if self._blocks is None:
            self._read_index()
        blocks, firsts = self._blocks, self._keys
        assert blocks is not None
        count = self.footer.blocks
        if not count:
            return
        first = max(bisect_right(firsts, start, 0, count) - 1, 0)
        last = count if stop is None else bisect_left(firsts, stop, 0, count)
        numbers = range(first, last)
        for i in reversed(numbers) if reverse else numbers:
            offset = blocks[i]
            if not self._verified[offset >> _VERIFIED_SHIFT]:
                self._verify(offset)
            keys, values = layout.decode_block(self._data, offset)
            # Only the blocks at either end can reach outside the range.
            if i in (first, last - 1):
                low = bisect_left(keys, start)
                high = len(keys) if stop is None else bisect_left(keys, stop)
                keys, values = keys[low:high], values[low:high]
            if keys:
                yield (keys[::-1], values[::-1]) if reverse else (keys, values)

    def _get_without_hash(self, key: bytes) -> Found:
        for keys, values in self.chunks(key, key + b"\x00"):
            assert keys[0] == key
            return values[0]
        return ABSENT

    def _verify(self, offset: int) -> None:
        layout.check_block(self._data, offset, self._name)
        self._verified[offset >> _VERIFIED_SHIFT] = 1

    def _read_slots(self) -> memoryview | Sequence[int]:
        footer = self.footer
        raw = memoryview(self._data)[footer.hash_offset : footer.index_offset]
        self._check_part(raw, footer.hash_crc, footer.hash_offset, "hash index")
        self._slots = layout.numbers_in_place(raw)
        return self._slots

    def _read_index(self) -> None:
        footer = self.footer
        raw = self._data[footer.index_offset : footer.ranges_offset]
        self._check_part(raw, footer.index_crc, footer.index_offset, "block index")
        blocks, self._keys = layout.decode_index(
            raw, footer.blocks, self._name, footer.index_offset
        )
        ends = (blocks[0], blocks[-1])
        if ends != (layout.TABLE_HEADER_SIZE, footer.hash_offset) or blocks != sorted(blocks):
            reason = "block index points outside the blocks"
            raise CorruptionError(self._name, footer.index_offset, reason)
        # Last, since other threads take it as the sign that the keys are there too.
        self._blocks = blocks

    def _read_ranges(self, footer_at: int) -> Ranges:
        offset = self.footer.ranges_offset
        if offset == footer_at:
            return Ranges()
        layout.check_block(self._data, offset, self._name)
        starts, stops = layout.decode_block(self._data, offset)
        return Ranges(zip(starts, stops, strict=True))

    def _check_part(self, raw: bytes | memoryview, crc: int, offset: int, what: str) -> None:
        found = crc32(raw)
        if found != crc:
            reason = f"{what} checksum is {found:#010x}, expected {crc:#010x}"
            raise CorruptionError(self._name, offset, reason)


class TableWriter:
    """Builds one table from entries in key order.

    Args:
        file: A new, empty file; closed by the caller.
        number: The table's number.

    Cost: 12 bytes of memory an entry until `finish`, and one block.
    """

    def __init__(self, file: WritableFile, number: int) -> None:
        self._file = file
        self._number = number
        self._digest = sha256()
        self._offset = 0
        self._buffer: list[bytes] = []
        self._buffered = 0
        self._keys: list[bytes] = []
        self._values: list[bytes | None] = []
        self._size = 0
        self._last = b""
        self._tombstones = 0
        self._blocks_crc = 0
        self._hashes = array("I")
        self._places = array("Q")
        self._offsets: list[int] = []
        self._firsts: list[bytes] = []
        self._write(layout.encode_table_header())

    def add(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Append entries; every key is past the one before."""
        for key, value in zip(keys, values, strict=True):
            self._keys.append(key)
            self._values.append(value)
            # The bounds, and the bytes themselves.
            self._size += 8 + len(key) + (0 if value is None else len(value))
            if self._size >= layout.BLOCK_SIZE or len(self._keys) == layout.BLOCK_COUNT_MAX:
                self._end_block()

    def finish(self, ranges: Ranges) -> TableFile:
        """Write the rest, sync, and return what the manifest shall say of the table."""
        self._end_block()
        hash_offset = self._offset
        slots, hash_index = layout.encode_hash_index(self._hashes, self._places)
        self._write(hash_index)
        index_offset = self._offset
        last = [self._last] if self._offsets else [b""]
        index = layout.encode_index([*self._offsets, hash_offset], [*self._firsts, *last])
        self._write(index)
        ranges_offset = self._offset
        if ranges:
            starts, stops = zip(*ranges, strict=True)
            self._write(layout.encode_block(starts, stops, ranges_offset))
        footer = layout.Footer(
            entries=len(self._hashes),
            tombstones=self._tombstones,
            blocks=len(self._offsets),
            slots=slots,
            hash_offset=hash_offset,
            index_offset=index_offset,
            ranges_offset=ranges_offset,
            size=self._offset + layout.FOOTER_SIZE,
            hash_crc=crc32(hash_index),
            index_crc=crc32(index),
            blocks_crc=self._blocks_crc,
        )
        raw = layout.encode_footer(footer)
        self._write(raw)
        self._flush()
        self._file.sync()
        crc = layout.footer_crc(raw)
        return TableFile(self._number, footer.size, crc, self._digest.hexdigest())

    def _end_block(self) -> None:
        keys, values = self._keys, self._values
        if not keys:
            return
        assert self._last < keys[0] or not self._offsets
        offset = self._offset
        if offset > layout.OFFSET_MASK:
            raise LimitError(
                f"a table of over {layout.OFFSET_MASK} bytes; nothing is lost by it"
            )
        self._offsets.append(offset)
        self._firsts.append(keys[0])
        self._last = keys[-1]
        self._tombstones += values.count(None)
        self._hashes.extend(map(crc32, keys))
        step = 1 << layout.INDEX_SHIFT
        self._places.extend(range(offset, offset + len(keys) * step, step))
        block = layout.encode_block(keys, values, offset)
        self._blocks_crc = crc32(block[:4], self._blocks_crc)
        self._write(block)
        self._keys, self._values, self._size = [], [], 0

    def _write(self, data: bytes) -> None:
        self._buffer.append(data)
        self._buffered += len(data)
        self._offset += len(data)
        if self._buffered >= _WRITE_SIZE:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._buffer)
        self._buffer, self._buffered = [], 0
        self._digest.update(data)
        self._file.append(data)
