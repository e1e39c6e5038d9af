"""The layers of a store that can be written, and the manifest that names their files.

Commits go to the active memtable. When it has grown it is frozen, later flushed as a table;
tables are merged now and then. Each of these steps replaces the manifest first and then
`layers` as a whole, so that a reader holds either the old state or the new one, and a crash
leaves one of the two on disk.

Every name that a step makes unneeded is removed after the step is durable. One that cannot be
removed is left to the next open: it wastes room, no more.

Invariants:

* `layers.frozen`, like `layers.tables`, is ordered from the newest to the oldest; all of it
  is older than `layers.active` and newer than every table.
* The manifest's logs hold exactly what the memtables hold.
"""

from __future__ import annotations

import secrets
import threading
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, NamedTuple

from blobkv._engine import compaction
from blobkv._engine.log import Log, LogFile
from blobkv._engine.memtable import Memtable
from blobkv._engine.state import Layers
from blobkv._engine.table import Table
from blobkv._engine.tables import Tables
from blobkv.errors import ClosedError, PoisonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from blobkv._engine.fs import FileSystem
    from blobkv._engine.manifest import Manifest
    from blobkv._engine.memtable import Chunk
    from blobkv._engine.ranges import Ranges
    from blobkv._engine.recovery import Recovered
    from blobkv._engine.table import TableFile
    from blobkv._engine.views import Views


class _Frozen(NamedTuple):
    memtable: Memtable
    sequence: int
    last_log: int


class Tree:
    """Layers and manifest of a store open for writing.

    Attributes:
        layers: What readers read; replaced under the state lock.
        manifest: What is on disk.
        flushes: Memtables written as tables so far.
        compactions: Merges so far.
        table_written: Bytes written to tables so far.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        found: Recovered,
        state_lock: threading.Lock,
        views: Views,
    ) -> None:
        self.layers = Layers(found.memtable, (), Tables(found.tables))
        self.manifest = found.manifest
        self.flushes = 0
        self.compactions = 0
        self.table_written = 0
        self._fs = fs
        self._directory = directory
        self._state_lock = state_lock
        self._views = views
        self._maintenance_lock = threading.Lock()
        self._manifest_lock = threading.Lock()
        self._next_number = found.manifest.next_number
        self._frozen: list[_Frozen] = []
        self._poison: BaseException | None = None
        self._closed = False

    def check_writable(self) -> None:
        """Raise PoisonedError if an earlier write or sync failed."""
        if self._poison is not None:
            raise PoisonedError(
                f"{self._directory}: an earlier write or sync failed; close the store and open "
                "it again"
            ) from self._poison

    def poison(self, cause: BaseException) -> None:
        """Refuse every later write."""
        self._poison = self._poison or cause

    @property
    def poisoned(self) -> bool:
        """Whether writes are refused."""
        return self._poison is not None

    def open_log(self, sequence: int) -> Log:
        """Make a log for the commits after `sequence`, and name it in the manifest."""
        file = LogFile(self._new_number(), secrets.randbits(32))
        store_id = self.manifest.store_id
        try:
            log = Log.create(self._fs, self._directory, file, store_id, sequence)
        except BaseException:
            self._remove([file.name])
            raise
        try:
            self._switch(lambda manifest: replace(manifest, logs=(*manifest.logs, file)))
        except BaseException:
            log.close()
            self._remove_unless_named(file.name)
            raise
        return log

    def stop(self) -> None:
        """Have every flush and merge end at its next chunk, with ClosedError."""
        self._closed = True

    def close(self) -> None:
        """Wait until every flush and merge has ended, and let go of memory and tables.

        When this returns, nothing of this tree writes any more, whatever thread began it.
        """
        self.stop()
        with self._maintenance_lock, self._manifest_lock, self._state_lock:
            self._frozen.clear()
            self.layers = Layers(Memtable(self._state_lock), (), Tables())

    def freeze(self, sequence: int) -> None:
        """Put a new memtable in place of the active one, which ends with commit `sequence`.

        The caller holds the write lock and has sealed the log: all of it is durable.
        """
        last_log = max((log.number for log in self.manifest.logs), default=0)
        with self._state_lock:
            # Read under the lock: a flush or a merge may replace the tables at any moment.
            active, frozen, tables = self.layers
            if not active:
                return
            self._frozen.append(_Frozen(active, sequence, last_log))
            self.layers = Layers(Memtable(self._state_lock), (active, *frozen), tables)
            self._views.renew()

    def flush(self) -> None:
        """Write every frozen memtable as a table, the oldest first."""
        with self._maintenance_lock:
            self._check_open()
            while self._frozen:
                self._flush_oldest()

    @property
    def wants_compaction(self) -> bool:
        """Whether `compact` would merge anything."""
        return self._choose() is not None

    def compact(self, *, everything: bool = False) -> None:
        """Merge tables as they need it, or all of them into one."""
        with self._maintenance_lock:
            self._check_open()
            while True:
                tables = self.layers.tables
                if everything:
                    chosen = slice(0, len(tables)) if _worth_merging(tables) else None
                else:
                    chosen = self._choose()
                if chosen is None:
                    return
                self._merge(tables, chosen)

    def _choose(self) -> slice | None:
        return compaction.choose([table.size for table in self.layers.tables])

    def _flush_oldest(self) -> None:
        oldest = self._frozen[0]
        tables = self.layers.tables
        memtable = oldest.memtable
        file = self._write(
            memtable.chunks(b"", None, oldest.sequence),
            memtable.ranges(oldest.sequence),
            bottom=not tables,
        )
        self._replace_tables(
            (*self._opened(file), *tables),
            lambda manifest: replace(
                manifest,
                sequence=oldest.sequence,
                logs=tuple(log for log in manifest.logs if log.number > oldest.last_log),
            ),
            file,
            flushed=1,
        )
        self.flushes += 1

    def _merge(self, tables: Tables, chosen: slice) -> None:
        merged = tables[chosen]
        file = self._write(
            compaction.merged_chunks(merged),
            compaction.merged_ranges(merged),
            bottom=chosen.stop == len(tables),
        )
        self._replace_tables(
            (*tables[: chosen.start], *self._opened(file), *tables[chosen.stop :]),
            lambda manifest: manifest,
            file,
            flushed=0,
        )
        self.compactions += 1

    def _write(
        self, chunks: Iterator[Chunk], ranges: Ranges, *, bottom: bool
    ) -> TableFile | None:
        return compaction.write_table(
            self._fs,
            self._directory,
            self._new_number(),
            self._until_closed(chunks),
            ranges,
            bottom=bottom,
        )

    def _replace_tables(
        self,
        tables: tuple[Table, ...],
        change: Callable[[Manifest], Manifest],
        written: TableFile | None,
        *,
        flushed: int,
    ) -> None:
        files = tuple(table.file for table in tables)
        before = self.manifest.names
        try:
            after = self._switch(lambda manifest: change(replace(manifest, tables=files)))
        except BaseException:
            if written is not None:
                self._remove_unless_named(written.name)
            raise
        # Before the lock: it reads.
        current = Tables(tables)
        with self._state_lock:
            active, frozen, _ = self.layers
            self.layers = Layers(active, frozen[: len(frozen) - flushed], current)
            del self._frozen[:flushed]
            self._views.renew()
        self._remove(before - after.names)

    def _opened(self, file: TableFile | None) -> tuple[Table, ...]:
        if file is None:
            return ()
        self.table_written += file.size
        return (Table.open(self._fs, self._directory, file),)

    def _switch(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        with self._manifest_lock:
            self.check_writable()
            self._check_open()
            manifest = replace(
                change(self.manifest),
                epoch=self.manifest.epoch + 1,
                next_number=self._next_number,
            )
            manifest.write_aside(self._fs, self._directory)
            try:
                manifest.replace(self._fs, self._directory)
                self.manifest = manifest
            except BaseException as error:
                # The old one or the new one is in force now, and nobody knows which.
                self.poison(error)
                raise
            return manifest

    def _new_number(self) -> int:
        # Never reused, even if what was to have it failed: its file may be there.
        with self._state_lock:
            number = self._next_number
            self._next_number += 1
            return number

    def _remove_unless_named(self, name: str) -> None:
        # Poisoned, the manifest that names it may be in force. And it is, if an interrupt came
        # when the switch was done.
        if self._poison is None and name not in self.manifest.names:
            self._remove([name])

    def _check_open(self) -> None:
        if self._closed:
            raise ClosedError(f"{self._directory}: the store was closed meanwhile")

    def _until_closed(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        for chunk in chunks:
            self._check_open()
            yield chunk

    def _remove(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            with suppress(OSError):
                self._fs.remove(f"{self._directory}/{name}")


def _worth_merging(tables: Sequence[Table]) -> bool:
    return len(tables) > 1 or any(table.footer.tombstones or table.ranges for table in tables)
