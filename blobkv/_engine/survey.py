"""What is left of a table: its good blocks, and what the gaps between them may hide.

Each block has a checksum of its own, which the table has once more, apart from the blocks; so
damage costs the blocks that it hits and no others, and a block that belongs elsewhere is not
taken for one of them. Where the block index is good it says where the next one starts; else
every place that looks like the head of a block is tried, up to a bound on what hostile bytes
can cost.

A table is there to say something about keys: a value, or that there is none. What it said
about the keys of a gap is not known any more, so an older table's word on them is not to be
trusted; `lost` is all of those. A table that is missing, or whose range tombstones cannot be
read, may have said something about any key.

Source: the scan for the next block follows LevelDB's repairer, which trusts a block for its
checksum alone.
"""

from __future__ import annotations

import re
from array import array
from bisect import bisect_right
from operator import lt
from struct import Struct
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from blobkv._engine import table_format as layout
from blobkv._engine.format import CRC
from blobkv._engine.ranges import Ranges
from blobkv._engine.report import EVERYTHING, Noting, Problem
from blobkv._engine.sequential import Forward
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobkv._engine.files import ReadableFile
    from blobkv._engine.memtable import Chunk

_WINDOW_SIZE: Final = 1 << 18
# What the search for the next block may checksum, as a multiple of the file's size.
_SEARCH_FACTOR_MAX: Final = 64
# Size, count, and first bound of a block: its head without the checksum.
_HEAD: Final = Struct("<III")
_HEAD_SIZE: Final = 4 + _HEAD.size
# A count that a block can have, 1 to 4095, where it stands in a head.
_COUNT: Final = re.compile(rb"(?=.{8}(?:[^\0][\0-\x0f]|\0[\x01-\x0f])\0\0)", re.DOTALL)
_COUNT_END: Final = 12


class _Gap(NamedTuple):
    """Bytes that are no good block, up to the next one."""

    offset: int
    reason: str


class _Places(NamedTuple):
    """Where the block index says that blocks are, and what their checksums are, if known."""

    offsets: array[int]
    checksums: array[int] | None

    def check(self, name: str, at: int, crc: int) -> None:
        """Check that a block that starts at `at` with this checksum belongs there."""
        if self.checksums is None:
            return
        i = bisect_right(self.offsets, at) - 1
        if self.offsets[i] != at or self.checksums[i] != crc:
            reason = f"another block: checksum {crc:#010x}, not the one that belongs here"
            raise CorruptionError(name, at, reason)


class Survey:
    """One table, read from its start to its end, damaged or not.

    Args:
        source: The file.
        name: Its name, for what is said of it.
        crc: The checksum of its footer, as the manifest has it; None if there is no manifest.

    Attributes:
        name: The file's name.
        problems: What is wrong, in the order found.
        footer: What its footer says, or None if that cannot be read.
        ranges: What its range tombstones cover in older tables, as far as that can be read.
        trusted: Whether what can be read is surely of this table: its footer is what the
            manifest says, and each block has the checksum that the table has for it.
        lost: The keys about which it may have said something that cannot be read.
        entries: How many entries the good blocks have, tombstones included.
        tombstones: How many of them are tombstones.

    Cost: reads the blocks once; memory for a window, the block index, and 8 bytes a block.
    """

    def __init__(self, source: ReadableFile, name: str, crc: int | None) -> None:
        self.name = name
        self.problems: list[Problem] = []
        self.footer: layout.Footer | None = None
        self.ranges = Ranges()
        self.trusted = False
        self.lost = Ranges()
        self.entries = 0
        self.tombstones = 0
        self._window = _Window(source)
        self._blocks = array("Q")
        self._blocks_crc = 0
        self._gaps = 0
        self._budget = _SEARCH_FACTOR_MAX * source.size
        with Noting(self.problems, name):
            layout.check_table_header(source.read(0, layout.TABLE_HEADER_SIZE), name)
        with Noting(self.problems, name, EVERYTHING):
            self.footer = self._read_footer(source)
        if self.footer is not None and crc not in {None, self._footer_crc}:
            reason = f"another table: footer {self._footer_crc:#010x}, expected {crc:#010x}"
            self.problems.append(Problem(name, 0, reason, EVERYTHING))
        elif self.footer is not None:
            self._read_parts(self.footer)
        else:
            self._read_blocks(max(source.size - layout.FOOTER_SIZE, 0), None)
        for problem in self.problems:
            if problem.lost is not None:
                self.lost.add(*problem.lost)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the entries of the good blocks, in key order, reading them again.

        Raises:
            CorruptionError: A block is not what it was a moment ago.
            OSError: The device refused.
        """
        for at in self._blocks:
            _, chunk = self._read_block(at, self._window.size)
            yield chunk

    def _read_footer(self, source: ReadableFile) -> layout.Footer:
        at = max(source.size - layout.FOOTER_SIZE, 0)
        raw = source.read(at, layout.FOOTER_SIZE)
        footer = layout.decode_footer(raw, at, self.name)
        self._footer_crc = layout.footer_crc(raw)
        return footer

    def _read_parts(self, footer: layout.Footer) -> None:
        with Noting(self.problems, self.name, EVERYTHING):
            at, end = footer.ranges_offset, footer.size - layout.FOOTER_SIZE
            if at < end:
                raw = self._window.read(at, end - at)
                self.ranges = layout.read_ranges(raw, at, self.name, at)
        offsets = checksums = places = None
        with Noting(self.problems, self.name):
            checksums = self._read_checksums(footer)
        with Noting(self.problems, self.name):
            offsets = self._read_offsets(footer)
        if offsets is not None:
            places = _Places(offsets, checksums)
        self._read_blocks(footer.hash_offset, places)
        counted = footer._replace(
            entries=self.entries,
            tombstones=self.tombstones,
            blocks=len(self._blocks),
            blocks_crc=self._blocks_crc,
        )
        if counted != footer and not self._gaps:
            reason = f"counted {counted}, the footer says {footer}"
            self.problems.append(Problem(self.name, footer.hash_offset, reason, EVERYTHING))
        else:
            checked_each = offsets is not None and checksums is not None
            self.trusted = counted == footer or checked_each

    def _read_checksums(self, footer: layout.Footer) -> array[int]:
        at = footer.checksums_offset
        raw = self._window.read(at, footer.ranges_offset - at)
        if crc32(raw) != footer.blocks_crc:
            reason = f"checksums have checksum {crc32(raw):#x}, expected {footer.blocks_crc:#x}"
            raise CorruptionError(self.name, at, reason)
        return array("I", layout.numbers_in_place(memoryview(raw), "I"))

    def _read_offsets(self, footer: layout.Footer) -> array[int]:
        at = footer.index_offset
        raw = self._window.read(at, footer.checksums_offset - at)
        if crc32(raw) != footer.index_crc:
            reason = f"block index checksum is {crc32(raw):#x}, expected {footer.index_crc:#x}"
            raise CorruptionError(self.name, at, reason)
        size = 8 * (footer.blocks + 1)
        if len(raw) < size:
            raise CorruptionError(self.name, at, "block index is cut short")
        offsets = array("Q", layout.numbers_in_place(memoryview(raw)[:size], "Q"))
        if (offsets[0], offsets[-1]) != (layout.TABLE_HEADER_SIZE, footer.hash_offset):
            raise CorruptionError(self.name, at, "block index points outside the table")
        return offsets

    def _read_blocks(self, end: int, places: _Places | None) -> None:
        """Find the good blocks before `end`, and note each gap between them."""
        at, last = layout.TABLE_HEADER_SIZE, b""
        gap: _Gap | None = None
        newest: Chunk = (), ()
        behind_gap = False
        while at < end:
            # A good block ends where the next one is said to start; so whatever the block index
            # says, no byte is read for two blocks.
            limit = end if places is None else min(self._next_place(at, end, places), end)
            try:
                size, (keys, values) = self._read_block(at, limit)
                self._check_order(keys, last, at)
                crc = layout.block_crc(self._window.read(at, 4), 0)
                if places is not None:
                    places.check(self.name, at, crc)
            except (CorruptionError, OSError) as error:
                gap = gap or _Gap(at, getattr(error, "reason", f"cannot be read: {error}"))
                at = self._next_place(at, end, places)
                continue
            behind_gap = gap is not None
            if gap is not None:
                self._note(gap, last, keys[0])
                gap = None
            self._blocks.append(at)
            self._blocks_crc = crc32(CRC.pack(crc), self._blocks_crc)
            self.entries += len(keys)
            self.tombstones += values.count(None)
            last = keys[-1]
            newest = keys, values
            at += size
        # Without a footer nobody knows where blocks end and the hash index begins.
        if self.footer is None:
            if behind_gap and _may_be_ranges(*newest):
                self._drop_last(*newest)
        elif gap is not None:
            self._note(gap, last, None)

    def _drop_last(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Leave out a block that may hold range tombstones: as entries nobody wrote them."""
        self._blocks.pop()
        self.entries -= len(keys)
        self.tombstones -= values.count(None)

    def _read_block(self, at: int, end: int) -> tuple[int, Chunk]:
        head = self._window.read(at, layout.BLOCK_HEADER_SIZE)
        if len(head) < layout.BLOCK_HEADER_SIZE:
            raise CorruptionError(self.name, at, "the file ends before this block")
        size = layout.block_size(memoryview(head), 0)
        if at + size > end:
            raise CorruptionError(self.name, at, f"no block: {size} bytes would not fit")
        data = self._window.read(at, size)
        return size, layout.read_block(data, at, self.name, at)

    def _check_order(self, keys: Sequence[bytes], last: bytes, at: int) -> None:
        if not all(map(lt, keys, keys[1:])) or (self._blocks and keys[0] <= last):
            raise CorruptionError(self.name, at, "keys are not in order")

    def _next_place(self, at: int, end: int, places: _Places | None) -> int:
        """Return the first place past `at` where a block may start, or `end`."""
        if places is not None:
            # Not past them: `at` is before `end`, which is the last.
            return places.offsets[bisect_right(places.offsets, at)]
        at += 1
        while at + _HEAD_SIZE <= end:
            data = self._window.read(at, _WINDOW_SIZE)
            for place in _COUNT.finditer(data, 0, len(data) - _HEAD_SIZE + _COUNT_END):
                i = place.start()
                size, count, first = _HEAD.unpack_from(data, i + 4)
                bounds_end = layout.BLOCK_HEADER_SIZE + 4 * (2 * count + 1)
                if first == bounds_end <= size <= end - at - i:
                    self._budget -= size
                    return at + i if self._budget > 0 else end
            at += max(len(data) - _HEAD_SIZE + 1, 1)
        return end

    def _note(self, gap: _Gap, last: bytes, first: bytes | None) -> None:
        self._gaps += 1
        start = last + b"\x00" if self._blocks else b""
        self.problems.append(Problem(self.name, *gap, (start, first)))


def _may_be_ranges(starts: Sequence[bytes], stops: Sequence[bytes | None]) -> bool:
    pairs = zip(starts, stops, strict=True)
    bounds = [bound for pair in pairs for bound in pair if bound is not None]
    # Only the last range may have no stop.
    return None not in stops[:-1] and all(map(lt, bounds, bounds[1:]))


class Remains(Forward):
    """What is left of a table, as a source for one `merged`.

    Args:
        survey: The table.
        hidden: What else it hides in older sources, beside what its range tombstones do.
    """

    def __init__(self, survey: Survey, hidden: Ranges) -> None:
        super().__init__(survey.chunks())
        self.ranges = survey.ranges.union(hidden)


class _Window:
    """Reads a file by position, a window ahead, since one block follows another."""

    def __init__(self, source: ReadableFile) -> None:
        self.size = source.size
        self._source = source
        self._data = b""
        self._start = 0

    def read(self, at: int, size: int) -> bytes:
        """Return `size` bytes from `at`; fewer only at the end of the file."""
        start = at - self._start
        if start < 0 or start + size > len(self._data):
            try:
                self._data = self._source.read(at, max(size, _WINDOW_SIZE))
            except OSError:
                # What is wanted may be readable, where not all of a window is.
                self._data = self._source.read(at, size)
            self._start, start = at, 0
        return self._data[start : start + size]
