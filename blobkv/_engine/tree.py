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
from typing import TYPE_CHECKING, Final, NamedTuple

from blobkv._engine.log import Log, LogFile
from blobkv._engine.memtable import Memtable
from blobkv._engine.state import Layers
from blobkv._engine.table import Table
from blobkv._engine.tables import Tables
from blobkv.errors import ClosedError, CorruptionError, PoisonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from blobkv._engine.files import FileSystem
    from blobkv._engine.manifest import Manifest
    from blobkv._engine.recovery import Recovered
    from blobkv._engine.table import TableFile
    from blobkv._engine.views import Views


# Each lot costs a manifest.
_RESERVED_COUNT: Final = 8


class Frozen(NamedTuple):
    """A memtable that takes no more commits.

    Attributes:
        memtable: Its changes.
        sequence: Its last commit.
        last_log: The number of the last log that holds some of them.
    """

    memtable: Memtable
    sequence: int
    last_log: int


class Tree:
    """Layers and manifest of a store open for writing.

    Attributes:
        layers: What readers read; replaced under the state lock.
        manifest: What is on disk.
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
        self._fs = fs
        self._directory = directory
        self._state_lock = state_lock
        self._views = views
        self._manifest_lock = threading.Lock()
        self._next_number = found.manifest.next_number
        self._frozen: list[Frozen] = []
        self._reserved: list[int] = []
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
        file = LogFile(self.new_number(), secrets.randbits(32))
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
        """Have `check_open` raise, with which every flush and merge ends."""
        self._closed = True

    def close(self) -> None:
        """Let go of memory and tables, and put nothing in force any more.

        Every flush and merge has ended.
        """
        self.stop()
        with self._manifest_lock, self._state_lock:
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
            self._frozen.append(Frozen(active, sequence, last_log))
            self.layers = Layers(Memtable(self._state_lock), (active, *frozen), tables)
            self._views.renew()

    @property
    def oldest_frozen(self) -> Frozen:
        """The frozen memtable that is flushed next; there is one."""
        return self._frozen[0]

    @property
    def newest_frozen(self) -> Frozen | None:
        """The frozen memtable that is flushed last."""
        return self._frozen[-1] if self._frozen else None

    @property
    def frozen_shrinks(self) -> bool:
        """Whether what waits for its flush may free more than it takes. O(entries), in C."""
        return any(frozen.memtable.shrinks for frozen in list(self._frozen))

    def is_frozen(self, frozen: Frozen) -> bool:
        """Return whether it is not flushed yet."""
        return frozen in self._frozen

    def open_written(self, file: TableFile | None, entries: int) -> tuple[Table, ...]:
        """Open a table that was written, to be put in force, if there is one.

        Args:
            file: What was written.
            entries: How many entries were put in it.

        Raises:
            CorruptionError: It does not hold them, and was removed; or there is none.
        """
        if file is None:
            if entries:
                reason = f"no table was written for {entries} entries"
                raise CorruptionError(self._directory, 0, reason)
            return ()
        try:
            return (_opened(self._fs, self._directory, file, entries),)
        except BaseException:
            self._remove([file.name])
            raise

    def flushed(self, tables: Sequence[Table], newest: Frozen) -> None:
        """Put tables in force, in which the frozen memtables up to that one are now.

        Raises: as `replace_tables`.
        """
        self._replace_tables(
            tables,
            lambda manifest: replace(
                manifest,
                sequence=newest.sequence,
                logs=tuple(log for log in manifest.logs if log.number > newest.last_log),
            ),
            flushed=self._frozen.index(newest) + 1,
        )

    def replace_tables(self, tables: Sequence[Table]) -> None:
        """Put tables in force, and remove those that are not among them.

        Raises:
            OSError: The device refused; what is new among them was removed, unless the store
                is poisoned.
        """
        self._replace_tables(tables, lambda manifest: manifest, flushed=0)

    def _replace_tables(
        self,
        tables: Sequence[Table],
        change: Callable[[Manifest], Manifest],
        *,
        flushed: int,
    ) -> None:
        files = tuple(table.file for table in tables)
        before = self.manifest.names
        try:
            after = self._switch(lambda manifest: change(replace(manifest, tables=files)))
        except BaseException:
            for file in files:
                if file.name not in before:
                    self._remove_unless_named(file.name)
            raise
        # Before the lock: it reads.
        current = Tables(tables)
        with self._state_lock:
            active, frozen, _ = self.layers
            self.layers = Layers(active, frozen[: len(frozen) - flushed], current)
            del self._frozen[:flushed]
            self._views.renew()
        self._remove(before - after.names)

    def _switch(self, change: Callable[[Manifest], Manifest]) -> Manifest:
        with self._manifest_lock:
            self.check_writable()
            self.check_open()
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

    def new_number(self) -> int:
        """Return a number for a file that nobody had before."""
        # Never reused, even if what was to have it failed: its file may be there.
        with self._state_lock:
            number = self._next_number
            self._next_number += 1
            return number

    def reserved_number(self) -> int:
        """Return a new number that the manifest on disk counts as used.

        Whoever opens the store after this process has died gives it to no other file, even
        if a file of that name appears only then.
        """
        if not self._reserved:
            numbers = [self.new_number() for _ in range(_RESERVED_COUNT)]
            self._switch(lambda manifest: manifest)
            self._reserved = numbers
        return self._reserved.pop(0)

    def _remove_unless_named(self, name: str) -> None:
        # Poisoned, the manifest that names it may be in force. And it is, if an interrupt came
        # when the switch was done.
        if self._poison is None and name not in self.manifest.names:
            self._remove([name])

    def check_open(self) -> None:
        """Raise ClosedError once the store is being closed."""
        if self._closed:
            raise ClosedError(f"{self._directory}: the store was closed meanwhile")

    def _remove(self, names: Iterable[str]) -> None:
        for name in sorted(names):
            with suppress(OSError):
                self._fs.remove(f"{self._directory}/{name}")


def _opened(fs: FileSystem, directory: str, file: TableFile, entries: int) -> Table:
    table = Table.open(fs, directory, file)
    if table.footer.entries != entries:
        reason = f"{table.footer.entries} entries, though {entries} were written"
        raise CorruptionError(file.name, 0, reason)
    return table
