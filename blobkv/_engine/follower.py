"""A reader beside a live writer, usually in another process: it follows what is on disk.

It takes no lock that the writer waits for. The files of the manifest it read stay
readable even when the writer has removed their names. A new manifest means reading anew;
otherwise only the frames that the last log has gained since are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobkv._engine import recovery
from blobkv._engine.manifest import MANIFEST_NAME
from blobkv._engine.memtable import Memtable
from blobkv._engine.state import Layers
from blobkv._engine.tables import Tables

if TYPE_CHECKING:
    from threading import Lock

    from blobkv._engine.files import FileSystem
    from blobkv._engine.log import LogReader
    from blobkv._engine.manifest import Manifest
    from blobkv._engine.views import Views


class Follower:
    """The newest state of a store that another may be writing.

    One thread at a time refreshes it; `layers` and `visible` are read under the state lock.

    Attributes:
        layers: What a new view reads.
        visible: The last commit that it reads.
        manifest: The manifest last read.

    Raises:
        UsageError: There is no store.
        CorruptionError: What was written is not what is there.
    """

    def __init__(self, fs: FileSystem, directory: str, views: Views, lock: Lock) -> None:
        self._fs = fs
        self._views = views
        self._directory = directory
        self._lock = lock
        self._identity: tuple[int, ...] = ()
        self._tail: LogReader | None = None
        self.layers = Layers(Memtable(lock), (), Tables())
        self.visible = 0
        self.manifest: Manifest
        self._read()

    def refresh(self) -> None:
        """Read what has come to the disk since.

        Cost: one stat, and one read of what the last log has gained, with a sync if the writer
        has not synced it yet; where the manifest was replaced, the opening of its new tables
        and a replay of its logs.
        """
        try:
            if self._identity != self._fs.identity(f"{self._directory}/{MANIFEST_NAME}"):
                self._read()
            else:
                self._read_tail()
        except BaseException:
            # What was read may not be what was applied: the next refresh reads it all anew.
            self._identity = ()
            raise

    @property
    def log_size(self) -> int:
        """Bytes read of the last log."""
        return 0 if self._tail is None else self._tail.end.offset

    def close(self) -> None:
        """Release the log, the tables, and memory. Idempotent."""
        if self._tail is not None:
            self._tail.close()
        with self._lock:
            self.layers = Layers(Memtable(self._lock), (), Tables())

    def _read_tail(self) -> None:
        if self._tail is None:
            return
        memtable = self.layers.active
        frames = list(self._tail.frames())
        # Before anybody sees them: visible means durable in every process.
        self._tail.sync()
        for frame in frames:
            entries = dict(zip(frame.keys, frame.values, strict=True))
            with self._lock:
                readers = self._views.sequences()
                oldest = min(readers, default=frame.sequence)
                if readers:
                    readers.append(frame.sequence)
                memtable.apply(frame.sequence, entries, frame.ranges, readers=readers)
                self.visible = frame.sequence
                memtable.forget(oldest)

    def _read(self) -> None:
        recovery.check_present(self._fs, self._directory)
        # Before the manifest: if it is replaced in between, the next refresh sees that.
        identity = self._fs.identity(f"{self._directory}/{MANIFEST_NAME}")
        known = {table.file: table for table in self.layers.tables}
        found = recovery.recover(self._fs, self._directory, self._lock, known)
        if found.tail is not None:
            try:
                found.tail.sync()
            except BaseException:
                found.tail.close()
                raise
        tables = Tables(found.tables)
        old = self._tail
        with self._lock:
            self._identity = identity
            self._tail = found.tail
            self.manifest = found.manifest
            self.layers = Layers(found.memtable, (), tables)
            self.visible = found.sequence
        if old is not None:
            old.close()
