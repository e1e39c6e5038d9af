"""Writing tables: a flush from a memtable, a merge from older tables.

A merge writes its output in pieces: tables without a key in common, in key order, each cut
off when it is large enough. A piece is put in force as soon as it is written, together with
the removal of the inputs that are not needed any more, so that a merge of the whole store
never needs room for a second copy of it, and what is done is done when it is broken off.

Each state between two pieces is right for every reader, because of two rules:

* Pieces stand below all inputs that are left, and above what is older than the inputs.
* An input goes only when all of it was consumed, and nothing that is older and left can hold
  a key of it, nor a range tombstone over one: `dispensable`.

Take any key before the end of the last piece, and let X be the newest input that decides it,
by an entry or by a range tombstone. If X is left it still decides: the order of the inputs
has not changed, and pieces are below. If X is gone then so is every older input that knows
the key, and no newer one does: the pieces decide, and they hold what X said, or nothing where
X said "deleted" and nothing older exists. A key past the end is in inputs only, all left.

The range tombstones of the inputs are cut to the keys of each piece: there the pieces take
their place, and beyond it the inputs still do.

A tombstone, or a range tombstone, may go only when no older table is left that it could
hide something in: at the bottom.

Source: RocksDB's subcompactions and FASTER's incremental log compaction, without a level.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from blobkv._engine.merge import merged, without_tombstones
from blobkv._engine.ranges import Ranges
from blobkv._engine.sequential import SequentialRun
from blobkv._engine.table import table_name
from blobkv._engine.table_writer import TableWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    from blobkv._engine.files import FileSystem
    from blobkv._engine.memtable import Chunk
    from blobkv._engine.table import Table, TableFile

# To sort so many keys holds the interpreter for 3 ms.
_SORTED_MAX: Final = 16_000
_CHUNK_COUNT: Final = 512


class Piece(NamedTuple):
    """A table that was written: a part of a merge's output, or all of a flush's.

    Attributes:
        file: The table; None if no entry was left to be written.
        entries: How many entries were put in it.
        end: Every input was consumed up to here, in key order; None for all of it.
    """

    file: TableFile | None
    entries: int
    end: bytes | None


def write_table(
    fs: FileSystem,
    directory: str,
    number: int,
    chunks: Iterator[Chunk],
    ranges: Ranges,
    *,
    bottom: bool,
) -> TableFile | None:
    """Write entries in key order as table `number`, durable and named, or nothing at all.

    Args:
        fs: Where to.
        directory: The store's directory.
        number: The table's number, never used before.
        chunks: The entries.
        ranges: The range tombstones that go with them.
        bottom: Whether no older table exists, so that tombstones have nothing to hide.

    Raises:
        CorruptionError: The entries are not in order.

    Cost: as `TableWriter`.
    """
    if bottom:
        chunks = _without_tombstones(chunks)
        ranges = Ranges()
    first = next(chunks, None)
    if first is None and not ranges:
        return None

    def fill(writer: TableWriter) -> Ranges:
        if first is not None:
            writer.add(*first)
        for chunk in chunks:
            writer.add(*chunk)
        return ranges

    return _write(fs, directory, number, fill)


def write_tables(
    fs: FileSystem, directory: str, number: int, chunks: Iterator[Chunk], size: int
) -> list[TableFile]:
    """Write entries in key order as tables, from `number` on, in key order, too.

    Args:
        fs: Where to.
        directory: Where no file has one of these numbers.
        number: That of the first.
        chunks: The entries; tombstones are left out, since there is nothing below.
        size: How large a table may become before the next is begun, in bytes of its blocks.

    Raises:
        CorruptionError: The entries are not in order.
        OSError: The device refused; tables before that one are there.

    Cost: as `TableWriter`.
    """
    files: list[TableFile] = []
    chunks = _without_tombstones(chunks)
    pending = next(chunks, None)

    def fill(writer: TableWriter) -> Ranges:
        nonlocal pending
        while pending is not None and writer.size < size:
            writer.add(*pending)
            pending = next(chunks, None)
        return Ranges()

    while pending is not None:
        files.append(_write(fs, directory, number + len(files), fill))
    return files


def in_order(
    entries: Mapping[bytes, bytes | None], step: Callable[[], None]
) -> Iterator[Chunk]:
    """Yield a memtable's entries in key order, though it is not ordered yet.

    Args:
        entries: Not changed any more.
        step: Called often enough between calls that hold the interpreter.

    Cost: the keys are dealt out to parts by their order, and then sorted a part at a time.
    """
    parts = _parted(list(entries), step)
    while parts:
        keys = parts.pop(0)
        step()
        keys.sort()
        for at in range(0, len(keys), _CHUNK_COUNT):
            step()
            chunk = keys[at : at + _CHUNK_COUNT]
            yield chunk, [entries[key] for key in chunk]


class Merge:
    """A merge under way.

    Args:
        fs: Where the tables are.
        directory: The store's directory.
        runs: The inputs, neighbors in age, the newest first; each is tables without a key in
            common, in key order.
        start: The first key that no piece covers yet.
        cuts: Where pieces would best end, since an input does, ascending.
        piece_size: How large a piece is to be, in bytes of its blocks. It is from half of that
            to half as much more, to end at a cut, and less if it is the last.
        bottom: Whether no older table exists, so that tombstones have nothing to hide.
        step: Called between slices of work; raises to end it.

    Raises:
        CorruptionError: An input is not what was written.
        OSError: The device refused.

    Cost: memory for a window and some blocks of each run, 12 bytes an entry of a piece, and
    18 more while it is finished.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        runs: Sequence[Sequence[TableFile]],
        *,
        start: bytes,
        cuts: Iterable[bytes],
        piece_size: int,
        bottom: bool,
        step: Callable[[], None],
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._start = start
        # The next one last.
        self._cuts = list(cuts)[::-1]
        self._piece_size = piece_size
        self._step = step
        self._entries = 0
        self._inputs: list[SequentialRun] = []
        try:
            for files in runs:
                self._inputs.append(SequentialRun(fs, directory, files, step))
            chunks = merged(self._inputs, start, None)
            if bottom:
                chunks = _without_tombstones(chunks)
                self._ranges = Ranges()
            else:
                self._ranges = Ranges(bounds for run in self._inputs for bounds in run.ranges)
            self._chunks = chunks
            self._next = next(chunks, None)
        except BaseException:
            self.close()
            raise

    def write_next(self, number: int) -> Piece:
        """Write the next piece as table `number`, durable and named; the last has no end.

        Raises: as the class; then there is no such table.
        """
        if self._next is None and not self._ranges:
            return Piece(None, 0, None)
        self._entries = 0
        file = _write(self._fs, self._directory, number, self._fill)
        return Piece(file, self._entries, None if self._next is None else self._start)

    def close(self) -> None:
        """Release the inputs. Idempotent."""
        for run in self._inputs:
            run.close()

    def _fill(self, writer: TableWriter) -> Ranges:
        start = self._start
        size_max = self._piece_size + (self._piece_size // 2 if self._cuts else 0)
        while self._next is not None and writer.size < size_max:
            self._step()
            keys, values = self._next
            end = keys[-1] + b"\x00"
            cut = self._cut_upto(end) if writer.size >= self._piece_size // 2 else None
            self._start = cut or end
            # Keys that are out of order are the writer's to refuse.
            count = len(keys) if cut is None else bisect_left(keys, cut)
            self._add(writer, keys[:count], values[:count])
            rest = keys[count:], values[count:]
            self._next = rest if rest[0] else next(self._chunks, None)
            if cut is not None:
                break
        return self._ranges.within(start, None if self._next is None else self._start)

    def _add(
        self, writer: TableWriter, keys: Sequence[bytes], values: Sequence[bytes | None]
    ) -> None:
        if keys:
            writer.add(keys, values)
            self._entries += len(keys)

    def _cut_upto(self, end: bytes) -> bytes | None:
        """Return the first cut past the start and up to `end`; those before it are dropped."""
        while self._cuts and self._cuts[-1] <= self._start:
            self._cuts.pop()
        return self._cuts[-1] if self._cuts and self._cuts[-1] <= end else None


def dispensable(inputs: Sequence[Table], end: bytes | None) -> list[Table]:
    """Return the inputs, the newest first, that a merge consumed up to `end` can do without.

    Cost: O(inputs).
    """
    found = []
    # Where the first of those begins that stay and are older than the one looked at.
    staying: bytes | None = None
    for table in reversed(inputs):
        start, stop = table.extent()
        consumed = end is None or (stop is not None and stop <= end)
        if consumed and (staying is None or (stop is not None and stop <= staying)):
            found.append(table)
        else:
            staying = start if staying is None else min(start, staying)
    return found


def _write(
    fs: FileSystem, directory: str, number: int, fill: Callable[[TableWriter], Ranges]
) -> TableFile:
    """Write table `number`; `fill` adds the entries and returns the range tombstones."""
    path = f"{directory}/{table_name(number)}"
    file = fs.create(path)
    try:
        writer = TableWriter(file, number)
        table = writer.finish(fill(writer))
        fs.sync_directory(directory)
    except BaseException:
        # A full disk needs the room back; if even that fails, the next open does it.
        with suppress(OSError):
            fs.remove(path)
        raise
    finally:
        file.close()
    return table


def _without_tombstones(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    for chunk in map(without_tombstones, chunks):
        if chunk[0]:
            yield chunk


def _parted(keys: list[bytes], step: Callable[[], None]) -> list[list[bytes]]:
    count = -(-len(keys) // _SORTED_MAX)
    if count <= 1:
        return [keys]
    # More parts than needed, since those that a sample makes are of unlike size.
    count *= 2
    sample = sorted(islice(keys, None, None, max(len(keys) // (64 * count), 1)))
    bounds = sample[:: len(sample) // count][1:]
    parts: list[list[bytes]] = [[] for _ in range(len(bounds) + 1)]
    for at in range(0, len(keys), _CHUNK_COUNT):
        step()
        for key in keys[at : at + _CHUNK_COUNT]:
            parts[bisect_right(bounds, key)].append(key)
    return parts
