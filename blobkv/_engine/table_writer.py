"""Building a table: entries in key order in, one durable file out.

Equal entries make equal files, however they are cut into calls of `add`.

Source: LevelDB's table builder.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from hashlib import sha256
from itertools import accumulate
from operator import add, lt
from typing import TYPE_CHECKING, Final
from zlib import crc32

from blobkv._engine import table_format as layout
from blobkv._engine.block_index import encode_index, separator
from blobkv._engine.hash_index import OFFSET_MASK, encode_hash_index, fill_slots, places_of
from blobkv._engine.table import TableFile, table_name
from blobkv.errors import CorruptionError, LimitError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobkv._engine.files import WritableFile
    from blobkv._engine.ranges import Ranges

_WRITE_SIZE: Final = 1 << 18


class TableWriter:
    """Builds one table from entries in key order.

    Args:
        file: A new, empty file; closed by the caller.
        number: The table's number.

    Attributes:
        size: Bytes in its blocks so far.

    Cost: 12 bytes of memory an entry, and 18 more in `finish`; one block, and what is given.
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
        self._last = b""
        self._tombstones = 0
        self._checksums = array("I")
        self._hashes = array("I")
        self._places = array("Q")
        self._offsets: list[int] = []
        self._separators: list[bytes] = []
        self._write(layout.encode_table_header())

    @property
    def size(self) -> int:
        return self._offset

    def add(self, keys: Sequence[bytes], values: Sequence[bytes | None]) -> None:
        """Append entries.

        Raises:
            CorruptionError: A key is not past the one before.
        """
        keys, values = [*self._keys, *keys], [*self._values, *values]
        # They come from other files, and an order that is wrong must not reach this one.
        ordered = all(map(lt, keys, keys[1:]))
        if not ordered or (self._offsets and keys and keys[0] <= self._last):
            reason = "the keys to be written are not in order"
            raise CorruptionError(table_name(self._number), self._offset, reason)
        key_sizes, value_sizes = layout.sizes_of(keys), layout.sizes_of(values)
        ends = list(accumulate(map(add, key_sizes, value_sizes)))
        first = 0
        while first < len(ends):
            size = layout.BLOCK_SIZE + (ends[first - 1] if first else 0)
            last = min(bisect_left(ends, size) + 1, first + layout.BLOCK_COUNT_MAX)
            if last > len(ends):
                break
            part = slice(first, last)
            self._add_block(keys[part], values[part], key_sizes[part], value_sizes[part])
            first = last
        self._keys, self._values = keys[first:], values[first:]

    def finish(self, ranges: Ranges) -> TableFile:
        """Write the rest, sync, and return what the manifest shall say of the table."""
        if self._keys:
            sizes = layout.sizes_of(self._keys), layout.sizes_of(self._values)
            self._add_block(self._keys, self._values, *sizes)
        hash_offset = self._offset
        tags, places = fill_slots(self._hashes, self._places)
        for part in encode_hash_index(tags, places):
            self._write(part)
            # In the end that of the last part.
            hash_crc = crc32(part)
        index_offset = self._offset
        index = encode_index([*self._offsets, hash_offset], self._separators)
        self._write(index)
        checksums = layout.little_endian(self._checksums)
        self._write(checksums)
        ranges_offset = self._offset
        if ranges:
            starts, stops = zip(*ranges, strict=True)
            bounds = layout.block_bounds(layout.sizes_of(starts), layout.sizes_of(stops))
            for part in layout.encode_block(starts, stops, bounds, ranges_offset):
                self._write(part)
        footer = layout.Footer(
            entries=len(self._hashes),
            tombstones=self._tombstones,
            blocks=len(self._offsets),
            homes=2 * len(self._hashes) if tags else 0,
            hash_offset=hash_offset,
            index_offset=index_offset,
            ranges_offset=ranges_offset,
            size=self._offset + layout.FOOTER_SIZE,
            hash_crc=hash_crc,
            index_crc=crc32(index),
            blocks_crc=crc32(checksums),
        )
        raw = layout.encode_footer(footer)
        self._write(raw)
        self._flush()
        self._file.sync()
        crc = layout.footer_crc(raw)
        return TableFile(self._number, footer.size, crc, self._digest.hexdigest())

    def _add_block(
        self,
        keys: list[bytes],
        values: list[bytes | None],
        key_sizes: list[int],
        value_sizes: list[int],
    ) -> None:
        offset = self._offset
        if offset > OFFSET_MASK - layout.TOMBSTONE_BIT:
            raise LimitError(f"a table of over {offset} bytes; nothing is lost by it")
        bounds = layout.block_bounds(key_sizes, value_sizes)
        self._hashes.extend(map(crc32, keys))
        places = places_of(key_sizes, value_sizes, values, offset + bounds[0])
        self._places.extend(places)
        head, body = layout.encode_block(keys, values, bounds, offset)
        first = not self._offsets
        self._separators.append(b"" if first else separator(self._last, keys[0]))
        self._offsets.append(offset)
        self._last = keys[-1]
        self._tombstones += values.count(None)
        self._checksums.append(layout.block_crc(head, 0))
        self._write(head)
        self._write(body)

    def _write(self, data: bytes) -> None:
        self._offset += len(data)
        if len(data) >= _WRITE_SIZE:
            # A value of a gigabyte is not copied for the sake of the few bytes around it.
            self._flush()
            self._append(data)
            return
        self._buffer.append(data)
        self._buffered += len(data)
        if self._buffered >= _WRITE_SIZE:
            self._flush()

    def _flush(self) -> None:
        data = b"".join(self._buffer)
        self._buffer, self._buffered = [], 0
        self._append(data)

    def _append(self, data: bytes) -> None:
        self._digest.update(data)
        self._file.append(data)
