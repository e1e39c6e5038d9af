"""What a store tells in numbers, gathered from where they are counted."""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobkv._engine.writer import Writer
from blobkv.stats import RunStats, Stats

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobkv._engine.follower import Follower


def figures(source: Writer | Follower, read: Sequence[int]) -> Stats:
    """Return the figures of a store. Called under the state lock. O(tables).

    Args:
        source: What it reads from, and writes to.
        read: The sequences that are read.
    """
    tables = source.layers.tables
    writer = source if isinstance(source, Writer) else None
    work = writer.maintenance if writer else None
    return Stats(
        sequence=source.visible,
        commits=writer.commits if writer else 0,
        syncs=writer.syncs if writer else 0,
        sync_ns=writer.sync_ns if writer else 0,
        sync_ns_max=writer.sync_ns_max if writer else 0,
        stalls=writer.pressure.stalls if writer else 0,
        stall_ns=writer.pressure.stall_ns if writer else 0,
        flushes=work.flushes if work else 0,
        compactions=work.compactions if work else 0,
        log_size=source.log_size,
        memtable_count=sum(map(len, source.layers.memtables)),
        frozen_count=len(source.layers.frozen),
        table_count=len(tables),
        table_size=sum(table.size for table in tables),
        table_entries=sum(table.footer.entries for table in tables),
        runs=tuple(
            RunStats(
                tables=len(run.tables),
                size=sum(table.size for table in run.tables),
                entries=sum(table.footer.entries for table in run.tables),
            )
            for run in tables.runs
        ),
        log_written=writer.log_written if writer else 0,
        table_written=work.table_written if work else 0,
        merge_read=work.merge_read if work else 0,
        merge_written=work.merge_written if work else 0,
        child_tables=work.builder.child_tables if work else 0,
        child_reason=work.builder.child_reason if work else None,
        views=len(read),
        oldest_view=min(read, default=None),
        failure=str(writer.failure) if writer and writer.failure else None,
    )
