"""The block index of a table: which blocks hold the keys of a range.

    block index: u64[count + 1] block offsets (the last: where blocks end), u64[count + 1]
    bounds of the separators from the end of this array, then the separators, one a block:
    past every key before its block, and at or before its block's first key

A separator is the shortest such start of the first key, so keys that differ early cost a few
bytes a block. In memory is every 8th separator, one key in some 200, and of the groups of 8
between them those that were needed, until they are 4,096, when all of these are dropped; the
others are read where they lie.

Source: the separators follow LevelDB's index block.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from itertools import accumulate
from operator import ne
from typing import TYPE_CHECKING, Final
from zlib import crc32

from blobkv._engine.table_format import TABLE_HEADER_SIZE, little_endian, numbers_in_place
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobkv._engine.files import Mapped
    from blobkv._engine.table_format import Footer

_GROUP_SHIFT: Final = 3
_GROUPS_MAX: Final = 4096


class BlockIndex:
    """The block index of one open table. Safe to read from many threads.

    Args:
        data: The whole file.
        footer: What its footer says.
        name: Its name, for errors.

    Attributes:
        count: Blocks in the table.
        offsets: Where each starts in the file, and where the last one ends.
        checksums: What each has to have for its own.

    Raises:
        CorruptionError: It is not what was written, or it points outside.

    Cost: one pass over the block index; in memory an eighth of its separators, and up to 32,768
    more as they are needed.
    """

    def __init__(self, data: Mapped, footer: Footer, name: str) -> None:
        count = footer.blocks
        at, end = footer.index_offset, footer.checksums_offset
        raw = memoryview(data)[at:end]
        if crc32(raw) != footer.index_crc:
            reason = f"block index checksum is {crc32(raw):#x}, expected {footer.index_crc:#x}"
            raise CorruptionError(name, at, reason)
        keys_at = 16 * (count + 1)
        if keys_at > len(raw):
            raise CorruptionError(name, at, f"block index of {count} blocks is cut short")
        self.count = count
        self.offsets = numbers_in_place(raw[: keys_at // 2], "Q")
        self._bounds = numbers_in_place(raw[keys_at // 2 : keys_at], "Q")
        self._data = data
        self._keys_at = at + keys_at
        ends = (self.offsets[0], self.offsets[count])
        if (
            ends != (TABLE_HEADER_SIZE, footer.hash_offset)
            or self._keys_at + self._bounds[count] != end
        ):
            raise CorruptionError(name, at, "block index points outside the table")
        raw = memoryview(data)[end : footer.ranges_offset]
        if crc32(raw) != footer.blocks_crc:
            reason = f"checksums have checksum {crc32(raw):#x}, expected {footer.blocks_crc:#x}"
            raise CorruptionError(name, end, reason)
        self.checksums = numbers_in_place(raw, "I")
        self._name = name
        self._at = at
        self._sample = self._separators(range(0, count, 1 << _GROUP_SHIFT))
        if self._sample[:1] not in ([], [b""]):
            raise CorruptionError(name, at, "the first separator is not empty")
        self._groups: dict[int, list[bytes]] = {}

    def span(self, start: bytes, stop: bytes | None) -> tuple[int, int]:
        """Return the first block that may hold keys of [start, stop), and the one past them.

        Raises:
            CorruptionError: The separators point outside.

        Cost: O(log blocks), and a group of separators read if it is not in memory.
        """
        if not self.count:
            return 0, 0
        # The first separator is empty, so that every key has a group, and a block in it.
        group = bisect_right(self._sample, start) - 1
        separators = self._group(group)
        at = bisect_right(separators, start)
        base = group << _GROUP_SHIFT
        if stop is None:
            last = self.count
        elif stop <= separators[-1]:
            last = base + bisect_left(separators, stop)
        else:
            last = self._past(stop)
        return base + at - 1, last

    def check_identity(self, i: int, crc: int) -> None:
        """Check that a block with this checksum is block `i`, and not one of another place.

        Raises:
            CorruptionError: It is another.
        """
        if crc != self.checksums[i]:
            reason = f"another block: checksum {crc:#010x}, expected {self.checksums[i]:#010x}"
            raise CorruptionError(self._name, self.offsets[i], reason)

    def holding(self, offset: int) -> int:
        """Return the number of the block that the byte at `offset` of the file is in."""
        return bisect_right(self.offsets, offset, 0, self.count) - 1

    def _past(self, stop: bytes) -> int:
        group = bisect_left(self._sample, stop) - 1
        return (group << _GROUP_SHIFT) + bisect_left(self._group(group), stop)

    def _group(self, group: int) -> list[bytes]:
        found = self._groups.get(group)
        if found:
            return found
        first = group << _GROUP_SHIFT
        last = min(first + (1 << _GROUP_SHIFT), self.count)
        if len(self._groups) >= _GROUPS_MAX:
            self._groups.clear()
        separators = self._groups[group] = self._separators(range(first, last))
        return separators

    def _separators(self, numbers: range) -> list[bytes]:
        """Return some separators, ascending; no byte of the file is in two of them."""
        bounds, at = self._bounds, self._keys_at
        found, end = [], 0
        for i in numbers:
            start, stop = bounds[i], bounds[i + 1]
            if not end <= start <= stop <= bounds[self.count]:
                raise CorruptionError(self._name, self._at, "separators overlap")
            found.append(self._data[at + start : at + stop])
            end = stop
        return found


def separator(before: bytes, first: bytes) -> bytes:
    """Return the shortest start of `first` that is past `before`, a smaller key."""
    differs = map(ne, before, first)
    size = next((i for i, differ in enumerate(differs) if differ), len(before))
    return first[: size + 1]


def encode_index(offsets: Sequence[int], separators: Sequence[bytes]) -> bytes:
    """Return the block index; `offsets` has one more than there are blocks."""
    assert len(offsets) == len(separators) + 1
    numbers = array("Q", [*offsets, *accumulate(map(len, separators), initial=0)])
    return b"".join((little_endian(numbers), *separators))
