"""One immutable sorted file, open for reads by point and by range.

The bytes are specified in `table_format.py`, `hash_index.py`, and `block_index.py`. Opening
reads the header, the footer, the range tombstones, and 4 bytes for each 4,096 entries, and
keeps a byte for each block. A block is verified the first time it is touched; nothing
unverified is ever served.

A table stays readable for as long as something refers to it, whatever happens to its name.

Invariants:

* `verified[p]` tells of the 4096 bytes from p * 4096 on: 1, that the block that starts there
  was verified; 2, that every block was that has bytes there, so that any entry may be read.
"""

from __future__ import annotations

from bisect import bisect_left
from functools import cached_property
from struct import error as StructError  # noqa: N812  # It is a class.
from typing import TYPE_CHECKING, Final, NamedTuple

from blobkv._engine import table_format as layout
from blobkv._engine.block_index import BlockIndex
from blobkv._engine.hash_index import HashIndex
from blobkv._engine.memtable import ABSENT
from blobkv._engine.ranges import Ranges
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobkv._engine.files import FileSystem, Mapped
    from blobkv._engine.format import Range
    from blobkv._engine.memtable import Chunk, Found

VERIFIED_SHIFT: Final = 12
STARTS_VERIFIED: Final = 1
ALL_VERIFIED: Final = 2
# The blocks of a short range have at most so many bytes: they are decoded whole.
_SHORT_SIZE_MAX: Final = 1 << 14

# So that at most one block starts in a page.
assert 1 << VERIFIED_SHIFT <= layout.BLOCK_SIZE


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
    """An open table. Safe to read from many threads; points are read by `tables.py`.

    Args:
        data: The whole file.
        file: What the manifest says of it.

    Attributes:
        data: The whole file.
        file: What the manifest says of it.
        footer: What its footer says.
        hash_index: Where its entries are, by key.
        ranges: What its range tombstones cover in older tables.
        verified: Which blocks were verified; see above.

    Raises:
        CorruptionError: The file's size or its footer is not what the manifest says.
    """

    def __init__(self, data: Mapped, file: TableFile) -> None:
        self.data = data
        self.file = file
        self.name = file.name
        size = len(data)
        if size != file.size:
            raise CorruptionError(self.name, 0, f"{size} bytes long, expected {file.size}")
        layout.check_table_header(data[: layout.TABLE_HEADER_SIZE], self.name)
        footer_at = size - layout.FOOTER_SIZE
        raw = data[footer_at:]
        self.footer = layout.decode_footer(raw, max(footer_at, 0), self.name)
        crc = layout.footer_crc(raw)
        if crc != file.crc:
            reason = f"another table: footer checksum {crc:#010x}, expected {file.crc:#010x}"
            raise CorruptionError(self.name, footer_at, reason)
        self.hash_index = HashIndex(data, self.footer, self.name)
        self.verified = bytearray((self.footer.hash_offset >> VERIFIED_SHIFT) + 1)
        self._view = memoryview(data)
        self._bounds: tuple[bytes, bytes] | None = None
        self.ranges = self._read_ranges(footer_at)

    @classmethod
    def open(cls, fs: FileSystem, directory: str, file: TableFile) -> Table:
        """Open a table of the store in `directory`. Cost: one mapping, no key is read."""
        return cls(fs.map(f"{directory}/{file.name}"), file)

    @property
    def size(self) -> int:
        """The file's size in bytes."""
        return self.file.size

    @cached_property
    def block_index(self) -> BlockIndex:
        """Where its entries are, by range; read at its first use."""
        return BlockIndex(self.data, self.footer, self.name)

    def bounds(self) -> tuple[bytes, bytes] | None:
        """Return the first and the last key, or None for a table without entries.

        Raises:
            CorruptionError: The block index or a block is not what was written.

        Cost: the first time the block index is read, and two blocks.
        """
        count = self.block_index.count
        if self._bounds is None and count:
            (first, *_), _ = self._block(0, 0)
            (*_, last), _ = self._block(count - 1, 0)
            self._bounds = first, last
        return self._bounds

    def extent(self) -> Range:
        """Return the range of the keys that it can say anything about; none for an empty one.

        Raises: as `bounds`.

        Cost: as `bounds`.
        """
        ranges = list(self.ranges)
        keys = self.bounds()
        if keys is not None:
            ranges.append((keys[0], keys[1] + b"\x00"))
        stops = [stop for _, stop in ranges if stop is not None]
        return (
            min((start for start, _ in ranges), default=b""),
            max(stops, default=b"") if len(stops) == len(ranges) else None,
        )

    def size_within(self, start: bytes, stop: bytes | None) -> int:
        """Return how many bytes the blocks have that lie in [start, stop) as a whole.

        Cost: O(log blocks).
        """
        first, last = self.block_index.span(start, stop)
        # The one that holds `start` may begin before it, and the last one end past `stop`.
        first += start > b""
        last -= stop is not None
        offsets = self.block_index.offsets
        return offsets[last] - offsets[first] if first < last else 0

    def chunks(
        self, start: bytes, stop: bytes | None, *, skip: int = 0, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the entries in [start, stop), a block at a time, in key order.

        Args:
            start: The smallest key.
            stop: The first key past the range; None for no bound.
            skip: How many bytes to leave out at the start of each key; all of the keys in
                the range have them in common.
            reverse: Whether to go from the last to the first.

        Raises:
            CorruptionError: A block is not what was written; nothing of it was yielded.

        Cost: O(log blocks) to start, then one C call a block where entry sizes repeat.
        """
        first, last = self.block_index.span(start, stop)
        for i in range(last - 1, first - 1, -1) if reverse else range(first, last):
            if first < i < last - 1:
                keys, values = self._block(i, skip)
            else:
                # Only the blocks at either end can reach outside the range.
                keys, values = self._part(i, start, stop)
                if skip:
                    keys = [key[skip:] for key in keys]
            if keys:
                yield (keys[::-1], values[::-1]) if reverse else (keys, values)

    def read_short(self, start: bytes, stop: bytes | None) -> Chunk | None:
        """Return the entries of a short range, or None if [start, stop) is not one.

        Raises:
            CorruptionError: A block is not what was written.

        Cost: O(log blocks), and two blocks decoded at most.
        """
        index = self.block_index
        first, last = index.span(start, stop)
        offsets = index.offsets
        if last - first > 2 or offsets[last] - offsets[first] > _SHORT_SIZE_MAX:
            return None
        if last <= first:
            return (), ()
        keys, values = self._part(first, start, stop)
        if last - first == 2:
            more_keys, more_values = self._part(first + 1, b"", stop)
            return [*keys, *more_keys], [*values, *more_values]
        return keys, values

    def count(self, start: bytes, stop: bytes | None) -> int:
        """Return how many entries are in [start, stop), tombstones included.

        Raises:
            CorruptionError: A block is not what was written.

        Cost: one number read a block, and the blocks at the ends decoded.
        """
        first, last = self.block_index.span(start, stop)
        # Only the blocks at either end can reach outside the range.
        ends = [self._part(i, start, stop) for i in {first, last - 1} if first < last]
        inner = map(self._verified_at, range(first + 1, last - 1))
        counts = (layout.entry_count(self.data, offset) for offset in inner)
        return sum(len(keys) for keys, _ in ends) + sum(counts)

    def get(self, key: bytes) -> Found:
        """Return the entry of `key`, or ABSENT, by the block index: no hash is needed.

        Raises:
            CorruptionError: What would answer is not what was written.

        Cost: O(log blocks), and one block decoded.
        """
        for _, values in self.chunks(key, key + b"\x00"):
            return values[0]
        return ABSENT

    def entry_at(self, key: bytes, start: int) -> Found:
        """Return the entry whose key is `key` and starts at offset `start`, or ABSENT.

        For what a slot of the hash index cannot tell: sizes that are too large for it.

        Raises:
            CorruptionError: No entry starts there.

        Cost: O(log blocks + entries in the block).
        """
        offset = self._verified_at(self.block_index.holding(start))
        try:
            middle, stop = layout.find_entry(self.data, offset, start)
        except (ValueError, StructError) as cause:
            raise CorruptionError(self.name, start, "no entry starts here") from cause
        if middle - start != len(key):
            # One that starts with it.
            return ABSENT
        return None if stop is None else self.data[middle:stop]

    def verify_around(self, start: int) -> None:
        """Verify the blocks that share a page of 4096 bytes with the entry at `start`.

        Raises:
            CorruptionError: One of them is not what was written.
        """
        page = start >> VERIFIED_SHIFT
        first = max(page << VERIFIED_SHIFT, layout.TABLE_HEADER_SIZE)
        last = min((page + 1) << VERIFIED_SHIFT, self.footer.hash_offset) - 1
        for offset in (first, last):
            self._verified_at(self.block_index.holding(offset))
        self.verified[page] = ALL_VERIFIED

    def _part(self, i: int, start: bytes, stop: bytes | None) -> Chunk:
        keys, values = self._block(i, 0)
        low = bisect_left(keys, start)
        high = len(keys) if stop is None else bisect_left(keys, stop, low)
        return keys[low:high], values[low:high]

    def _block(self, i: int, skip: int) -> Chunk:
        offset = self._verified_at(i)
        try:
            return layout.decode_block(self.data, offset, skip)
        except (ValueError, StructError) as cause:
            raise CorruptionError(self.name, offset, str(cause)) from cause

    def _verified_at(self, i: int) -> int:
        """Return where block `i` is, verified."""
        offset = self.block_index.offsets[i]
        try:
            if self.verified[offset >> VERIFIED_SHIFT]:
                return offset
        except IndexError as cause:
            reason = f"block index points to {offset:#x}, outside the blocks"
            raise CorruptionError(self.name, self.footer.index_offset, reason) from cause
        size = layout.check_block(self._view, offset, self.name)
        end = self.block_index.offsets[i + 1]
        if offset + size != end:
            reason = f"block of {size} bytes, the block index says {end - offset}"
            raise CorruptionError(self.name, offset, reason)
        self.block_index.check_identity(i, layout.block_crc(self._view, offset))
        self.verified[offset >> VERIFIED_SHIFT] = STARTS_VERIFIED
        return offset

    def _read_ranges(self, footer_at: int) -> Ranges:
        offset = self.footer.ranges_offset
        if offset == footer_at:
            return Ranges()
        return layout.read_ranges(self.data, offset, self.name)
