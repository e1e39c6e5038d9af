"""The invariants of `edges` as code: where caches disagree with the truth, and their repair."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import blobkv
from blobmap._map import edges, schema
from blobmap._map.schema import Holder, Queued, Scope, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap._map.events import Change
    from blobmap._map.schema import Edge
    from blobmap.contracts import Image


@dataclass(frozen=True, slots=True)
class Fault:
    """One place where a cache disagrees with the truth.

    Attributes:
        subject: The digest or the snapshot it is about.
        detail: What is wrong about it.
        releases: Whether mending it takes a holder away, and so may delete the blob.
    """

    subject: str
    detail: str
    releases: bool = False


@dataclass(frozen=True, slots=True)
class Repair:
    """How caches are made to agree.

    Attributes:
        change: The update to do it in.
        quarantine: The lease that keeps the blobs which would have no holder left by that;
            None to have them deleted.
    """

    change: Change
    quarantine: Holder | None


def audit(txn: blobkv.Transaction, repair: Repair | None = None) -> list[Fault]:
    """Compare the caches with the truth.

    Args:
        txn: What to read in.
        repair: If given, its update is `txn`, and the caches are made to agree.

    Returns:
        Where they disagree, and so nothing if every invariant holds.

    Raises:
        DataLoss: A record does not read; there is nothing to repair it from.

    Cost: O(records) time, O(disagreements) memory.
    """
    faults = _audit_holders(txn, repair)
    unlisted = {fault.subject for fault in faults if not fault.releases}
    faults += _audit_mentions(txn, repair)
    faults += _audit_tallies(txn, unlisted, repair)
    faults += _audit_queue(txn, repair)
    return faults + _audit_listing(txn, repair)


def index_is_gone(txn: blobkv.Transaction) -> bool:
    """Return whether blobs are held, and the index of their holders is gone as a whole.

    Cost: one seek where there is an index.
    """
    if any(True for _ in txn.bucket(schema.HOLDER)):
        return False
    return any(True for _ in _truth(txn))


def _audit_holders(txn: blobkv.Transaction, repair: Repair | None) -> list[Fault]:
    faults = []
    holders = txn.bucket(schema.HOLDER)
    lost = [(what, who) for what, who in _truth(txn) if who.key(what) not in holders]
    for digest, holder in lost:
        who = f"{holder.kind} {holder.name!r}"
        faults.append(Fault(digest, f"{who} holds it, but is not listed as a holder"))
        if repair is not None:
            holders.put(holder.key(digest), b"")
    for key in [key for key in holders if not _stands(txn, key)]:
        digest, holder = edges.holder_of(key)
        who = f"{holder.kind} {holder.name!r}"
        faults.append(Fault(digest, f"{who} is listed as a holder, but is none", releases=True))
        if repair is not None:
            holders.delete(key)
    return faults


def _audit_mentions(txn: blobkv.Transaction, repair: Repair | None) -> list[Fault]:
    faults = []
    mentions = txn.bucket(schema.MENTION)
    knowing = ((who, edge) for who, edge in _edges(txn) if not edge.retains)
    keys = ((edge.blob.digest, who.mention_key(edge.blob.digest)) for who, edge in knowing)
    for digest, key in [pair for pair in keys if pair[1] not in mentions]:
        faults.append(Fault(digest, f"{edges.mention_of(key)[1]} knows it, but is not listed"))
        if repair is not None:
            mentions.put(key, b"")
    for key in [key for key in mentions if not _knows(txn, key)]:
        digest, holder = edges.mention_of(key)
        faults.append(Fault(digest, f"{holder} is listed to know it, but does not"))
        if repair is not None:
            mentions.delete(key)
    return faults


def _knows(txn: blobkv.Transaction, key: bytes) -> bool:
    digest, holder = edges.mention_of(key)
    edge = _edge(txn, holder)
    return edge is not None and not edge.retains and edge.blob.digest == digest


def _audit_tallies(
    txn: blobkv.Transaction, unlisted: set[str], repair: Repair | None
) -> list[Fault]:
    """Audit the tallies; `unlisted` have holders that the index does not know."""
    faults = []
    tallies = txn.bucket(schema.TALLY)
    for digest, count in [wrong for wrong in _counts(txn) if not _tally_is(txn, *wrong)]:
        faults.append(Fault(digest, f"it has {count} holders, but its tally is another"))
        if repair is not None:
            tally = edges.tally_of(txn, digest) or Tally(
                count, _size(txn, digest), foreign=False
            )
            tallies.put(blobkv.pack(digest), schema.encode_tally(replace(tally, count=count)))
    digests = (schema.text_parts(key, 1)[0] for key in tallies)
    for digest in [digest for digest in digests if not edges.held(txn, digest)]:
        releases = digest not in unlisted
        faults.append(Fault(digest, "it has a tally, but no holder listed", releases))
        if repair is not None:
            stale = edges.tally_of(txn, digest)
            tallies.delete(blobkv.pack(digest))
            if stale is None or not stale.foreign:
                _let_go(repair, digest)
    return faults


def _let_go(repair: Repair, digest: str) -> None:
    """Deal with a blob that nothing holds, by the word of what may have lost a row."""
    change, lease = repair.change, repair.quarantine
    if lease is None:
        queued = Queued(change.now, change.cause, None)
        change.txn.bucket(schema.QUEUE).put(blobkv.pack(digest), schema.encode_queued(queued))
    else:
        change.txn.bucket(schema.LEASED).put(lease.scope.key(lease.name, digest), b"")
        edges.link(change, lease, digest)


def _audit_queue(txn: blobkv.Transaction, repair: Repair | None) -> list[Fault]:
    faults = []
    queue = txn.bucket(schema.QUEUE)
    digests = (schema.text_parts(key, 1)[0] for key in queue)
    for digest in [digest for digest in digests if edges.held(txn, digest)]:
        faults.append(Fault(digest, "it is queued for deletion, but has a holder"))
        if repair is not None:
            queue.delete(blobkv.pack(digest))
    return faults


def _audit_listing(txn: blobkv.Transaction, repair: Repair | None) -> list[Fault]:
    faults = []
    listing = txn.bucket(schema.LISTING)
    wanted = (row for scope, image in _images(txn) for row in _listing(scope, image))
    for row in [row for row in wanted if row not in listing]:
        _, _, snapshot, image = schema.text_parts(row)
        faults.append(Fault(snapshot, f"image {image!r} lists it, but is not listed for it"))
        if repair is not None:
            listing.put(row, b"")
    for row in [row for row in listing if not _lists(txn, row)]:
        _, _, snapshot, image = schema.text_parts(row)
        faults.append(
            Fault(snapshot, f"image {image!r} is listed for it, but does not list it")
        )
        if repair is not None:
            listing.delete(row)
    return faults


def _images(txn: blobkv.Transaction) -> Iterator[tuple[Scope, Image]]:
    for key, raw in txn.bucket(schema.IMAGE).items():
        namespace, snapshotter, name = schema.text_parts(key, 3)
        yield Scope(namespace, snapshotter), schema.decode_image(raw, name)


def _listing(scope: Scope, image: Image) -> Iterator[bytes]:
    return (scope.key(snapshot, image.name) for snapshot in image.snapshots)


def _lists(txn: blobkv.Transaction, row: bytes) -> bool:
    namespace, snapshotter, snapshot, name = schema.text_parts(row, 4)
    raw = txn.bucket(schema.IMAGE).get(Scope(namespace, snapshotter).key(name))
    return raw is not None and snapshot in schema.decode_image(raw, name).snapshots


def _truth(txn: blobkv.Transaction) -> Iterator[tuple[str, Holder]]:
    """Yield each digest with its holder, as edges, images, claims, and leases have it."""
    for holder, edge in _edges(txn):
        if edge.retains:
            yield edge.blob.digest, holder
    for scope, image in _images(txn):
        for digest in image.blobs:
            yield digest, Holder(schema.BY_IMAGE, scope, image.name)
    for key in txn.bucket(schema.CLAIM):
        namespace, snapshotter, work, kind, subject = schema.text_parts(key, 5)
        if kind == schema.CLAIM_BLOB:
            yield subject, Holder(schema.BY_WORK, Scope(namespace, snapshotter), work)
    for key in txn.bucket(schema.LEASED):
        namespace, snapshotter, lease, digest = schema.text_parts(key, 4)
        yield digest, Holder(schema.BY_LEASE, Scope(namespace, snapshotter), lease)


def _edges(txn: blobkv.Transaction) -> Iterator[tuple[Holder, Edge]]:
    for key, raw in txn.bucket(schema.EDGE).items():
        holder = Holder.of((schema.BY_SNAPSHOT, *schema.text_parts(key, 4)))
        yield holder, schema.decode_edge(raw, holder.name, holder.role)


def _edge(txn: blobkv.Transaction, holder: Holder) -> Edge | None:
    raw = txn.bucket(schema.EDGE).get(holder.scope.key(holder.name, holder.role))
    return None if raw is None else schema.decode_edge(raw, holder.name, holder.role)


def _stands(txn: blobkv.Transaction, key: bytes) -> bool:
    """Return whether the truth agrees with one row of holder."""
    digest, holder = edges.holder_of(key)
    scope, name = holder.scope, holder.name
    if holder.kind == schema.BY_WORK:
        return scope.key(name, schema.CLAIM_BLOB, digest) in txn.bucket(schema.CLAIM)
    if holder.kind == schema.BY_LEASE:
        return scope.key(name, digest) in txn.bucket(schema.LEASED)
    if holder.kind == schema.BY_IMAGE:
        raw = txn.bucket(schema.IMAGE).get(scope.key(name))
        return raw is not None and digest in schema.decode_image(raw, name).blobs
    edge = _edge(txn, holder)
    return edge is not None and edge.retains and edge.blob.digest == digest


def _counts(txn: blobkv.Transaction) -> Iterator[tuple[str, int]]:
    """Yield each digest that has holders, and how many."""
    rows = txn.bucket(schema.HOLDER)
    for digest, group in groupby(rows, key=lambda key: schema.text_parts(key)[0]):
        yield digest, sum(1 for _ in group)


def _tally_is(txn: blobkv.Transaction, digest: str, count: int) -> bool:
    tally = edges.tally_of(txn, digest)
    return tally is not None and tally.count == count


def _size(txn: blobkv.Transaction, digest: str) -> int | None:
    """Return the size that the first image or snapshot to hold the blob recorded for it."""
    key = next(iter(txn.bucket(schema.HOLDER).keys(prefix=blobkv.pack(digest))))
    _, holder = edges.holder_of(key)
    if holder.kind == schema.BY_IMAGE:
        raw = txn.bucket(schema.IMAGE)[holder.scope.key(holder.name)]
        return schema.decode_sizes(raw, holder.name)[digest]
    if holder.kind == schema.BY_SNAPSHOT:
        edge = _edge(txn, holder)
        return None if edge is None else edge.blob.size
    return None
