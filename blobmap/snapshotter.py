"""`BlobSnapshotter`: any snapshotter, and with each snapshot the content blob it stands for.

A thin wrapper. Each method of the snapshotter is here on purpose, most of them only passed
on. Beside them the map: which blob a snapshot stands for, who holds a blob, and that a blob
is deleted exactly when its last holder goes.

    a snapshot, an image, or work  ── holds ──▶  a blob  ── is deleted when none does

How that stays true under threads, failures, and crashes is written where it is done:
`mappings`, `removal` (intents), `deletions` (the queue), `images`, `work`, `reconcile`; what
is recorded, and how, in `schema`.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Self

from blobmap import digest as digests
from blobmap._map import holding, usage
from blobmap._map.catalog import Catalog
from blobmap._map.claims import Claims
from blobmap._map.deletions import Deletions
from blobmap._map.images import Images
from blobmap._map.mappings import Mappings
from blobmap._map.parts import Parts, check_methods
from blobmap._map.removal import Removal
from blobmap._map.schema import Scope
from blobmap._map.work import Works
from blobmap.errors import InvalidArgument
from blobmap.reconcile import Reconciliation
from blobmap.refs import Refs

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path
    from types import TracebackType

    from blobkv.testing import FileSystem
    from blobmap._map.holding import Explanation
    from blobmap._map.usage import DiskUsage
    from blobmap._map.work import Work
    from blobmap.contracts import Blob, ContentStore, Image, Info, Mount, Snapshotter, Usage
    from blobmap.reconcile import Report


class BlobSnapshotter:
    """A snapshotter whose snapshots stand for content blobs. Safe to call from many threads.

    Several of them may share one root, one after the other: each sees its own snapshots and
    images only, but a blob is kept while any of them holds it, for one root means one content
    store. A content store that is itself divided into namespaces needs a root for each.

    Opening ends what a crash left unfinished. What cannot be ended now, because the
    snapshotter or the content store fails, is logged to the logger "blobmap", stays recorded,
    and is tried again later.

    Args:
        inner: The snapshotter to wrap. It is this object's from here on: nobody else should
            remove snapshots from it, and `close` closes it.
        content: Where the blobs are. `close` leaves it open unless `close_content`.
        root: The directory of the map's store; made if it does not exist.
        name: The snapshotter's name, which keeps apart what several record in one root.
        namespace: Likewise.
        close_content: Whether `close` closes `content`, too.
        lock_timeout: How long to wait for another who has the map open, in seconds.
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
        fs: FileSystem | None = None,
    ) -> None:
        check_methods(inner, content)
        if not str(root):
            raise InvalidArgument("root is empty: give the directory of the map")
        refs = Refs.open(root, Scope(namespace, name), lock_timeout=lock_timeout, fs=fs)
        self._parts = parts = Parts(refs, inner, content)
        self._closes_content = close_content
        self._catalog = Catalog(refs)
        self._deletions = Deletions(parts)
        self._mappings = Mappings(parts, self._deletions)
        self._removal = Removal(parts, self._deletions)
        self._images = Images(parts, self._catalog, self._removal, self._deletions)
        self._works = Works(parts, Claims(refs), self._removal, self._deletions)
        try:
            self._replay()
        except BaseException:
            self._parts.refs.close()
            raise

    @property
    def inner(self) -> Snapshotter:
        """The snapshotter that is wrapped."""
        return self._parts.inner

    @property
    def content(self) -> ContentStore:
        """The content store the blobs are in."""
        return self._parts.content

    @property
    def failure_count(self) -> int:
        """How many deferred steps failed since the map was opened; each was logged."""
        return self._parts.attempts.failure_count

    # The snapshotter's own methods.

    def stat(self, key: str) -> Info:
        """Return the snapshot of any kind, with its blob."""
        return self._mappings.with_blob(self._parts.inner.stat(key))

    def update(self, info: Info, *fieldpaths: str) -> Info:
        """Change labels, as `Snapshotter.update`; `info.blob` is not looked at."""
        changed = self._parts.inner.update(replace(info, blob=None), *fieldpaths)
        return self._mappings.with_blob(changed)

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
        along. What the map has under its key is of an earlier snapshot, and is dropped.
        """
        self._mappings.drop_stale(key)
        self._parts.inner.commit(name, key, labels=labels)

    def remove(self, key: str) -> None:
        """Remove the snapshot, and its blob if nothing else holds that.

        The snapshot is gone when this returns; the blob is, too, or its deletion failed, is
        queued and logged. A snapshot without a blob costs the map no commit.

        Raises:
            NotFound: There is no such snapshot.
            FailedPrecondition: Another snapshot has it as its parent.
        """
        self._removal.remove(key)

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
        """Delete the blobs whose deletion failed before, then pass the call on.

        Raises:
            NotImplementedHere: The snapshotter itself has nothing to clean up.
        """
        self._deletions.carry_out_all()
        self._parts.inner.cleanup()

    def close(self) -> None:
        """Close the map, then the snapshotter, and the content store if asked to. Idempotent.

        What is unfinished stays recorded. A call after this raises FailedPrecondition.
        """
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

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    # The map.

    def get_blob(self, key: str) -> Blob | None:
        """Return the blob that the snapshot stands for, or None if it stands for none.

        Raises:
            NotFound: There is no such snapshot.
        """
        return self.stat(key).blob

    def set_blob(
        self,
        key: str,
        digest: str,
        *,
        diff_id: str | None = None,
        media_type: str | None = None,
        replace: bool = False,
    ) -> None:
        """Let the committed snapshot stand for the blob, which lives as long as it does.

        The same blob again changes nothing, but restores what may be missing of the mapping.

        Args:
            key: The snapshot.
            digest: The blob, which is in the content store.
            diff_id: The digest of the uncompressed layer, if known.
            media_type: The blob's media type, if known.
            replace: Whether to replace another blob, diff ID, or media type.

        Raises:
            NotFound: There is no such snapshot, or no such blob.
            FailedPrecondition: The snapshot is not committed.
            AlreadyExists: It stands for another blob, and not `replace`.
            InvalidArgument: A digest is malformed, or the key cannot be recorded.
        """
        self._mappings.set(
            key, digest, diff_id=diff_id, media_type=media_type, replaces=replace
        )

    def unset_blob(self, key: str) -> None:
        """Let the snapshot stand for no blob; delete the blob if nothing else holds it.

        Of a snapshot that stands for none: nothing happens.

        Raises:
            NotFound: There is no such snapshot.
        """
        self._mappings.unset(key)

    def snapshots_of(self, digest: str) -> Iterator[str]:
        """Yield the snapshots that are recorded to stand for the blob, in key order.

        Raises:
            InvalidArgument: The digest is malformed.
        """
        return self._parts.refs.snapshots_of(digests.validate(digest))

    def references(self, digest: str) -> int:
        """Return how many hold the blob: snapshots, images, and works, of the whole root.

        Raises:
            InvalidArgument: The digest is malformed.

        Cost: one read.
        """
        return self._parts.refs.count(digests.validate(digest))

    def blobs(self) -> Iterator[Blob]:
        """Yield each blob that a snapshot or an image holds, in order of digests.

        Diff ID and media type are those of the first snapshot that stands for it, if any.
        """
        return self._parts.refs.blobs()

    def explain(self, digest: str) -> Explanation:
        """Return who holds the blob, and who holds those, as a tree.

        Raises:
            InvalidArgument: The digest is malformed.
            NotFound: Neither the content store nor the map has the blob.

        Cost: a walk of all snapshots.
        """
        digests.validate(digest)
        return holding.explain(digest, self._parts, self._catalog)

    def disk_usage(self) -> DiskUsage:
        """Return what each snapshot costs, in key order, with shared bytes told apart.

        Cost: a walk, and the usage, of all snapshots.
        """
        return usage.disk_usage(self.walk(), self._parts)

    def reconcile(self, *, dry_run: bool = False, force: bool = False) -> Report:
        """Compare the map with the snapshotter and the content store, and repair it.

        Args:
            dry_run: Only look.
            force: Repair even if much would be dropped.

        Returns:
            What was found, and what was done about it.

        Raises:
            FailedPrecondition: More than a tenth of the mappings would be dropped, or the
                snapshotter looks empty, and not `force`. Nothing was repaired.

        Cost: two walks of the snapshotter, three if mappings are dropped; one of the content
            store; a pass over the map. Memory grows only with what the caches have wrong.
        """
        reconciliation = Reconciliation(
            self._parts,
            catalog=self._catalog,
            removal=self._removal,
            deletions=self._deletions,
            images=self._images,
            works=self._works,
        )
        return reconciliation.run(dry_run=dry_run, force=force)

    # Images and work in flight.

    def set_image(self, image: Image) -> None:
        """Record the image; it holds its `blobs` from here on.

        It replaces an image of the same name: blobs that only the old one held are deleted,
        and snapshots that only the old one listed are removed, from the top down, except
        those that have other children.

        Raises:
            NotFound: A snapshot or a blob of it does not exist.
            FailedPrecondition: One is not committed, or not made on the one before it.
            InvalidArgument: A name cannot be recorded, or a digest is malformed.
        """
        self._images.set(image)

    def get_image(self, name: str) -> Image:
        """Return the image of that name.

        Raises:
            NotFound: There is none.
        """
        return self._images.get(name)

    def images(self) -> Iterator[Image]:
        """Yield each image, by name."""
        return self._images.all()

    def remove_image(self, name: str) -> None:
        """Remove the image, its blobs, and its snapshots, unless something else needs them.

        Snapshots go from the top down. One that another image lists, or that has other
        children, stays, and so do all below it.

        Raises:
            NotFound: There is no such image.
            Exception: Whatever the snapshotter raised; the image is gone, the rest is done
                when this is called again, or at the next open.
        """
        self._images.remove(name)

    def work(self) -> Work:
        """Return a new piece of work, for a with-block, that can hold blobs while it lasts."""
        return self._works.begin()

    def _replay(self) -> None:
        self._removal.replay()
        self._works.replay()
        self._images.replay()
        self._deletions.carry_out_all()
