"""A reader beside a live writer, usually in another process: it follows what is on disk.

It takes no lock, so the writer never notices it. The files of the manifest it read stay
readable even when the writer has removed their names. A new manifest means reading anew;
otherwise only the frames that the last log has gained since are read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobkv._engine import recovery
from blobkv._engine.manifest import MANIFEST_NAME
from blobkv._engine.merge import Layers

if TYPE_CHECKING:
    from threading import Lock

    from blobkv._engine.fs import FileSystem
    from blobkv._engine.manifest import Manifest
    from blobkv._engine.views import Views


class Follower:
    """The newest state of a store that another may be writing.

    One thread at a time refreshes it; `layers` and `visible` are read under the state lock.

    Attributes:
        visible: The last commit that a new view reads.

    Raises:
        UsageError: There is no store.
        CorruptionError: What was written is not what is there.
    """

    def __init__(self, fs: FileSystem, directory: str, views: Views, lock: Lock) -> None:
        self._fs = fs
        self._views = views
        self._directory = directory
        self._lock = lock
        self._read()

    @property
    def manifest(self) -> Manifest:
        """The manifest last read."""
        return self._found.manifest

    @property
    def layers(self) -> Layers:
        """What a new view reads."""
        return Layers(self._found.memtable, (), self._found.tables)

    def refresh(self) -> None:
        """Read what has come to the disk since.

        Cost: one stat, and one read of what the last log has gained.
        """
        if self._identity != self._fs.identity(f"{self._directory}/{MANIFEST_NAME}"):
            self.close()
            self._read()
        tail = self._found.tail
        if tail is not None:
            for frame in tail.frames():
                entries = dict(zip(frame.keys, frame.values, strict=True))
                with self._lock:
                    self._found.memtable.apply(
                        frame.sequence, entries, frame.ranges, remember=True
                    )
                    self.visible = frame.sequence
                    oldest = self._views.oldest()
                    self._found.memtable.forget(frame.sequence if oldest is None else oldest)

    def close(self) -> None:
        """Release the log. Idempotent."""
        if self._found.tail is not None:
            self._found.tail.close()

    def _read(self) -> None:
        # Before the manifest: if it is replaced in between, the next refresh sees that.
        recovery.check_present(self._fs, self._directory)
        self._identity = self._fs.identity(f"{self._directory}/{MANIFEST_NAME}")
        found = recovery.recover(self._fs, self._directory, self._lock)
        with self._lock:
            self._found = found
            self.visible = found.sequence
