"""How much of the tables is garbage: entries that newer ones shadow, and what deletes them.

It is estimated, a table at a time, from 100 to 200 keys spread over the table: the share of
them that an older table has alive, too, is taken for the share of all its entries that make
garbage of an older one. (The standard error is at most 5 per cent.) Tombstones are
counted, and what range tombstones cover is measured by the block index.

An estimate holds for as long as the table has the same older ones, so a flush costs one.

Source: the sampled garbage estimate of Titan's value logs, turned to tables.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import ExitStack
from typing import TYPE_CHECKING, Final

from blobkv._engine.memtable import ABSENT
from blobkv._engine.sequential import BlockReader
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blobkv._engine.files import FileSystem
    from blobkv._engine.table import Table
    from blobkv._engine.tables import Run

_SAMPLE_COUNT: Final = 200


class Garbage:
    """Estimates, kept for as long as they hold. Used by one thread at a time.

    Args:
        fs: Where the tables are.
        directory: The store's directory.
        step: Called between slices of work; raises to end it.
    """

    def __init__(self, fs: FileSystem, directory: str, step: Callable[[], None]) -> None:
        self._fs = fs
        self._step = step
        self._directory = directory
        self._known: dict[tuple[int, ...], int] = {}
        self._by_table: dict[int, int] = {}

    def estimate(self, runs: Sequence[Run]) -> int:
        """Return how many bytes of the runs, the newest first, no reader needs any more.

        Cost: for each table that is new, or has other older ones, up to 200 reads of one
        block in each older run.
        """
        found: dict[tuple[int, ...], int] = {}
        # A table's own run has no key in common with it.
        for i, run in enumerate(runs):
            older = runs[i + 1 :]
            # Numbers are never used again.
            others = tuple(table.file.number for run in older for table in run.tables)
            for table in run.tables:
                key = table.file.number, *others
                known = self._known.get(key)
                found[key] = self._weigh(table, older) if known is None else known
        self._known = found
        self._by_table = {number: made for (number, *_), made in found.items()}
        total = sum(table.size for run in runs for table in run.tables)
        # What several range tombstones cover was counted more than once.
        return min(sum(found.values()), total)

    def made_by(self, table: Table) -> int:
        """Return this table's part of the newest estimate, 0 if it had none."""
        return self._by_table.get(table.file.number, 0)

    def _weigh(self, table: Table, older: Sequence[Run]) -> int:
        """Return the bytes of the table's tombstones and of what it shadows in older ones."""
        footer = table.footer
        garbage = footer.tombstones * (table.size // max(footer.entries, 1))
        tables = [each for run in older for each in run.tables]
        entries = sum(each.footer.entries for each in tables)
        if not entries:
            return garbage
        try:
            with ExitStack() as stack:
                share = self._share_shadowing(table, older, stack)
            for bounds in table.ranges:
                garbage += sum(each.size_within(*bounds) for each in tables)
        except CorruptionError:
            # Whoever reads what is damaged is told. A guess that is too low harms nobody.
            return garbage
        entry_size = sum(each.size for each in tables) / entries
        return garbage + int(footer.entries * share * entry_size)

    def _share_shadowing(self, table: Table, older: Sequence[Run], stack: ExitStack) -> float:
        """Return of how many of the table's keys older tables hold a value."""
        readers: dict[Table, BlockReader] = {}

        def reader(of: Table) -> BlockReader:
            if of not in readers:
                readers[of] = BlockReader(self._fs, self._directory, of)
                stack.callback(readers[of].close)
            return readers[of]

        def is_alive(key: bytes) -> bool:
            self._step()
            for run in older:
                at = bisect_right(run.firsts, key) - 1 if run.firsts else 0
                found = reader(run.tables[at]).get(key) if at >= 0 else ABSENT
                if found is not ABSENT:
                    return found is not None
                if run.ranges.covers(key):
                    return False
            return False

        keys = _sample(table, reader(table))
        return sum(map(is_alive, keys)) / max(len(keys), 1)


def _sample(table: Table, reader: BlockReader) -> list[bytes]:
    """Return up to 200 keys of a table, spread evenly; all if there are no more."""
    blocks = table.block_index.count
    keys: list[bytes] = []
    for i in range(0, blocks, _stride(blocks)):
        found, _ = reader.block(i)
        keys += found[:: _stride(len(found) * blocks)]
    # Each block gave at least one, so they may be twice as many.
    return keys[:: _stride(len(keys))]


def _stride(count: int) -> int:
    """Return how far apart to take them, that no more than a sample are taken."""
    return max(-(-count // _SAMPLE_COUNT), 1)
