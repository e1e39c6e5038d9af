"""What a store can tell about itself in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Stats:
    """A store at one moment; counts and byte totals since it was opened unless said otherwise.

    Attributes:
        sequence: The last visible commit, over the store's whole life.
        commits: Commits made.
        syncs: Device syncs those commits took; fewer where commits shared one.
        flushes: Memtables written as tables.
        compactions: Merges of tables.
        log_size: Bytes in the newest log now.
        memtable_count: Entries in memory now, tombstones and shadowed ones included.
        frozen_count: Memtables that wait for their flush now.
        table_count: Tables now.
        table_size: Bytes in tables now.
        table_entries: Entries in tables now, tombstones and shadowed ones included.
        log_written: Bytes appended to logs.
        table_written: Bytes written to tables.
        views: Views open now.
        oldest_view: The sequence that the oldest of them reads; None if none is open.
        failure: What the last flush or compaction in the background failed with, or None.
    """

    sequence: int
    commits: int
    syncs: int
    flushes: int
    compactions: int
    log_size: int
    memtable_count: int
    frozen_count: int
    table_count: int
    table_size: int
    table_entries: int
    log_written: int
    table_written: int
    views: int
    oldest_view: int | None
    failure: str | None

    @property
    def write_amplification(self) -> float:
        """Bytes written for each byte that was committed; 1.0 before any flush."""
        if not self.log_written:
            return 1.0
        return (self.log_written + self.table_written) / self.log_written
