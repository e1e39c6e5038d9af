"""Who holds which blob: the reverse index and the tallies, inside one transaction.

Edge, image, claim, and leased are the truth; listing, holder, mention, and tally are caches of
them, kept so that none of "which images list it?", "who holds it?", "who knows it?", and "is
that the last one?" has to scan the truth. Every function here works in the caller's
transaction: truth and caches change together, or not at all, and the feed tells of it.

Invariants:

* A row of holder stands exactly for each edge that retains its blob, each blob of an image,
  and each blob that is claimed or leased; one of mention for each edge that does not.
* A tally stands exactly for each digest with a holder, and counts its holders.
* A row of listing stands exactly for each snapshot of each image.
* A queued digest has no holder. Deleting a blob needs more than the queue's word: `held` is
  asked again, so that even a wrong tally costs a blob kept too long and never one lost.

`audit` has those sentences as code.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import blobkv
from blobmap._map import schema
from blobmap._map.events import EventKind
from blobmap._map.schema import Holder, Queued, Tally

if TYPE_CHECKING:
    from blobmap._map.events import Change


def link(
    change: Change,
    holder: Holder,
    digest: str,
    *,
    size: int | None = None,
    foreign: bool = False,
    again: bool = False,
) -> None:
    """Record that `holder` holds the blob, and take it off the queue. Idempotent.

    Args:
        change: The update.
        holder: Who holds it; one that holds it already counts once.
        digest: The blob.
        size: Its size in bytes, where known.
        foreign: For works and leases only: the blob was there, and not held, before.
        again: Whether it held the blob already, by the word of the truth. If no row says so,
            that was lost, and the tally may count it still: then holders are counted anew.

    Cost: O(log n), and O(holders) where a row was lost.
    """
    txn, key = change.txn, blobkv.pack(digest)
    holders = txn.bucket(schema.HOLDER)
    tally = tally_of(txn, digest)
    if tally is None:
        tally = Tally(0, None, foreign)
    if holders.get(holder.key(digest)) is None:
        holders.put(holder.key(digest), b"")
        rows = holders.keys(prefix=key)
        tally = replace(tally, count=sum(1 for _ in rows) if again else tally.count + 1)
        change.tell(EventKind.LINK, digest, holder)
    tally = replace(
        tally,
        # At least this one, should the tally have been lost while the row was not.
        count=max(tally.count, 1),
        size=tally.size if size is None else size,
        foreign=tally.foreign and holder.kind in schema.TEMPORARY,
    )
    txn.bucket(schema.TALLY).put(key, schema.encode_tally(tally))
    txn.bucket(schema.QUEUE).delete(key)


def unlink(change: Change, holder: Holder, digest: str) -> None:
    """Record that `holder` holds the blob no longer; queue the blob if nothing else does.

    A foreign blob is not queued: it outlives the work that held it.

    Args:
        change: The update.
        holder: Who held it, by the word of an edge, an image, a claim, or a lease; should the
            row that says so be lost, the blob is let go all the same.
        digest: The blob.

    Cost: O(log n), however many others hold it.
    """
    txn, key = change.txn, blobkv.pack(digest)
    holders = txn.bucket(schema.HOLDER)
    listed = holder.key(digest) in holders
    holders.delete(holder.key(digest))
    change.tell(EventKind.UNLINK, digest, holder)
    tally = tally_of(txn, digest)
    # Only the last of them looks for others, since rows that were deleted are still looked
    # through. A tally that counts too many keeps the blob; `audit` will tell.
    if listed and tally is not None and tally.count > 1:
        tally = replace(tally, count=tally.count - 1)
        txn.bucket(schema.TALLY).put(key, schema.encode_tally(tally))
    elif not held(txn, digest):
        txn.bucket(schema.TALLY).delete(key)
        if tally is None or not tally.foreign:
            size = None if tally is None else tally.size
            queued = Queued(change.now, change.cause, size)
            txn.bucket(schema.QUEUE).put(key, schema.encode_queued(queued))


def mention(change: Change, holder: Holder, digest: str) -> None:
    """Record that the snapshot merely knows the blob. Idempotent."""
    mentions = change.txn.bucket(schema.MENTION)
    if mentions.get(holder.mention_key(digest)) is None:
        mentions.put(holder.mention_key(digest), b"")
        change.tell(EventKind.LINK, digest, holder, retains=False)


def unmention(change: Change, holder: Holder, digest: str) -> None:
    """Record that the snapshot does not know the blob any more."""
    change.txn.bucket(schema.MENTION).delete(holder.mention_key(digest))
    change.tell(EventKind.UNLINK, digest, holder, retains=False)


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
    digest, *parts = schema.text_parts(key, 5, 6)
    return digest, Holder.of(parts)


def mention_of(key: bytes) -> tuple[str, Holder]:
    """Return the digest and the snapshot that a key of the table mention names."""
    digest, *parts = schema.text_parts(key, 5)
    return digest, Holder.of((schema.BY_SNAPSHOT, *parts))
