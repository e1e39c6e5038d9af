"""`BlobMap`: which blobs belong to a snapshot, who holds a blob, and when it may go.

    a snapshot, an image, a lease, or work  ── holds ──▶  a blob  ── goes when none does

This is the map's own half of `BlobSnapshotter`; the snapshotter's half is in `snapshotter`.
How it stays true under threads, failures, and crashes is written where it is done: `mappings`,
`removal` (intents), `deletions` (the queue), `images`, `work`, `leases`, `reconcile`; what is
recorded, and how, in `schema`.
"""

from __future__ import annotations

from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from blobmap import digest as digests
from blobmap._map import holding, usage
from blobmap._map.catalog import Catalog
from blobmap._map.claims import Claims
from blobmap._map.deletions import Deletions
from blobmap._map.images import Images
from blobmap._map.leases import Leases
from blobmap._map.mappings import Mappings
from blobmap._map.notes import Notes
from blobmap._map.removal import Removal
from blobmap._map.work import Works
from blobmap.contracts import LAYER, Blob, Policy, Reference
from blobmap.reconcile import Reconciliation, restore_index

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from blobmap._map.deletions import Pending
    from blobmap._map.events import Event
    from blobmap._map.holding import Explanation
    from blobmap._map.leases import Lease, LeaseInfo
    from blobmap._map.parts import Parts
    from blobmap._map.plan import RemovalPlan
    from blobmap._map.usage import DiskUsage
    from blobmap._map.work import Work
    from blobmap.contracts import Image
    from blobmap.findings import Report

_LEASE_LIFETIME: Final = timedelta(days=1)
_QUARANTINE: Final = timedelta(days=7)


class BlobMap:
    """The map of one snapshotter. Safe to call from many threads.

    Args:
        parts: What it works with.
        policy: What a reference means where the call does not say.
        patience: How long to wait for deletions in the background, in seconds.
    """

    def __init__(self, parts: Parts, *, policy: Policy, patience: float) -> None:
        self._parts = parts
        self._policy = policy
        self._catalog = Catalog(parts.refs)
        self._deletions = Deletions(parts, patience)
        self._mappings = Mappings(parts, self._deletions)
        self._notes = Notes(parts)
        self._removal = Removal(parts, self._deletions)
        self._images = Images(parts, self._catalog, self._removal, self._deletions)
        self._leases = Leases(parts, self._deletions)
        self._works = Works(parts, Claims(parts.refs), self._removal, self._deletions)

    @property
    def failure_count(self) -> int:
        """How many deferred steps failed since the map was opened; each was logged."""
        return self._parts.attempts.failure_count

    # What a snapshot stands for.

    def get_blob(self, key: str) -> Blob | None:
        """Return the blob that the snapshot stands for, or None; NotFound without snapshot."""
        return self._mappings.stat(key).blob

    def set_blob(
        self,
        key: str,
        digest: str,
        *,
        diff_id: str | None = None,
        media_type: str | None = None,
        replace: bool = False,
        policy: Policy | None = None,
    ) -> None:
        """Let the committed snapshot stand for the blob, which lives as long as it does.

        The same blob again changes nothing, but restores what may be missing of the mapping.
        It is `set_reference` in the role "layer".

        Args:
            key: The snapshot.
            digest: The blob, which is in the content store.
            diff_id: The digest of the uncompressed layer, if known.
            media_type: The blob's media type, if known.
            replace: Whether to replace another blob, diff ID, or media type.
            policy: Whether the snapshot keeps the blob; as the map does, if not given.

        Raises:
            NotFound: There is no such snapshot, or no such blob.
            FailedPrecondition: The snapshot is not committed.
            AlreadyExists: It stands for another blob, and not `replace`.
            InvalidArgument: A digest is malformed, or the key cannot be recorded.
        """
        blob = Blob(digest, 0, diff_id, media_type)
        reference = Reference(LAYER, blob, policy or self._policy)
        self._mappings.set(key, reference, replaces=replace, cause="set_blob")

    def unset_blob(self, key: str) -> None:
        """Let the snapshot stand for no blob; delete the blob if nothing else holds it.

        Of a snapshot that stands for none: nothing happens.

        Raises:
            NotFound: There is no such snapshot.
        """
        self._mappings.unset(key, LAYER, "unset_blob")

    # What else belongs to a snapshot.

    def set_reference(
        self,
        key: str,
        role: str,
        digest: str,
        *,
        diff_id: str | None = None,
        media_type: str | None = None,
        annotations: Mapping[str, str] | None = None,
        policy: Policy | None = None,
        replace: bool = False,
    ) -> None:
        """Let the committed snapshot refer to the blob in that role.

        One blob a role: "layer" is the one that the snapshot stands for; others are the
        caller's, such as "layer+zstd" for another compression, or "build" for a record of how
        it was made. The same again changes nothing, and adds what was not known.

        Args:
            key: The snapshot.
            role: What the blob is to it.
            digest: The blob, which is in the content store.
            diff_id: The digest of the uncompressed layer, if known.
            media_type: The blob's media type, if known.
            annotations: What is to be noted about it.
            policy: Whether the snapshot keeps the blob; as the map does, if not given.
            replace: Whether to replace what is recorded otherwise.

        Raises:
            NotFound: There is no such snapshot, or no such blob.
            FailedPrecondition: The snapshot is not committed.
            AlreadyExists: Something else is recorded in that role, and not `replace`.
            InvalidArgument: A digest is malformed, or a name cannot be recorded.
        """
        blob = Blob(digest, 0, diff_id, media_type)
        reference = Reference(role, blob, policy or self._policy, dict(annotations or {}))
        self._mappings.set(key, reference, replaces=replace, cause=f"set_reference {role!r}")

    def unset_reference(self, key: str, role: str) -> None:
        """Let the snapshot refer to no blob in that role; as `unset_blob`."""
        self._mappings.unset(key, role, f"unset_reference {role!r}")

    def references_of(self, key: str) -> tuple[Reference, ...]:
        """Return what the snapshot refers to, by role; NotFound if there is no such."""
        return self._mappings.all_of(key)

    def metadata(self, key: str) -> dict[str, object]:
        """Return what metadata the snapshot carries, by name; NotFound if there is no such."""
        return self._notes.all_of(key)

    def set_metadata(self, key: str, name: str, value: object) -> None:
        """Have the snapshot, of whatever kind, carry the value under that name.

        It comes back as the type it had: text, a number, a truth value, a list, a mapping of
        text to such. It goes with the snapshot; a committed one does not inherit it.

        Args:
            key: The snapshot.
            name: Up to 1 KiB.
            value: Up to 1 MiB as JSON; None to drop what is there.

        Raises:
            NotFound: There is no such snapshot.
            InvalidArgument: JSON has no such value, or it is too large.
        """
        self._notes.set(key, name, value)

    # Who holds a blob.

    def snapshots_of(self, digest: str, *, role: str = LAYER) -> Iterator[str]:
        """Yield the snapshots that refer to the blob in that role, in key order.

        Raises:
            InvalidArgument: The digest is malformed.
        """
        return self._parts.refs.snapshots_of(digests.validate(digest), role)

    def references(self, digest: str) -> int:
        """Return how many hold the blob, of whatever kind and scope. Cost: one read."""
        return self._parts.refs.count(digests.validate(digest))

    def blobs(self) -> Iterator[Blob]:
        """Yield each blob that a snapshot or an image holds, by digest, as the first has it."""
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
        return usage.disk_usage(self._mappings.walk(), self._parts)

    def reconcile(
        self,
        *,
        dry_run: bool = False,
        force: bool = False,
        quarantine: timedelta = _QUARANTINE,
    ) -> Report:
        """Compare the map with the snapshotter and the content store, and repair it.

        Args:
            dry_run: Only look.
            force: Repair even if much would be dropped, and without quarantine.
            quarantine: How long to keep blobs that only suspicion says are held by nothing.

        Returns:
            What was found, and what was done about it.

        Raises:
            FailedPrecondition: More than a tenth of the mappings would be dropped, or the
                snapshotter looks empty, and not `force`. Nothing was repaired.
            Exception: Whatever the snapshotter or the content store raised; ask again later.

        Cost: O(snapshots + blobs) time; memory for what is not as it should be.
        """
        reconciliation = Reconciliation(
            self._parts,
            catalog=self._catalog,
            removal=self._removal,
            deletions=self._deletions,
            images=self._images,
            works=self._works,
            leases=self._leases,
        )
        return reconciliation.run(dry_run=dry_run, force=force, quarantine=quarantine)

    # What is to go, and what went.

    def pending(self) -> Iterator[Pending]:
        """Yield each blob that is to be deleted, by digest."""
        return self._deletions.pending()

    def plan_removal(self, *keys: str) -> RemovalPlan:
        """Return what would go if these snapshots were removed now. Nothing is changed.

        Raises:
            NotFound: There is no such snapshot.
            FailedPrecondition: One of them is the parent of another snapshot that is not
                among them.

        Cost: a walk of all snapshots.
        """
        return self._removal.plan(keys)

    def plan_image_removal(self, name: str) -> RemovalPlan:
        """Return what would go with the image, as `plan_removal`; NotFound if there is none."""
        return self._images.plan(name)

    def events(self, *, after: int = 0) -> Iterator[Event]:
        """Yield what happened to blobs past position `after`, in order, for the whole root.

        It ends where the feed does at that moment; go on after the last position seen.

        Raises:
            OutOfRange: Events past `after` are not kept any more: the feed is bounded.
        """
        return self._parts.refs.events(after)

    # Images, and what is kept for a time.

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

    @contextmanager
    def pin(self, *digests: str) -> Iterator[Work]:
        """Keep the blobs, there or not, for the length of a with-block.

        It is `work` that holds them: a blob that is written inside the block, and was there
        before, is held just the same. A process that dies lets go of them.

        Raises:
            InvalidArgument: A digest is malformed.
        """
        with self.work() as work:
            for digest in digests:
                work.hold(digest)
            yield work

    def lease(
        self,
        name: str,
        *,
        lifetime: timedelta = _LEASE_LIFETIME,
        labels: Mapping[str, str] | None = None,
    ) -> Lease:
        """Make a lease, which keeps blobs until it is released or expires.

        In a with-block it is released at the end. Otherwise it outlives this process.

        Args:
            name: What it is known by; up to 1 KiB.
            lifetime: How long from now until it expires.
            labels: What is to be noted about it.

        Raises:
            AlreadyExists: There is a lease of that name.
            InvalidArgument: The name is empty or too long, or the lifetime not positive.
        """
        return self._leases.begin(name, lifetime, labels)

    def open_lease(self, name: str) -> Lease:
        """Return the lease of that name.

        Raises:
            NotFound: There is none, or it has expired.
        """
        return self._leases.find(name)

    def leases(self) -> Iterator[LeaseInfo]:
        """Yield what is recorded of each lease, by name."""
        return self._leases.all()

    def _replay(self) -> None:
        restore_index(self._parts, self._leases, _QUARANTINE)
        self._removal.replay()
        self._works.replay()
        self._leases.end_expired()
        self._images.replay()
        self._deletions.carry_out_all()
        self._leases.watch()
