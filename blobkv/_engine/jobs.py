"""What is asked of whoever writes tables, in this process or in a child.

A job is plain numbers and strings, so that it can cross to another process as JSON. A flush
needs no entry to cross: what a frozen memtable holds is exactly what its sealed logs hold.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, NamedTuple

from blobkv._engine.compaction import Merge, Piece, in_order, write_table
from blobkv._engine.log import End, LogFile, LogReader
from blobkv._engine.memtable import Memtable
from blobkv._engine.recovery import replay
from blobkv._engine.table import TableFile
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobkv._engine.files import FileSystem


class FlushJob(NamedTuple):
    """A memtable to be written as a table.

    Attributes:
        directory: The store's directory.
        store: The store's id, in hexadecimal.
        logs: Number and id of each log that holds what the memtable holds, the oldest first.
        after: The last commit before those logs.
        upto: Their last commit.
        bottom: Whether no older table exists, so that tombstones have nothing to hide.
    """

    directory: str
    store: str
    logs: list[tuple[int, int]]
    after: int
    upto: int
    bottom: bool


class MergeJob(NamedTuple):
    """Tables to be merged.

    Attributes:
        directory: The store's directory.
        runs: The inputs, as `Merge` takes them; in JSON a list for each file.
        start: The first key that no piece covers yet, in hexadecimal.
        cuts: Where pieces would best end, in hexadecimal, ascending.
        piece_size: How large a piece is to be, in bytes.
        bottom: Whether no older table exists, so that tombstones have nothing to hide.
    """

    directory: str
    runs: list[list[TableFile]]
    start: str
    cuts: list[str]
    piece_size: int
    bottom: bool


def replayed(fs: FileSystem, job: FlushJob, step: Callable[[], None]) -> Memtable:
    """Read the logs of a flush as the memtable that they stand for.

    Raises:
        CorruptionError: They do not hold the commits that they should.
        OSError: The device refused.
    """
    memtable = Memtable(threading.Lock())
    end = End("MANIFEST", 0, job.after)
    for number, log_id in job.logs:
        store_id = bytes.fromhex(job.store)
        reader = LogReader.open_after(fs, job.directory, LogFile(number, log_id), store_id, end)
        try:
            for frame in reader.frames():
                step()
                replay(memtable, [frame])
            reader.check_end()
            end = reader.end
        finally:
            reader.close()
    if end.sequence != job.upto:
        reason = f"ends with commit {end.sequence}, not {job.upto}"
        raise CorruptionError(end.path, end.offset, reason)
    return memtable


def flush(
    fs: FileSystem, job: FlushJob, number: int, memtable: Memtable, step: Callable[[], None]
) -> Piece:
    """Write a memtable that does not change any more as table `number`.

    Raises:
        OSError: The device refused; there is no such table.
    """
    file = write_table(
        fs,
        job.directory,
        number,
        in_order(memtable.newest, step),
        memtable.ranges(job.upto),
        bottom=job.bottom,
    )
    return Piece(file, entry_count(memtable, bottom=job.bottom), None)


def entry_count(memtable: Memtable, *, bottom: bool) -> int:
    """Return how many entries the memtable has as a table. O(entries), in C."""
    tombstones = list(memtable.newest.values()).count(None) if bottom else 0
    return len(memtable) - tombstones


def merge(fs: FileSystem, job: MergeJob, step: Callable[[], None]) -> Merge:
    """Begin a merge. Raises: as `Merge`."""
    return Merge(
        fs,
        job.directory,
        [[TableFile(*file) for file in run] for run in job.runs],
        start=bytes.fromhex(job.start),
        cuts=map(bytes.fromhex, job.cuts),
        piece_size=job.piece_size,
        bottom=job.bottom,
        step=step,
    )
