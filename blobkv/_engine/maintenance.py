"""Flushes and merges: what is done beside the commits to keep reads quick and space bounded.

Frozen memtables become tables, tables are merged as `tiers.py` chooses. A merge is cut into
pieces, and each is put in force at once; between two of them the memtables that were frozen
meanwhile are flushed, and the tables that came of it are merged among themselves, so that a
long merge holds nothing up.

Locks, in the order they may be taken together:

    _merging   over all merges that one call makes, from choosing to the last piece
    _step      over one flush, or one piece, and putting it in force, and over whatever else is
               asked of the builder; whoever waits for a flush waits for no more than that

Invariants:

* Tables are replaced only under `_step`, and the inputs of a merge only by that merge.
* A merge within a merge has newer inputs only.
"""

from __future__ import annotations

import threading
from functools import partial
from typing import TYPE_CHECKING, Final

from blobkv._engine import jobs, tiers
from blobkv._engine.ballast import is_full
from blobkv._engine.builder import Builder
from blobkv._engine.compaction import dispensable
from blobkv._engine.garbage import Garbage
from blobkv._engine.jobs import FlushJob, MergeJob, entry_count
from blobkv._engine.tables import Tables

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from blobkv._engine.ballast import Ballast
    from blobkv._engine.compaction import Piece
    from blobkv._engine.files import FileSystem
    from blobkv._engine.table import Table
    from blobkv._engine.tree import Frozen, Tree

# How far behind merges are: at the first of each pair not at all, at the second altogether.
_RUNS_BEHIND: Final = (12, 24)
_SPACE_BEHIND: Final = (1.35, 1.65)
# Below this, in bytes of tables, the logs decide how much room a store takes.
_SPACE_MIN: Final = 16 << 20


class Maintenance:
    """The work on one store's tables. Any thread may call.

    Args:
        fs: Where the store is.
        directory: Its directory.
        tree: Its layers and manifest.
        ballast: What flushes and merges may use on a full disk.

    Attributes:
        builder: Who writes tables.
        flushes: Memtables written as tables so far.
        compactions: Merges so far.
        table_written: Bytes written to tables so far, merges included.
        merge_read: Bytes of the tables that merges have consumed so far.
        merge_written: Bytes that merges wrote so far.
        behind: How far merges are behind the commits: 0 not at all, 1 as far as may be.
        replacing: Whether most of what was flushed last made garbage of something older.
    """

    def __init__(self, fs: FileSystem, directory: str, tree: Tree, ballast: Ballast) -> None:
        self.flushes = 0
        self.compactions = 0
        self.table_written = 0
        self.merge_read = 0
        self.merge_written = 0
        self.behind = 0.0
        # Of an older store nothing is known yet.
        self.replacing = bool(tree.layers.tables)
        self._fs = fs
        self._directory = directory
        self._tree = tree
        self._ballast = ballast
        self.builder = Builder(
            fs, directory, tree.check_open, tree.new_number, tree.reserved_number
        )
        self._garbage = Garbage(fs, directory, self.builder.pace)
        # What the newest choice took for alive, in bytes of tables.
        self._alive = 0
        self._merging = threading.Lock()
        self._step = threading.Lock()

    def flush(self) -> None:
        """Write every memtable that is frozen by now as a table, the oldest first.

        Waits for another's flush or piece, never for a whole merge.
        """
        try:
            self._flush_each()
        except OSError as error:
            # Only what gives room back may use what is kept for that.
            if not is_full(error) or not self._tree.frozen_shrinks:
                raise
            self._ballast.spend_on(self._flush_together)

    def _flush_each(self) -> None:
        last = self._tree.newest_frozen
        while last is not None and self._tree.is_frozen(last):
            with self._step:
                self._tree.check_open()
                if self._tree.is_frozen(last):
                    self._flush_oldest()

    @property
    def may_want_compaction(self) -> bool:
        """Whether it is worth asking `compact`. O(1)."""
        return len(self._tree.layers.tables.runs) > 1

    def compact(self, *, everything: bool = False) -> None:
        """Merge tables as they need it, or all of them into one run without garbage."""
        with self._merging:
            self._tree.check_open()
            if everything:
                self._ballast.spend_on(self._merge_everything)
            elif tiers.much_garbage(_size(self._tree.layers.tables) - self._alive, self._alive):
                self._ballast.spend_on(partial(self._keep_up, older_count=0))
            else:
                # It would give nothing back.
                self._keep_up(older_count=0)
            self.suit_ballast()

    def suit_ballast(self) -> None:
        """Have a reserve that suits the store's size, if there is room for it."""
        self._ballast.suit(_size(self._tree.layers.tables))

    def stop(self) -> None:
        """End all work at its next slice. From any thread; `check_open` raises by then."""
        self.builder.stop()

    def close(self) -> None:
        """Wait until all work has ended. When this returns nothing is written any more."""
        self.stop()
        with self._merging, self._step:
            self.builder.close()

    def _keep_up(self, older_count: int) -> None:
        """Flush and merge as there is need, but leave the oldest of them as they are."""
        while True:
            self.flush()
            tables = self._tree.layers.tables
            newer = Tables(tables[: len(tables) - older_count]) if older_count else tables
            garbage = 0 if older_count else self._weigh(tables)
            chosen = tiers.choose(newer, garbage)
            if chosen is None:
                return
            self._merge(chosen, tiers.piece_size(_size(tables[chosen]), garbage), cut=True)

    def _merge_everything(self) -> None:
        tables = self._tree.layers.tables
        size = _size(tables)
        piece_size = tiers.whole_piece_size(size)
        garbage = any(table.footer.tombstones or table.ranges for table in tables)
        if len(tables) > 1 + size // piece_size or len(tables.runs) > 1 or garbage:
            self._merge(slice(0, len(tables)), piece_size, cut=False)
            self._weigh(self._tree.layers.tables)

    def _weigh(self, tables: Tables) -> int:
        """Note how much of the tables is alive, and so how far behind merges are.

        Returns:
            Bytes of garbage.
        """
        garbage = self._garbage.estimate(tables.runs)
        self._alive = _size(tables) - garbage
        self._note_behind()
        return garbage

    def _note_behind(self) -> None:
        tables = self._tree.layers.tables
        behind = _between(_RUNS_BEHIND, len(tables.runs))
        size = _size(tables)
        if size >= _SPACE_MIN and self._alive:
            behind = max(behind, _between(_SPACE_BEHIND, size / self._alive))
        self.behind = behind

    def _flush_oldest(self) -> None:
        frozen = self._tree.oldest_frozen
        bottom = not self._tree.layers.tables
        piece = self.builder.flush(self._flush_job(frozen, bottom=bottom), frozen.memtable)
        # Not taken from the answer: it judges what a child has written.
        count = entry_count(frozen.memtable, bottom=bottom)
        self._adopt_flushed(frozen, piece, count)

    def _adopt_flushed(self, newest: Frozen, piece: Piece, entries: int) -> None:
        tree = self._tree
        added = tree.open_written(piece.file, entries)
        tree.flushed((*added, *tree.layers.tables), newest)
        self.flushes += 1
        self.table_written += _size(added)
        # Also amid a merge: whether what is new is garbage decides how far behind that is.
        self._weigh(tree.layers.tables)
        made = sum(map(self._garbage.made_by, added))
        self.replacing = made > _size(added) // 2

    def _flush_together(self) -> None:
        """Write all frozen memtables as one table.

        Where a newer one deletes what an older one holds, that takes less room than the older
        one alone.
        """
        with self._step:
            self._tree.check_open()
            newest = self._tree.newest_frozen
            if newest is None:
                return
            job = self._flush_job(newest, bottom=not self._tree.layers.tables)
            memtable = jobs.replayed(self._fs, job, self.builder.pace)
            memtable.drop_covered()
            number = self.builder.next_number()
            piece = jobs.flush(self._fs, job, number, memtable, self.builder.pace)
            self._adopt_flushed(newest, piece, piece.entries)

    def _flush_job(self, frozen: Frozen, *, bottom: bool) -> FlushJob:
        manifest = self._tree.manifest
        return FlushJob(
            directory=self._directory,
            store=manifest.store_id.hex(),
            logs=[
                (log.number, log.log_id)
                for log in manifest.logs
                if log.number <= frozen.last_log
            ],
            after=manifest.sequence,
            upto=frozen.sequence,
            bottom=bottom,
        )

    def _merge(self, chosen: slice, piece_size: int, *, cut: bool) -> None:
        """Merge neighboring tables, with `cut` so that pieces end where inputs do."""
        tables = self._tree.layers.tables
        progress = _Progress(tables[chosen], tables[chosen.stop :])
        job = partial(progress.job, self._directory, piece_size, cut=cut)
        with self._step:
            merging = self.builder.merge(job, _size(progress.inputs))
        try:
            while progress.inputs:
                with self._step:
                    self._tree.check_open()
                    piece = merging.next_piece()
                    self._adopt(progress, piece)
                if progress.inputs:
                    count = progress.newer_count(self._tree.layers.tables)
                    self._keep_up(older_count=len(self._tree.layers.tables) - count)
        finally:
            with self._step:
                merging.close()
        self.compactions += 1

    def _adopt(self, progress: _Progress, piece: Piece) -> None:
        added = self._tree.open_written(piece.file, piece.entries)
        gone = set(dispensable(progress.inputs, piece.end))
        tables = self._tree.layers.tables
        above = tables[: len(tables) - len(progress.rest)]
        self._tree.replace_tables(
            [*(table for table in above if table not in gone), *added, *progress.rest]
        )
        progress.start = piece.end or b""
        progress.inputs = [table for table in progress.inputs if table not in gone]
        progress.written += added
        self.merge_read += _size(gone)
        self.merge_written += _size(added)
        self.table_written += _size(added)
        self._note_behind()


class _Progress:
    """How far a merge has come.

    Attributes:
        inputs: The inputs that are left, the newest first.
        written: The pieces that are in force.
        rest: What is older than the inputs.
        start: The first key that no piece covers yet.
    """

    def __init__(self, inputs: Sequence[Table], rest: Sequence[Table]) -> None:
        self.inputs = list(inputs)
        self.written: list[Table] = []
        self.rest = rest
        self.start = b""

    def newer_count(self, tables: Sequence[Table]) -> int:
        """Return how many tables are newer than the inputs and the pieces."""
        return len(tables) - len(self.inputs) - len(self.written) - len(self.rest)

    def job(self, directory: str, piece_size: int, *, cut: bool) -> MergeJob:
        """Return what is left to be done."""
        extents = [table.extent() for table in self.inputs if cut]
        return MergeJob(
            directory=directory,
            runs=[[table.file for table in run.tables] for run in Tables(self.inputs).runs],
            start=self.start.hex(),
            # There an input may go.
            cuts=sorted({stop.hex() for _, stop in extents if stop is not None}),
            piece_size=piece_size,
            bottom=not self.rest,
        )


def _size(tables: Iterable[Table]) -> int:
    return sum(table.size for table in tables)


def _between(bounds: tuple[float, float], figure: float) -> float:
    first, last = bounds
    return min(max((figure - first) / (last - first), 0.0), 1.0)
