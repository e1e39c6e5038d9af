"""Which tables to merge, and the merge; a flush is the same with a memtable as its source.

Size-tiered: tables of like size are merged once there are a few of them, so each entry is
rewritten O(log n) times and reads probe O(log n) tables. Only neighbors in age are merged,
which keeps the tables ordered by age: for any key the newer table decides.

A tombstone, or a range tombstone, may go only when no older table is left that it could
hide something in: at the bottom.

Source: RocksDB's universal compaction.
"""

from __future__ import annotations

from contextlib import suppress
from operator import lt
from typing import TYPE_CHECKING, Final

from blobkv._engine.merge import merged
from blobkv._engine.ranges import Ranges
from blobkv._engine.table import table_name
from blobkv._engine.table_writer import TableWriter
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobkv._engine.fs import FileSystem
    from blobkv._engine.memtable import Chunk
    from blobkv._engine.table import Table, TableFile

_TIER_COUNT: Final = 4


def choose(sizes: Sequence[int]) -> slice | None:
    """Return which neighbors to merge, or None if none.

    Args:
        sizes: The tables' sizes in bytes, the newest first.

    From each table on, a run goes on while the next is no larger than all of the run before
    it; the first run of at least four is merged. Or all are, once the newer ones together
    are as large as the oldest: what they shadow could then be half of the store.
    """
    if len(sizes) >= _TIER_COUNT and sum(sizes[:-1]) >= sizes[-1]:
        return slice(0, len(sizes))
    for first in range(len(sizes)):
        total = sizes[first]
        end = first + 1
        while end < len(sizes) and sizes[end] <= total:
            total += sizes[end]
            end += 1
        if end - first >= _TIER_COUNT:
            return slice(first, end)
    return None


def merged_chunks(tables: Sequence[Table]) -> Iterator[Chunk]:
    """Yield the entries of neighboring tables, the newest first, as those of one."""
    return merged(tables, b"", None)


def merged_ranges(tables: Sequence[Table]) -> Ranges:
    """Return what the range tombstones of all the tables cover."""
    return Ranges(bounds for table in tables for bounds in table.ranges)


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
        chunks: The entries; cost: memory for one block a table and 12 bytes an entry.
        ranges: The range tombstones that go with them.
        bottom: Whether no older table exists, so that tombstones have nothing to hide.
    """
    if bottom:
        chunks = _without_tombstones(chunks)
        ranges = Ranges()
    first = next(chunks, None)
    if first is None and not ranges:
        return None
    path = f"{directory}/{table_name(number)}"
    file = fs.create(path)
    try:
        writer = TableWriter(file, number)
        if first is not None:
            _add(writer, first)
        for chunk in chunks:
            _add(writer, chunk)
        table = writer.finish(ranges)
        fs.sync_directory(directory)
    except BaseException:
        # A full disk needs the room back; if even that fails, the next open does it.
        with suppress(OSError):
            fs.remove(path)
        raise
    finally:
        file.close()
    return table


def _add(writer: TableWriter, chunk: Chunk) -> None:
    keys, values = chunk
    # Merged from files: an order that is wrong must not reach another file.
    if not all(map(lt, keys, keys[1:])):
        raise CorruptionError("table", 0, f"keys past {keys[0]!r} are not in order")
    writer.add(keys, values)


def _without_tombstones(chunks: Iterator[Chunk]) -> Iterator[Chunk]:
    for keys, values in chunks:
        if None in values:
            kept = [i for i, value in enumerate(values) if value is not None]
            if kept:
                yield [keys[i] for i in kept], [values[i] for i in kept]
        else:
            yield keys, values
