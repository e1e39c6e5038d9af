"""The feed: what happened to blobs, in order, and why.

    table     key                           value
    --------  ----------------------------  --------------------------------------------------
    event     segment, position             time, kind, digest, holder, retains, cause

An event is written in the transaction that does what it tells of, so the feed has all of them
in the order of commits, and none of what was not done. Positions count from 1, without gaps. A
segment is 1,024 positions; old events go a segment at a time, as one range, when a segment is
full: so to keep the feed bounded costs nothing in between.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import TYPE_CHECKING, Final

import blobkv
from blobmap._map.schema import EVENT, Holder
from blobmap.errors import DataLoss, OutOfRange
from blobmap.fields import Fields, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

_SEGMENT_COUNT: Final = 1024


class EventKind(Enum):
    """What happened to a blob."""

    LINK = "link"
    UNLINK = "unlink"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened to a blob.

    Attributes:
        position: Its place in the feed, from 1, without gaps.
        time: When it was recorded, by the clock of the machine.
        kind: What happened: something was linked to the blob, or no longer is, or the blob
            was deleted.
        digest: The blob.
        holder: What was linked to it ("snapshot", "image", "lease", "work"), the namespace and
            the snapshotter it is of, its name, and the role of the blob for a snapshot; None
            for a deletion.
        retains: Whether the link keeps the blob, or merely knows it.
        cause: Why: the call, or what was done on its own.
    """

    position: int
    time: datetime
    kind: EventKind
    digest: str
    holder: Holder | None
    retains: bool
    cause: str

    def __str__(self) -> str:
        who = "" if self.holder is None else f" {self.holder}"
        knows = "" if self.retains or self.kind is EventKind.DELETE else ", merely known"
        when = self.time.isoformat(timespec="seconds")
        return (
            f"{self.position} {when} {self.kind.value} {self.digest}{who}{knows}: {self.cause}"
        )


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the feed is kept, at least: events past either bound go."""

    count: int = 100_000
    age: timedelta = timedelta(days=90)


RETENTION: Final = Retention()


@dataclass(frozen=True, slots=True)
class Change:
    """One update of the map, and why it is made.

    Attributes:
        txn: The update.
        cause: Why, for the feed.
        now: When.
        retention: How much of the feed stays.
    """

    txn: blobkv.Transaction
    cause: str
    now: datetime
    retention: Retention

    def tell(
        self,
        kind: EventKind,
        digest: str,
        holder: Holder | None = None,
        *,
        retains: bool = True,
    ) -> None:
        """Append an event to the feed. Cost: a seek, and one row."""
        events = self.txn.bucket(EVENT)
        last = next(iter(events.keys(reverse=True)), None)
        position = 1 if last is None else _position(last) + 1
        events.put(
            blobkv.pack(position // _SEGMENT_COUNT, position),
            encode(
                time=self.now.isoformat(),
                kind=kind.value,
                digest=digest,
                holder=[] if holder is None else holder.parts,
                retains=retains,
                cause=self.cause,
            ),
        )
        if position % _SEGMENT_COUNT == 0:
            trim(self.txn, self.now, self.retention)


def read(txn: blobkv.Transaction, after: int) -> Iterator[Event]:
    """Yield the events past position `after`, in order.

    Args:
        txn: What to read in.
        after: The last position that the caller has seen; 0 for all that are there.

    Raises:
        OutOfRange: Some of those past `after` are gone, by the bounds of the feed.

    Cost: one seek, and O(events yielded).
    """
    rows = txn.bucket(EVENT).items(start=blobkv.pack((after + 1) // _SEGMENT_COUNT, after + 1))
    expected = after + 1
    for key, raw in rows:
        position = _position(key)
        if position != expected:
            raise OutOfRange(
                f"events {expected} to {position - 1} are not kept any more: begin after "
                f"{position - 1}, and look at the map itself for what was before"
            )
        yield _decode(position, raw)
        expected += 1


def trim(txn: blobkv.Transaction, now: datetime, retention: Retention) -> None:
    """Drop whole segments that are past the bounds; the newest stays. Cost: a seek or two."""
    events = txn.bucket(EVENT)
    newest = next(iter(events.keys(reverse=True)), None)
    if newest is None:
        return
    last = _position(newest)
    while (segment := _first_segment(txn)) < last // _SEGMENT_COUNT:
        # The first event past the segment is as old as what goes with it, at most.
        start = (segment + 1) * _SEGMENT_COUNT
        key, raw = next(iter(events.items(start=blobkv.pack(segment + 1))))
        too_many = last - start + 1 >= retention.count
        if not too_many and now - _decode(_position(key), raw).time <= retention.age:
            return
        events.clear(blobkv.pack(segment))


def _first_segment(txn: blobkv.Transaction) -> int:
    return _position(next(iter(txn.bucket(EVENT)))) // _SEGMENT_COUNT


def _position(key: bytes) -> int:
    try:
        _, position = blobkv.unpack(key)
    except (blobkv.UsageError, ValueError) as cause:
        raise DataLoss(f"the map holds an event under {key!r}, which it never wrote") from cause
    if not isinstance(position, int):
        raise DataLoss(f"the map holds an event under {key!r}, which it never wrote")
    return position


def _decode(position: int, raw: bytes) -> Event:
    fields = Fields(raw, f"event {position}")
    parts = fields.texts("holder")
    if len(parts) not in {0, 4, 5}:
        raise fields.damage(f"names the impossible holder {parts!r}")
    return Event(
        position,
        fields.time("time"),
        fields.choice("kind", EventKind),
        fields.digest("digest"),
        Holder.of(parts) if parts else None,
        fields.flag("retains"),
        fields.text("cause"),
    )
