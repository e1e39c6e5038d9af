"""`BlobSnapshotter`: any snapshotter, and with each snapshot the content blob it stands for.

A thin wrapper. Each method of the snapshotter is here on purpose, most of them only passed
on. Beside them the map, in `blob_map`: which blob a snapshot stands for, who holds a blob, and
that a blob is deleted exactly when its last holder goes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobmap._map import usage
from blobmap._map.background import Background
from blobmap._map.events import RETENTION, Retention
from blobmap._map.parts import Parts, check_methods
from blobmap._map.schema import Scope
from blobmap.blob_map import BlobMap
from blobmap.clock import Clock, utc_now
from blobmap.closing import Closing
from blobmap.contracts import Policy
from blobmap.errors import InvalidArgument
from blobmap.refs import Refs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from blobkv.testing import FileSystem
    from blobmap.contracts import ContentStore, Info, Mount, Snapshotter, Usage


class BlobSnapshotter(BlobMap, Closing):
    """A snapshotter whose snapshots stand for content blobs. Safe to call from many threads.

    Several of them may share one root, one after the other: each sees its own snapshots and
    images only, but a blob is kept while any of them holds it, for one root means one content
    store. A content store that is itself divided into namespaces needs a root for each.

    Opening ends what a crash left unfinished. What cannot be ended now, because the
    snapshotter or the content store fails, is logged to the logger "blobmap", stays recorded,
    and is tried again later, by the background and by later calls. Any call may be given a
    deadline, see `blobmap.deadline`.

    Args:
        inner: The snapshotter to wrap. It is this object's from here on: nobody else should
            remove snapshots from it, and `close` closes it.
        content: Where the blobs are. `close` leaves it open unless `close_content`.
        root: The directory of the map's store; made if it does not exist.
        name: The snapshotter's name, which keeps apart what several record in one root.
        namespace: Likewise.
        close_content: Whether `close` closes `content`, too.
        lock_timeout: How long to wait for another who has the map open, in seconds.
        policy: Whether a snapshot keeps the blobs that it refers to, where a call does not say.
        background: Whether to have threads that delete blobs and end leases. Without them the
            calling threads delete, and try again what failed, and nothing happens in between.
        patience: How long a call that lets go of a blob waits for its deletion in the
            background, in seconds.
        retention: How much of the feed of events is kept.
        clock: Tells the time, in UTC; for tests.
        fs: The file system under the map's store, for tests that cut the power.

    Raises:
        InvalidArgument: `inner` or `content` lacks a method, or a name is malformed.
        blobkv.LockedError: The map is open already, here or in another process.
        FailedPrecondition: A newer blobmap wrote the map.
    """

    def __init__(
        self,
        inner: Snapshotter,
        content: ContentStore,
        root: str | Path,
        *,
        name: str = "default",
        namespace: str = "default",
        close_content: bool = False,
        lock_timeout: float = 0.0,
        policy: Policy = Policy.RETAIN,
        background: bool = True,
        patience: float = 0.5,
        retention: Retention = RETENTION,
        clock: Clock = utc_now,
        fs: FileSystem | None = None,
    ) -> None:
        check_methods(inner, content)
        if not str(root):
            raise InvalidArgument("root is empty: give the directory of the map")
        refs = Refs.open(
            root,
            Scope(namespace, name),
            lock_timeout=lock_timeout,
            clock=clock,
            retention=retention,
            fs=fs,
        )
        parts = Parts(refs, inner, content, background=Background() if background else None)
        super().__init__(parts, policy=policy, patience=patience)
        self._closes_content = close_content
        try:
            self._replay()
        except BaseException:
            if parts.background is not None:
                parts.background.close()
            refs.close()
            raise

    @property
    def inner(self) -> Snapshotter:
        """The snapshotter that is wrapped."""
        return self._parts.inner

    @property
    def content(self) -> ContentStore:
        """The content store the blobs are in."""
        return self._parts.content

    # The snapshotter's own methods.

    def stat(self, key: str) -> Info:
        """Return the snapshot of any kind, with its blob."""
        return self._mappings.stat(key)

    def update(self, info: Info, *fieldpaths: str) -> Info:
        """Change labels, as `Snapshotter.update`; `info.blob` is not looked at."""
        return self._mappings.update(info, *fieldpaths)

    def usage(self, key: str) -> Usage:
        """Return the snapshot's own bytes and inodes, and the bytes of its blob.

        A blob that several snapshots share is counted for each: see `disk_usage`. One that is
        missing counts nothing, and is logged.
        """
        blob = self.get_blob(key)
        return usage.usage_of(key, self._parts.inner.usage(key), blob, self._parts.content)

    def mounts(self, key: str) -> list[Mount]:
        """Return the mounts of an active snapshot or a view. Passed on."""
        return self._parts.inner.mounts(key)

    def prepare(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        """Make an active snapshot. Passed on: a new snapshot stands for no blob.

        Should the map still have a blob for an earlier snapshot of this key, the new one does
        not inherit it, for a mapping is bound to the time of creation.
        """
        return self._parts.inner.prepare(key, parent, labels=labels)

    def view(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        """Make a read-only snapshot. Passed on: as `prepare`."""
        return self._parts.inner.view(key, parent, labels=labels)

    def commit(self, name: str, key: str, *, labels: Mapping[str, str] | None = None) -> None:
        """Turn the active snapshot `key` into the committed snapshot `name`.

        Only a committed snapshot can stand for a blob, so an active one has nothing to take
        along. What the map has under its key is of an earlier snapshot, and is dropped, and
        so is the metadata of the active one.
        """
        self._mappings.drop_stale(key)
        lives = self._notes.lives(key)
        self._parts.inner.commit(name, key, labels=labels)
        self._notes.drop(key, lives)

    def remove(self, key: str, *, wait: bool = False) -> None:
        """Remove the snapshot, and each blob that nothing else holds.

        The snapshot is gone when this returns. Its blobs are deleted in the background, and as
        this waits for that a moment (`patience`) are gone, too, in the usual case; a deletion
        that fails or hangs stays queued, see `pending`, is logged, and is tried again. A
        snapshot of which nothing is recorded costs the map no commit.

        Args:
            key: The snapshot.
            wait: Whether to delete at once, in this thread, however long that takes.

        Raises:
            NotFound: There is no such snapshot.
            FailedPrecondition: Another snapshot has it as its parent.
            Unavailable: With `wait` only: the snapshot is removed, but a blob could not be
                deleted; its deletion stays queued.
        """
        self._removal.remove(key, wait=wait)

    def walk(self, *filters: str) -> Iterator[Info]:
        """Yield each snapshot that some filter matches, in key order, with its blob.

        Beside the snapshotter's own fields, filters may speak of `blob` (the digest),
        `blob.digest`, `blob.diff_id`, and `blob.media_type`. Those are evaluated here; others
        are passed on.

        Raises:
            InvalidArgument: A filter does not parse.
        """
        return self._mappings.walk(*filters)

    def cleanup(self) -> None:
        """End what has expired, delete what was left over, then pass the call on.

        Raises:
            NotImplementedHere: The snapshotter itself has nothing to clean up.
        """
        self._leases.end_expired()
        self._parts.refs.trim_events()
        self._deletions.carry_out_all()
        self._parts.inner.cleanup()

    def close(self) -> None:
        """Close the map, then the snapshotter, and the content store if asked to. Idempotent.

        What is unfinished stays recorded. A deletion that is under way is waited for: were it
        to end later, it might take a blob that is held again by then. A call after this raises
        FailedPrecondition.

        Raises:
            DeadlineExceeded: A deletion is still under way at the caller's deadline; the map
                stays locked. Close it again.
        """
        if self._parts.background is not None:
            self._parts.background.close()
        self._deletions.close()
        try:
            self._parts.refs.close()
        finally:
            try:
                self._parts.inner.close()
            finally:
                if self._closes_content:
                    self._parts.content.close()

    def __repr__(self) -> str:
        return f"BlobSnapshotter({self.inner!r}, {self.content!r})"
