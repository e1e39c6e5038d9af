"""The relation between blobs and what holds them, and the journal of intents, on blobkv.

`Refs` is the map's memory: each method is one transaction, durable when it returns, and none
calls the snapshotter or the content store. What the rows look like is in `schema`; that the
caches agree with the truth is the work of `edges`. A method that lets go of blobs queues
those that nothing holds any more; deleting them is the caller's next step.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from typing import TYPE_CHECKING, Final

import blobkv
from blobmap._map import edges, schema
from blobmap._map.schema import Edge, Holder, Intent, Scope
from blobmap.contracts import Blob
from blobmap.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from blobkv.testing import FileSystem
    from blobmap._map.edges import Fault

# A scan reads this many rows a view, so that no view stays open while a caller works.
_PAGE_COUNT: Final = 256


class Refs:
    """One snapshotter's part of a map. Safe to call from many threads.

    Lifetime: from `open` to `close`; a call after that raises `FailedPrecondition`.
    """

    def __init__(self, store: blobkv.Store, scope: Scope) -> None:
        self._store = store
        self.scope: Final = scope

    @classmethod
    def open(
        cls,
        root: str | Path,
        scope: Scope,
        *,
        lock_timeout: float = 0.0,
        fs: FileSystem | None = None,
    ) -> Self:
        """Open the map in the directory `root`, and make it if it does not exist.

        Raises:
            blobkv.LockedError: It is open already, here or in another process, and still is
                after `lock_timeout` seconds.
            FailedPrecondition: The directory holds a newer map, or another kind of store.
        """
        store = blobkv.open(root, lock_timeout=lock_timeout, fs=fs)
        try:
            with store.view() as txn:
                settled = schema.version_is_settled(txn)
            if not settled:
                with store.update() as txn:
                    schema.settle_version(txn)
        except BaseException:
            store.close()
            raise
        return cls(store, scope)

    def close(self) -> None:
        """Close the store. Idempotent."""
        self._store.close()

    # What the tables of images and of claims are made with.

    @contextmanager
    def view(self) -> Iterator[blobkv.Transaction]:
        """Read one state of the whole map in a with-block.

        Raises:
            FailedPrecondition: The map is closed.
        """
        with _told(), self._store.view() as txn:
            yield txn

    @contextmanager
    def update(self) -> Iterator[blobkv.Transaction]:
        """Change the whole map in a with-block; if it raises, nothing changes.

        Raises:
            FailedPrecondition: The map is closed.
        """
        with _told(), self._store.update() as txn:
            yield txn

    def require_open(self) -> None:
        """Raise FailedPrecondition if the map is closed."""
        with self.view():
            pass

    def holder(self, kind: str, name: str) -> Holder:
        """Return the holder of that name in this scope."""
        return Holder(kind, self.scope, name)

    def scan(self, table: str, *parts: str) -> Iterator[tuple[tuple[str, ...], bytes]]:
        """Yield the rows of this scope under `parts`: the parts past the scope, the value."""
        for key, raw in self._rows(table, self.scope.key(*parts)):
            yield schema.text_parts(key)[2:], raw

    # Snapshots and their edges.

    def edge(self, snapshot: str) -> Edge | None:
        """Return the snapshot's edge, of whichever incarnation, or None."""
        if not schema.fits(snapshot):
            return None
        with self.view() as txn:
            return self._edge(txn, snapshot)

    def edges(self) -> Iterator[tuple[str, Edge]]:
        """Yield each snapshot that has an edge, in order, with the edge."""
        for (snapshot,), raw in self.scan(schema.EDGE):
            yield snapshot, schema.decode_edge(raw, snapshot)

    def put_edge(self, snapshot: str, edge: Edge) -> None:
        """Let the snapshot stand for the blob and for no other, and forget any intent.

        Writes all of it again even where it is there, and so repairs both directions.
        """
        with self.update() as txn:
            holder = self.holder(schema.BY_SNAPSHOT, snapshot)
            old = self._edge(txn, snapshot)
            edges.retain(txn, holder, edge.blob.digest, size=edge.blob.size)
            if old is not None and old.blob.digest != edge.blob.digest:
                edges.release(txn, holder, old.blob.digest)
            txn.bucket(schema.EDGE).put(self.scope.key(snapshot), schema.encode_edge(edge))
            txn.bucket(schema.INTENT).delete(self.scope.key(snapshot))

    def holds(self, snapshot: str, edge: Edge) -> bool:
        """Return whether exactly this edge is there, in both directions, with no intent."""
        key = self.scope.key(snapshot)
        holder = self.holder(schema.BY_SNAPSHOT, snapshot)
        with self.view() as txn:
            return (
                self._edge(txn, snapshot) == edge
                and holder.key(edge.blob.digest) in txn.bucket(schema.HOLDER)
                and blobkv.pack(edge.blob.digest) in txn.bucket(schema.TALLY)
                and blobkv.pack(edge.blob.digest) not in txn.bucket(schema.QUEUE)
                and key not in txn.bucket(schema.INTENT)
            )

    def drop_edge(self, snapshot: str, expected: Edge) -> bool:
        """Drop the snapshot's edge if it is `expected`; return whether it was."""
        with self.update() as txn:
            if self._edge(txn, snapshot) != expected:
                return False
            self._drop_edge(txn, snapshot)
            return True

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
        with self.update() as txn:
            key = self.scope.key(snapshot)
            txn.bucket(schema.INTENT).put(key, schema.encode_intent(intent))

    def withdraw_intent(self, snapshot: str) -> None:
        """Record that the snapshot was not removed."""
        with self.update() as txn:
            txn.bucket(schema.INTENT).delete(self.scope.key(snapshot))

    def finish_removal(self, snapshot: str) -> str | None:
        """Record that the snapshot is gone; return the digest it held, or None."""
        with self.update() as txn:
            txn.bucket(schema.INTENT).delete(self.scope.key(snapshot))
            return self._drop_edge(txn, snapshot)

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
                rows = txn.bucket(schema.HOLDER).keys(prefix=blobkv.pack(digest))
                first = next(iter(rows), None)
            if tally is None or tally.size is None or first is None:
                continue
            # Works come last among the holders, so one that comes first is alone.
            if edges.holder_of(first)[1].kind != schema.BY_WORK:
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
        """Yield what holds the blob, over all scopes: images, snapshots, then works."""
        for key, _ in self._rows(schema.HOLDER, blobkv.pack(digest)):
            yield edges.holder_of(key)[1]

    def snapshots_of(self, digest: str) -> Iterator[str]:
        """Yield the snapshots of this scope whose edge is to the blob, in order."""
        prefix = blobkv.pack(digest, schema.BY_SNAPSHOT) + self.scope.key()
        for key, _ in self._rows(schema.HOLDER, prefix):
            yield edges.holder_of(key)[1].name

    def queue(self) -> Iterator[str]:
        """Yield each digest that is queued for deletion, in order."""
        return self._digests(schema.QUEUE)

    def queued(self, digest: str) -> bool:
        """Return whether the blob is to be deleted: it is queued, and nothing holds it."""
        with self.view() as txn:
            return edges.queued(txn, digest)

    def unqueue(self, digest: str) -> None:
        """Record that the blob is deleted."""
        with self.update() as txn:
            txn.bucket(schema.QUEUE).delete(blobkv.pack(digest))

    # The whole.

    def check(self) -> None:
        """Assert every invariant of `edges`. O(records); for reconcile and tests."""
        assert self.faults() == []

    def faults(self) -> list[Fault]:
        """Return where a cache disagrees with the truth."""
        with self.view() as txn:
            return edges.audit(txn)

    def repair(self) -> list[Fault]:
        """Make the caches agree with the truth; return where they did not."""
        with self.update() as txn:
            return edges.audit(txn, repair=True)

    def _edge(self, txn: blobkv.Transaction, snapshot: str) -> Edge | None:
        raw = txn.bucket(schema.EDGE).get(self.scope.key(snapshot))
        return None if raw is None else schema.decode_edge(raw, snapshot)

    def _drop_edge(self, txn: blobkv.Transaction, snapshot: str) -> str | None:
        edge = self._edge(txn, snapshot)
        if edge is None:
            return None
        txn.bucket(schema.EDGE).delete(self.scope.key(snapshot))
        edges.release(txn, self.holder(schema.BY_SNAPSHOT, snapshot), edge.blob.digest)
        return edge.blob.digest

    def _blob(self, txn: blobkv.Transaction, digest: str) -> Blob | None:
        tally = edges.tally_of(txn, digest)
        size = 0 if tally is None or tally.size is None else tally.size
        holders = txn.bucket(schema.HOLDER)
        prefix = blobkv.pack(digest, schema.BY_SNAPSHOT) + self.scope.key()
        key = next(iter(holders.keys(prefix=prefix)), None)
        if key is not None:
            edge = self._edge(txn, edges.holder_of(key)[1].name)
            return Blob(digest, size) if edge is None else replace(edge.blob, digest=digest)
        prefix = blobkv.pack(digest, schema.BY_IMAGE) + self.scope.key()
        image = next(iter(holders.keys(prefix=prefix)), None)
        return None if image is None else Blob(digest, size)

    def _digests(self, table: str) -> Iterator[str]:
        for key, _ in self._rows(table, b""):
            yield schema.text_parts(key)[0]

    def _rows(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        start = prefix
        while True:
            with self.view() as txn:
                rows = txn.bucket(table).items(prefix=prefix, start=start)
                page = list(islice(rows, _PAGE_COUNT))
            yield from page
            if len(page) < _PAGE_COUNT:
                return
            start = page[-1][0] + b"\x00"


@contextmanager
def _told() -> Iterator[None]:
    """Say in blobmap's words that the store is closed."""
    try:
        yield
    except blobkv.ClosedError as error:
        raise FailedPrecondition("the map is closed: open it again") from error
