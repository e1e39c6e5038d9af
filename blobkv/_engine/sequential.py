"""Tables read once from their start to their end, as a merge reads them.

It is read in windows by position, not through a mapping: a merge touches every byte once, so
a mapping would make the whole store resident; and a disk that fails gives `OSError`, not
SIGBUS. Everything is checked on the way: each block when it is reached, and at the end that
the blocks were those, and as many, as the footer says.

Source: RocksDB's compaction readahead.
"""

from __future__ import annotations

from bisect import bisect_left
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple
from zlib import crc32

from blobkv._engine import table_format as layout
from blobkv._engine.memtable import ABSENT
from blobkv._engine.ranges import Ranges
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blobkv._engine.files import FileSystem
    from blobkv._engine.memtable import Chunk, Found
    from blobkv._engine.table import Table, TableFile

_WINDOW_SIZE: Final = 1 << 18


class Forward:
    """Chunks in key order as a source for one `merged`, which asks for range after range.

    Args:
        chunks: All of them.
    """

    def __init__(self, chunks: Iterator[Chunk]) -> None:
        self._chunks = chunks
        self._rest: Chunk | None = None

    def chunks(
        self, start: bytes, stop: bytes | None, *, skip: int = 0, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the entries in [start, stop), which is past every range asked for before.

        Raises:
            What reading them raises.
        """
        assert not skip
        assert not reverse
        while (chunk := self._rest or next(self._chunks, None)) is not None:
            keys, values = chunk
            low = bisect_left(keys, start)
            high = len(keys) if stop is None else bisect_left(keys, stop)
            self._rest = (keys[high:], values[high:]) if high < len(keys) else None
            if low < high:
                yield keys[low:high], values[low:high]
            if self._rest is not None:
                return


class SequentialTable(Forward):
    """A table open for one pass.

    Args:
        fs: Where it is.
        directory: The store's directory.
        file: What the manifest says of it.
        step: Called before each window is read.

    Attributes:
        ranges: What its range tombstones cover in older tables.
        exhausted: Whether every entry was read.

    Raises:
        CorruptionError: The file's size or its footer is not what the manifest says; or, as it
            is read, what was read is not what was written.
        OSError: The device refused.

    Cost: memory for a window of 256 KiB, or for the largest block.
    """

    def __init__(
        self, fs: FileSystem, directory: str, file: TableFile, step: Callable[[], None]
    ) -> None:
        self.name = file.name
        self._step = step
        self._file = fs.open(f"{directory}/{file.name}")
        try:
            self._footer = self._read_footer(file)
            self.ranges = self._read_ranges()
        except BaseException:
            self._file.close()
            raise
        super().__init__(self._read_blocks())
        self.exhausted = False

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._file.close()

    def _read_footer(self, file: TableFile) -> layout.Footer:
        size, name = self._file.size, self.name
        if size != file.size:
            raise CorruptionError(name, 0, f"{size} bytes long, expected {file.size}")
        header = self._file.read(0, layout.TABLE_HEADER_SIZE)
        layout.check_table_header(header, name)
        footer_at = max(size - layout.FOOTER_SIZE, 0)
        raw = self._file.read(footer_at, layout.FOOTER_SIZE)
        footer = layout.decode_footer(raw, footer_at, name)
        if layout.footer_crc(raw) != file.crc:
            raise CorruptionError(name, footer_at, "another table than the manifest means")
        return footer

    def _read_ranges(self) -> Ranges:
        start, stop = self._footer.ranges_offset, self._footer.size - layout.FOOTER_SIZE
        if start == stop:
            return Ranges()
        return layout.read_ranges(self._file.read(start, stop - start), start, self.name, start)

    def _read_blocks(self) -> Iterator[Chunk]:
        window = _Window(b"", 0, self.name)
        at, end = layout.TABLE_HEADER_SIZE, self._footer.hash_offset
        entries = blocks = blocks_crc = 0
        while at < end:
            if at + layout.BLOCK_HEADER_SIZE > window.end:
                window = self._window(at, _WINDOW_SIZE)
            size = window.block_size(at)
            if at + size > window.end and window.end < end:
                window = self._window(at, max(size, _WINDOW_SIZE))
            keys, values = window.block(at)
            entries += len(keys)
            blocks += 1
            local = at - window.start
            blocks_crc = crc32(window.data[local : local + 4], blocks_crc)
            at += size
            yield keys, values
        counted = self._footer._replace(
            hash_offset=at, entries=entries, blocks=blocks, blocks_crc=blocks_crc
        )
        self.exhausted = True
        # What is not open any more gives its room back when it is removed.
        self.close()
        if counted != self._footer:
            reason = f"counted {counted}, the footer says {self._footer}"
            raise CorruptionError(self.name, at, reason)

    def _window(self, at: int, size: int) -> _Window:
        self._step()
        size = min(size, self._footer.hash_offset - at)
        return _Window(self._file.read(at, size), at, self.name)


class BlockReader:
    """Reads single blocks of an open table by position, for who wants few of many.

    Through the mapping each would bring 64 KiB around it into memory, to stay.

    Args:
        fs: Where it is.
        directory: The store's directory.
        table: The table.
    """

    def __init__(self, fs: FileSystem, directory: str, table: Table) -> None:
        self._table = table
        self._file = fs.open(f"{directory}/{table.file.name}")

    def block(self, i: int) -> Chunk:
        """Return the entries of block `i`.

        Raises:
            CorruptionError: It is not what was written.
            OSError: The device refused.
        """
        offset, end = self._table.block_index.offsets[i : i + 2]
        if not offset < end <= self._table.footer.hash_offset:
            reason = f"block index has a block from {offset:#x} to {end:#x}"
            raise CorruptionError(self._table.name, self._table.footer.index_offset, reason)
        data = self._file.read(offset, end - offset)
        chunk = _Window(data, offset, self._table.name).block(offset)
        self._table.block_index.check_identity(i, layout.block_crc(data, 0))
        return chunk

    def get(self, key: bytes) -> Found:
        """Return the entry of `key`, or ABSENT. Raises: as `block`."""
        for i in range(*self._table.block_index.span(key, key + b"\x00")):
            keys, values = self.block(i)
            at = bisect_left(keys, key)
            if at < len(keys) and keys[at] == key:
                return values[at]
        return ABSENT

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._file.close()


class SequentialRun:
    """A run of tables without a key in common, as one source for `merged`.

    Args:
        fs: Where they are.
        directory: The store's directory.
        files: What the manifest says of them, in key order.
        step: As of `SequentialTable`.

    Attributes:
        ranges: What their range tombstones cover in older tables.

    Cost: one file is open at a time; each is opened twice, the first time for its ranges.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        files: Sequence[TableFile],
        step: Callable[[], None],
    ) -> None:
        self._open = partial(SequentialTable, fs, directory, step=step)
        self._files = list(files[::-1])
        self.ranges = Ranges()
        for file in files:
            with closing(self._open(file=file)) as table:
                self.ranges = self.ranges.union(table.ranges)
        self._table = self._open(file=self._files.pop())

    def chunks(
        self, start: bytes, stop: bytes | None, *, skip: int = 0, reverse: bool = False
    ) -> Iterator[Chunk]:
        """Yield the entries in [start, stop), as `SequentialTable.chunks`."""
        assert not skip
        assert not reverse
        while True:
            yield from self._table.chunks(start, stop)
            if not self._table.exhausted or not self._files:
                return
            self._table = self._open(file=self._files.pop())

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._table.close()


class _Window(NamedTuple):
    """A part of a table's file, from `start` to `end`."""

    data: bytes
    start: int
    name: str

    @property
    def end(self) -> int:
        return self.start + len(self.data)

    def block_size(self, at: int) -> int:
        if at + layout.BLOCK_HEADER_SIZE > self.end:
            raise CorruptionError(self.name, at, "the blocks end before this one")
        return layout.block_size(memoryview(self.data), at - self.start)

    def block(self, at: int) -> Chunk:
        """Return the entries of the block at `at` in the file, verified."""
        return layout.read_block(self.data, at, self.name, self.start)
