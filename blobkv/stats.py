"""What a store can tell about itself in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RunStats:
    """Tables without a key in common: a point read asks one of them at most.

    Attributes:
        tables: How many they are.
        size: Their bytes.
        entries: Their entries, tombstones and shadowed ones included.
    """

    tables: int
    size: int
    entries: int


@dataclass(frozen=True, slots=True)
class Stats:
    """A store at one moment; counts and byte totals since it was opened unless said otherwise.

    Attributes:
        sequence: The last visible commit, over the store's whole life.
        commits: Commits made.
        syncs: Device syncs those commits took; fewer where commits shared one.
        sync_ns: How long those syncs took, in all.
        sync_ns_max: How long the longest of them took.
        stalls: How often commits were delayed since flushes or merges were behind.
        stall_ns: For how long, in all.
        flushes: Memtables written as tables.
        compactions: Merges of tables.
        log_size: Bytes in the newest log now.
        memtable_count: Entries in memory now, tombstones and shadowed ones included.
        frozen_count: Memtables that wait for their flush now.
        table_count: Tables now.
        table_size: Bytes in tables now.
        table_entries: Entries in tables now, tombstones and shadowed ones included.
        runs: The tables by runs now, the newest first.
        log_written: Bytes appended to logs.
        table_written: Bytes written to tables.
        merge_read: Bytes of the tables that merges have consumed.
        merge_written: Of `table_written`, what merges wrote.
        child_tables: Tables that a child process has written.
        child_reason: Why the last large table was written in this process; None if it was not.
        views: Commits that open views read now; views of one commit count once.
        oldest_view: The sequence of the oldest of them; None if no view is open.
        failure: What the last flush or compaction in the background failed with, or None.
    """

    sequence: int
    commits: int
    syncs: int
    sync_ns: int
    sync_ns_max: int
    stalls: int
    stall_ns: int
    flushes: int
    compactions: int
    log_size: int
    memtable_count: int
    frozen_count: int
    table_count: int
    table_size: int
    table_entries: int
    runs: tuple[RunStats, ...]
    log_written: int
    table_written: int
    merge_read: int
    merge_written: int
    child_tables: int
    child_reason: str | None
    views: int
    oldest_view: int | None
    failure: str | None

    @property
    def write_amplification(self) -> float:
        """Bytes written for each byte that was committed; 1.0 before any flush."""
        if not self.log_written:
            return 1.0
        return (self.log_written + self.table_written) / self.log_written
