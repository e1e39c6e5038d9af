"""Who holds which blob: the reverse index and the tallies, inside one transaction.

Edge, image, and claim are the truth; listing, holder, and tally are caches of them, kept so
that none of "which images list it?", "who holds it?", and "is that the last one?" has to scan
the truth. Every function here works in the caller's transaction: truth and caches change
together, or not at all.

Invariants:

* A row of holder stands exactly for each edge, each blob of an image, and each blob claimed.
* A tally stands exactly for each digest with a holder, and counts its holders.
* A row of listing stands exactly for each snapshot of each image.
* A queued digest has no holder. Deleting a blob needs more than the queue's word: `held` is
  asked again, so that even a wrong tally costs a blob kept too long and never one lost.

`audit` is those sentences as code.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import TYPE_CHECKING

import blobkv
from blobmap._map import schema
from blobmap._map.schema import Holder, Scope, Tally

if TYPE_CHECKING:
    from collections.abc import Iterator

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


def retain(
    txn: blobkv.Transaction,
    holder: Holder,
    digest: str,
    *,
    size: int | None = None,
    foreign: bool = False,
) -> None:
    """Record that `holder` holds the blob, and take it off the queue. Idempotent.

    Args:
        txn: An update.
        holder: Who holds it; one that holds it already counts once.
        digest: The blob.
        size: Its size in bytes, where known.
        foreign: For work only: the blob was there, and not held, before.

    Cost: O(log n).
    """
    key = blobkv.pack(digest)
    holders = txn.bucket(schema.HOLDER)
    tally = tally_of(txn, digest)
    if tally is None:
        tally = Tally(0, None, foreign)
    if holders.get(holder.key(digest)) is None:
        holders.put(holder.key(digest), b"")
        tally = replace(tally, count=tally.count + 1)
    tally = replace(
        tally,
        # At least this one, should the tally have been lost while the row was not.
        count=max(tally.count, 1),
        size=tally.size if size is None else size,
        foreign=tally.foreign and holder.kind == schema.BY_WORK,
    )
    txn.bucket(schema.TALLY).put(key, schema.encode_tally(tally))
    txn.bucket(schema.QUEUE).delete(key)


def release(txn: blobkv.Transaction, holder: Holder, digest: str) -> None:
    """Record that `holder` holds the blob no longer; queue the blob if nothing else does.

    A foreign blob is not queued: it outlives the work that held it.

    Args:
        txn: An update.
        holder: Who held it, by the word of an edge, an image, or a claim; should the row
            that says so be lost, the blob is let go all the same.
        digest: The blob.

    Cost: O(log n).
    """
    holders = txn.bucket(schema.HOLDER)
    listed = holder.key(digest) in holders
    holders.delete(holder.key(digest))
    tally = tally_of(txn, digest)
    if not held(txn, digest):
        txn.bucket(schema.TALLY).delete(blobkv.pack(digest))
        if tally is None or not tally.foreign:
            txn.bucket(schema.QUEUE).put(blobkv.pack(digest), b"")
    elif listed and tally is not None:
        # Others hold it, so a tally that says otherwise is wrong; `audit` will tell.
        tally = replace(tally, count=max(tally.count - 1, 1))
        txn.bucket(schema.TALLY).put(blobkv.pack(digest), schema.encode_tally(tally))


def held(txn: blobkv.Transaction, digest: str) -> bool:
    """Return whether anything holds the blob. Cost: one seek."""
    rows = txn.bucket(schema.HOLDER).keys(prefix=blobkv.pack(digest))
    return next(iter(rows), None) is not None


def queued(txn: blobkv.Transaction, digest: str) -> bool:
    """Return whether the blob is to be deleted: it is queued, and indeed nothing holds it."""
    return blobkv.pack(digest) in txn.bucket(schema.QUEUE) and not held(txn, digest)


def tally_of(txn: blobkv.Transaction, digest: str) -> Tally | None:
    """Return the tally of the blob, or None if nothing holds it."""
    raw = txn.bucket(schema.TALLY).get(blobkv.pack(digest))
    return None if raw is None else schema.decode_tally(raw, digest)


def holder_of(key: bytes) -> tuple[str, Holder]:
    """Return the digest and the holder that a key of the table holder names."""
    digest, kind, namespace, snapshotter, name = schema.text_parts(key)
    return digest, Holder(kind, Scope(namespace, snapshotter), name)


def audit(txn: blobkv.Transaction, *, repair: bool = False) -> list[Fault]:
    """Compare the caches with the truth.

    Args:
        txn: A view; an update if `repair`.
        repair: Whether to make the caches agree, too.

    Returns:
        Where they disagree, and so nothing if every invariant holds.

    Raises:
        DataLoss: A record does not read; there is nothing to repair it from.

    Cost: O(records) time, O(disagreements) memory.
    """
    faults = _audit_holders(txn, repair=repair)
    unlisted = {fault.subject for fault in faults if not fault.releases}
    faults += _audit_tallies(txn, unlisted, repair=repair)
    faults += _audit_queue(txn, repair=repair)
    return faults + _audit_listing(txn, repair=repair)


def _audit_holders(txn: blobkv.Transaction, *, repair: bool) -> list[Fault]:
    faults = []
    holders = txn.bucket(schema.HOLDER)
    lost = [(what, who) for what, who in _truth(txn) if who.key(what) not in holders]
    for digest, holder in lost:
        who = f"{holder.kind} {holder.name!r}"
        faults.append(Fault(digest, f"{who} holds it, but is not listed as a holder"))
        if repair:
            holders.put(holder.key(digest), b"")
    for key in [key for key in holders if not _stands(txn, key)]:
        digest, holder = holder_of(key)
        who = f"{holder.kind} {holder.name!r}"
        faults.append(Fault(digest, f"{who} is listed as a holder, but is none", releases=True))
        if repair:
            holders.delete(key)
    return faults


def _audit_tallies(txn: blobkv.Transaction, unlisted: set[str], *, repair: bool) -> list[Fault]:
    """Audit the tallies; `unlisted` have holders that the index does not know."""
    faults = []
    tallies = txn.bucket(schema.TALLY)
    for digest, count in [wrong for wrong in _counts(txn) if not _tally_is(txn, *wrong)]:
        faults.append(Fault(digest, f"it has {count} holders, but its tally is another"))
        if repair:
            tally = tally_of(txn, digest) or Tally(count, _size(txn, digest), foreign=False)
            tallies.put(blobkv.pack(digest), schema.encode_tally(replace(tally, count=count)))
    digests = (schema.text_parts(key)[0] for key in tallies)
    for digest in [digest for digest in digests if not held(txn, digest)]:
        releases = digest not in unlisted
        faults.append(Fault(digest, "it has a tally, but no holder listed", releases))
        if repair:
            tallies.delete(blobkv.pack(digest))
            txn.bucket(schema.QUEUE).put(blobkv.pack(digest), b"")
    return faults


def _audit_queue(txn: blobkv.Transaction, *, repair: bool) -> list[Fault]:
    faults = []
    queue = txn.bucket(schema.QUEUE)
    digests = (schema.text_parts(key)[0] for key in queue)
    for digest in [digest for digest in digests if held(txn, digest)]:
        faults.append(Fault(digest, "it is queued for deletion, but has a holder"))
        if repair:
            queue.delete(blobkv.pack(digest))
    return faults


def _audit_listing(txn: blobkv.Transaction, *, repair: bool) -> list[Fault]:
    faults = []
    listing = txn.bucket(schema.LISTING)
    wanted = (row for scope, image in _images(txn) for row in _listing(scope, image))
    for row in [row for row in wanted if row not in listing]:
        _, _, snapshot, image = schema.text_parts(row)
        faults.append(Fault(snapshot, f"image {image!r} lists it, but is not listed for it"))
        if repair:
            listing.put(row, b"")
    for row in [row for row in listing if not _lists(txn, row)]:
        _, _, snapshot, image = schema.text_parts(row)
        faults.append(
            Fault(snapshot, f"image {image!r} is listed for it, but does not list it")
        )
        if repair:
            listing.delete(row)
    return faults


def _images(txn: blobkv.Transaction) -> Iterator[tuple[Scope, Image]]:
    for key, raw in txn.bucket(schema.IMAGE).items():
        namespace, snapshotter, name = schema.text_parts(key)
        yield Scope(namespace, snapshotter), schema.decode_image(raw, name)


def _listing(scope: Scope, image: Image) -> Iterator[bytes]:
    return (scope.key(snapshot, image.name) for snapshot in image.snapshots)


def _lists(txn: blobkv.Transaction, row: bytes) -> bool:
    namespace, snapshotter, snapshot, name = schema.text_parts(row)
    raw = txn.bucket(schema.IMAGE).get(Scope(namespace, snapshotter).key(name))
    return raw is not None and snapshot in schema.decode_image(raw, name).snapshots


def _truth(txn: blobkv.Transaction) -> Iterator[tuple[str, Holder]]:
    """Yield each digest with its holder, as edges, images, and claims have it."""
    for key, raw in txn.bucket(schema.EDGE).items():
        namespace, snapshotter, snapshot = schema.text_parts(key)
        holder = Holder(schema.BY_SNAPSHOT, Scope(namespace, snapshotter), snapshot)
        yield schema.decode_edge(raw, snapshot).blob.digest, holder
    for scope, image in _images(txn):
        for digest in image.blobs:
            yield digest, Holder(schema.BY_IMAGE, scope, image.name)
    for key in txn.bucket(schema.CLAIM):
        namespace, snapshotter, work, kind, subject = schema.text_parts(key)
        if kind == schema.CLAIM_BLOB:
            yield subject, Holder(schema.BY_WORK, Scope(namespace, snapshotter), work)


def _stands(txn: blobkv.Transaction, key: bytes) -> bool:
    """Return whether the truth agrees with one row of holder."""
    digest, holder = holder_of(key)
    if holder.kind == schema.BY_WORK:
        claim = holder.scope.key(holder.name, schema.CLAIM_BLOB, digest)
        return claim in txn.bucket(schema.CLAIM)
    if holder.kind == schema.BY_IMAGE:
        raw = txn.bucket(schema.IMAGE).get(holder.scope.key(holder.name))
        return raw is not None and digest in schema.decode_image(raw, holder.name).blobs
    raw = txn.bucket(schema.EDGE).get(holder.scope.key(holder.name))
    return raw is not None and schema.decode_edge(raw, holder.name).blob.digest == digest


def _counts(txn: blobkv.Transaction) -> Iterator[tuple[str, int]]:
    """Yield each digest that has holders, and how many."""
    rows = txn.bucket(schema.HOLDER)
    for digest, group in groupby(rows, key=lambda key: schema.text_parts(key)[0]):
        yield digest, sum(1 for _ in group)


def _tally_is(txn: blobkv.Transaction, digest: str, count: int) -> bool:
    tally = tally_of(txn, digest)
    return tally is not None and tally.count == count


def _size(txn: blobkv.Transaction, digest: str) -> int | None:
    """Return the size that the first image or snapshot to hold the blob recorded for it."""
    key = next(iter(txn.bucket(schema.HOLDER).keys(prefix=blobkv.pack(digest))))
    _, holder = holder_of(key)
    row = holder.scope.key(holder.name)
    if holder.kind == schema.BY_IMAGE:
        return schema.decode_sizes(txn.bucket(schema.IMAGE)[row], holder.name)[digest]
    if holder.kind == schema.BY_SNAPSHOT:
        return schema.decode_edge(txn.bucket(schema.EDGE)[row], holder.name).blob.size
    return None
