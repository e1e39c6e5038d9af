"""The relation between blobs and what holds them, and the journal of intents, on blobkv.

`Refs` is the map's memory: each method is one transaction, durable when it returns, and none
calls the snapshotter or the content store. What the rows look like is in `schema`; that the
caches agree with the truth is the work of `edges`. A method that lets go of blobs queues
those that nothing holds any more, and says which; deleting them is the caller's next step.
"""

from __future__ import annotations

from dataclasses import replace
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING

import blobkv
from blobmap._map import audit, edges, events, schema
from blobmap._map.events import EventKind
from blobmap._map.rows import PAGE_COUNT, Rows
from blobmap._map.schema import Edge, Holder, Intent, Note, Queued
from blobmap.contracts import LAYER, Blob

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from blobmap._map.audit import Fault
    from blobmap._map.events import Change, Event


class Refs(Rows):
    """One snapshotter's part of a map. Safe to call from many threads."""

    # Snapshots and their edges.

    def edge(self, snapshot: str, role: str = LAYER) -> Edge | None:
        """Return the snapshot's edge, of whichever incarnation, or None."""
        if not (schema.fits(snapshot) and schema.fits(role, schema.ROLE_SIZE_MAX)):
            return None
        with self.view() as txn:
            return self._edge(txn, snapshot, role)

    def edges_of(self, snapshot: str) -> list[Edge]:
        """Return all edges of the snapshot, of whichever incarnation, by role."""
        if not schema.fits(snapshot):
            return []
        with self.view() as txn:
            return self._edges_of(txn, snapshot)

    def edges(self) -> Iterator[tuple[str, Edge]]:
        """Yield each snapshot that has an edge, in order, with the edge; once for each."""
        for (snapshot, role), raw in self.scan(schema.EDGE):
            yield snapshot, schema.decode_edge(raw, snapshot, role)

    def recorded(self, snapshot: str) -> bool:
        """Return whether anything is recorded about the snapshot: an edge, or metadata."""
        if not schema.fits(snapshot):
            return False
        prefix = self.scope.key(snapshot)
        with self.view() as txn:
            tables = map(txn.bucket, (schema.EDGE, schema.NOTE))
            return any(True for table in tables for _ in table.keys(prefix=prefix))

    def put_edge(self, snapshot: str, edge: Edge, cause: str) -> tuple[str, ...]:
        """Let the snapshot refer to the blob in the edge's role, and forget any intent.

        Writes all of it again even where it is there, and so repairs both directions.

        Returns:
            The digest that it let go of, if any.
        """
        with self.update(cause) as change:
            role, digest = edge.reference.role, edge.blob.digest
            holder = self._holder(snapshot, role)
            old = self._edge(change.txn, snapshot, role)
            same = old is not None and (old.blob.digest, old.retains) == (digest, edge.retains)
            if edge.retains:
                edges.link(change, holder, digest, size=edge.blob.size, again=same)
            else:
                edges.mention(change, holder, digest)
            released = () if old is None or same else self._unlink(change, holder, old)
            key = self.scope.key(snapshot, role)
            change.txn.bucket(schema.EDGE).put(key, schema.encode_edge(edge))
            change.txn.bucket(schema.INTENT).delete(self.scope.key(snapshot))
            return released

    def holds(self, snapshot: str, edge: Edge) -> bool:
        """Return whether exactly this edge is there, in both directions, with no intent."""
        digest = edge.blob.digest
        holder = self._holder(snapshot, edge.reference.role)
        with self.view() as txn:
            if edge.retains:
                listed = (
                    holder.key(digest) in txn.bucket(schema.HOLDER)
                    and blobkv.pack(digest) in txn.bucket(schema.TALLY)
                    and blobkv.pack(digest) not in txn.bucket(schema.QUEUE)
                )
            else:
                listed = holder.mention_key(digest) in txn.bucket(schema.MENTION)
            return (
                listed
                and self._edge(txn, snapshot, edge.reference.role) == edge
                and self.scope.key(snapshot) not in txn.bucket(schema.INTENT)
            )

    def drop_edge(self, snapshot: str, expected: Edge, cause: str) -> tuple[str, ...] | None:
        """Drop the snapshot's edge if it is `expected`.

        Returns:
            The digest that it let go of, if any; None if the edge is another.
        """
        with self.update(cause) as change:
            if self._edge(change.txn, snapshot, expected.reference.role) != expected:
                return None
            return self._drop_edge(change, snapshot, expected)

    # Intents to remove a snapshot.

    def intent(self, snapshot: str) -> Intent | None:
        """Return the intent that stands for the snapshot, or None."""
        if not schema.fits(snapshot):
            return None
        with self.view() as txn:
            raw = txn.bucket(schema.INTENT).get(self.scope.key(snapshot))
        return None if raw is None else schema.decode_intent(raw, snapshot)

    def intents(self) -> Iterator[tuple[str, Intent]]:
        """Yield each snapshot for which an intent stands, with the intent."""
        for (snapshot,), raw in self.scan(schema.INTENT):
            yield snapshot, schema.decode_intent(raw, snapshot)

    def put_intent(self, snapshot: str, intent: Intent) -> None:
        """Record that the snapshot is about to be removed."""
        with self.update("remove") as change:
            intents = change.txn.bucket(schema.INTENT)
            intents.put(self.scope.key(snapshot), schema.encode_intent(intent))
            # No row is ever there. But on a full disk blobkv gives its reserve only to updates
            # that delete as much as they put, and this one is the first step of a removal.
            intents.delete(self.scope.key(snapshot, ""))

    def withdraw_intent(self, snapshot: str) -> None:
        """Record that the snapshot was not removed."""
        with self.update("remove") as change:
            change.txn.bucket(schema.INTENT).delete(self.scope.key(snapshot))

    def finish_removal(
        self, snapshot: str, cause: str, *, alive: str | None = None
    ) -> tuple[str, ...]:
        """Record that the snapshot is gone, with all about it; return the digests it held.

        Args:
            snapshot: The snapshot.
            cause: Why, for the feed.
            alive: The life that the key has by now, if any: what is about that one stays.
        """
        with self.update(cause) as change:
            change.txn.bucket(schema.INTENT).delete(self.scope.key(snapshot))
            self._drop_notes(change, snapshot, lambda life: life != alive)
            found = self._edges_of(change.txn, snapshot)
            return tuple(
                digest
                for edge in found
                if edge.incarnation != alive
                for digest in self._drop_edge(change, snapshot, edge)
            )

    # Metadata of a snapshot.

    def notes(self, snapshot: str) -> list[tuple[str, Note]]:
        """Return what metadata is recorded for the key, of whichever life, by name."""
        if not schema.fits(snapshot):
            return []
        rows = self.scan(schema.NOTE, snapshot)
        return [(name, schema.decode_note(raw, snapshot, name)) for (_, name), raw in rows]

    def drop_notes(self, snapshot: str, lives: Collection[str]) -> None:
        """Drop the metadata of these lives of the key."""
        with self.update("commit") as change:
            self._drop_notes(change, snapshot, lives.__contains__)

    # Blobs, their holders, and the queue.

    def blobs(self) -> Iterator[Blob]:
        """Yield each blob that a snapshot or an image of this scope holds, by digest.

        Diff ID and media type are those of the first snapshot that stands for it.
        """
        for digest in self._digests(schema.TALLY):
            with self.view() as txn:
                blob = self._blob(txn, digest)
            if blob is not None:
                yield blob

    def sizes(self) -> Iterator[tuple[str, int]]:
        """Yield each blob that a snapshot or an image of any scope holds, with its size."""
        for digest in self._digests(schema.TALLY):
            with self.view() as txn:
                tally = edges.tally_of(txn, digest)
                holders = txn.bucket(schema.HOLDER)
                kept = any(
                    True
                    for kind in (schema.BY_IMAGE, schema.BY_SNAPSHOT)
                    for _ in holders.keys(prefix=blobkv.pack(digest, kind))
                )
            if kept and tally is not None and tally.size is not None:
                yield digest, tally.size

    def count(self, digest: str) -> int:
        """Return how many holders the blob has, over all scopes. Cost: one read."""
        with self.view() as txn:
            tally = edges.tally_of(txn, digest)
        return 0 if tally is None else tally.count

    def known(self, digest: str) -> bool:
        """Return whether something holds the blob, or it is queued."""
        with self.view() as txn:
            return edges.held(txn, digest) or blobkv.pack(digest) in txn.bucket(schema.QUEUE)

    def holders(self, digest: str) -> Iterator[Holder]:
        """Yield what holds the blob, over all scopes: images, leases, snapshots, then works."""
        for key, _ in self._rows(schema.HOLDER, blobkv.pack(digest)):
            yield edges.holder_of(key)[1]

    def mentions(self, digest: str) -> Iterator[Holder]:
        """Yield the snapshots that merely know the blob, over all scopes."""
        for key, _ in self._rows(schema.MENTION, blobkv.pack(digest)):
            yield edges.mention_of(key)[1]

    def snapshots_of(self, digest: str, role: str = LAYER) -> Iterator[str]:
        """Yield the snapshots of this scope that refer to the blob in that role, in order."""
        held = self._rows(
            schema.HOLDER, blobkv.pack(digest, schema.BY_SNAPSHOT) + self.scope.key()
        )
        known = self._rows(schema.MENTION, blobkv.pack(digest) + self.scope.key())
        found = merge(
            (edges.holder_of(key)[1] for key, _ in held),
            (edges.mention_of(key)[1] for key, _ in known),
            key=lambda holder: blobkv.pack(holder.name),
        )
        return (holder.name for holder in found if holder.role == role)

    def queue(self) -> Iterator[tuple[str, Queued]]:
        """Yield each digest that is queued for deletion, in order, and since when, and why."""
        for key, raw in self._rows(schema.QUEUE, b""):
            (digest,) = schema.text_parts(key, 1)
            yield digest, schema.decode_queued(raw, digest)

    def queued(self, digest: str) -> bool:
        """Return whether the blob is to be deleted: it is queued, and nothing holds it."""
        with self.view() as txn:
            return edges.queued(txn, digest)

    def unqueue(self, digest: str) -> None:
        """Record that the blob is deleted, for the reason it was queued for."""
        with self.update("") as change:
            queue, key = change.txn.bucket(schema.QUEUE), blobkv.pack(digest)
            raw = queue.get(key)
            if raw is not None:
                cause = schema.decode_queued(raw, digest).cause
                replace(change, cause=cause).tell(EventKind.DELETE, digest)
                queue.delete(key)

    def events(self, after: int) -> Iterator[Event]:
        """Yield the events past that position, in order, of all scopes; see `events.read`."""
        while True:
            with self.view() as txn:
                page = list(islice(events.read(txn, after), PAGE_COUNT))
            yield from page
            if len(page) < PAGE_COUNT:
                return
            after = page[-1].position

    def trim_events(self) -> None:
        """Drop what the feed need not keep any more."""
        with self.update("") as change:
            events.trim(change.txn, change.now, change.retention)

    # The whole.

    def check(self) -> None:
        """Assert every invariant of `edges`. O(records); for reconcile and tests."""
        assert self.faults() == []

    def faults(self) -> list[Fault]:
        """Return where a cache disagrees with the truth."""
        with self.view() as txn:
            return audit.audit(txn)

    def lacks_index(self) -> bool:
        """Return whether the index is gone as a whole, so that nothing it says is true."""
        with self.view() as txn:
            return audit.index_is_gone(txn)

    def repair(self, quarantine: Callable[[Change], Holder] | None = None) -> list[Fault]:
        """Make the caches agree with the truth; return where they did not.

        Args:
            quarantine: Makes, in the same update, the lease that keeps what has no holder by
                that; None to queue it.
        """
        with self.update("reconcile") as change:
            lease = None if quarantine is None else quarantine(change)
            return audit.audit(change.txn, audit.Repair(change, lease))

    def _holder(self, snapshot: str, role: str) -> Holder:
        return Holder(schema.BY_SNAPSHOT, self.scope, snapshot, role)

    def _edge(self, txn: blobkv.Transaction, snapshot: str, role: str) -> Edge | None:
        raw = txn.bucket(schema.EDGE).get(self.scope.key(snapshot, role))
        return None if raw is None else schema.decode_edge(raw, snapshot, role)

    def _edges_of(self, txn: blobkv.Transaction, snapshot: str) -> list[Edge]:
        rows = txn.bucket(schema.EDGE).items(prefix=self.scope.key(snapshot))
        return [
            schema.decode_edge(raw, snapshot, schema.text_parts(key)[-1]) for key, raw in rows
        ]

    def _drop_notes(self, change: Change, snapshot: str, drops: Callable[[str], bool]) -> None:
        notes = change.txn.bucket(schema.NOTE)
        for key, raw in list(notes.items(prefix=self.scope.key(snapshot))):
            name = schema.text_parts(key)[-1]
            if drops(schema.decode_note(raw, snapshot, name).incarnation):
                notes.delete(key)

    def _drop_edge(self, change: Change, snapshot: str, edge: Edge) -> tuple[str, ...]:
        role = edge.reference.role
        change.txn.bucket(schema.EDGE).delete(self.scope.key(snapshot, role))
        return self._unlink(change, self._holder(snapshot, role), edge)

    def _unlink(self, change: Change, holder: Holder, edge: Edge) -> tuple[str, ...]:
        if edge.retains:
            edges.unlink(change, holder, edge.blob.digest)
            return (edge.blob.digest,)
        edges.unmention(change, holder, edge.blob.digest)
        return ()

    def _blob(self, txn: blobkv.Transaction, digest: str) -> Blob | None:
        tally = edges.tally_of(txn, digest)
        size = 0 if tally is None or tally.size is None else tally.size
        holders = txn.bucket(schema.HOLDER)
        prefix = blobkv.pack(digest, schema.BY_SNAPSHOT) + self.scope.key()
        key = next(iter(holders.keys(prefix=prefix)), None)
        if key is not None:
            holder = edges.holder_of(key)[1]
            edge = self._edge(txn, holder.name, holder.role)
            return Blob(digest, size) if edge is None else replace(edge.blob, digest=digest)
        prefix = blobkv.pack(digest, schema.BY_IMAGE) + self.scope.key()
        image = next(iter(holders.keys(prefix=prefix)), None)
        return None if image is None else Blob(digest, size)

    def _digests(self, table: str) -> Iterator[str]:
        for key, _ in self._rows(table, b""):
            yield schema.text_parts(key, 1)[0]
