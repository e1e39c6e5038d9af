"""The records of snapshots: what there is, on what, and where its tree is.

    key                           value
    ----------------------------  ---------------------------------------------------------
    pack("snapshot", name)        a record: id, kind, parent, labels, created, updated, size,
                                  inodes
    pack("child", parent, name)   nothing: `name` has `parent` as its parent
    pack("next_id")               the smallest id that was never recorded, in decimal
    pack("trees")                 whose trees these are; without it, those of "native"

Invariants:

* There is a child key exactly for each snapshot with a parent, and the parent is committed.
* No two snapshots have the same id, and no id is used again, so that a path to a tree that
  is gone never leads to another one.

Every function works within the caller's transaction.

Source: containerd's core/snapshots/storage, whose parents bucket is the child keys here.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import blobkv
from blobmap.contracts import Info, Kind, Usage
from blobmap.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound
from blobmap.fields import Fields, encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from blobkv import Transaction

_SNAPSHOTS: Final = blobkv.pack("snapshot")
_NEXT_ID: Final = blobkv.pack("next_id")
_TREES: Final = blobkv.pack("trees")


@dataclass(frozen=True, slots=True)
class Snapshot:
    """One record. `id` names the tree; `usage` is set by the commit and zero before it."""

    id: int
    info: Info
    usage: Usage


def find(txn: Transaction, name: str) -> Snapshot:
    """Return the snapshot.

    Raises:
        NotFound: There is none of that name.
    """
    value = txn.get(_key(name))
    if value is None:
        raise NotFound(f"no snapshot {name!r}")
    return _decode(name, value)


def committed(txn: Transaction, name: str) -> Snapshot:
    """Return the snapshot, fit to be a parent.

    Raises:
        NotFound: There is none of that name.
        InvalidArgument: It is not committed.
    """
    found = find(txn, name)
    if found.info.kind is not Kind.COMMITTED:
        raise InvalidArgument(f"parent {name!r} is {found.info.kind.value}; commit it first")
    return found


def lineage(txn: Transaction, snapshot: Snapshot) -> list[Snapshot]:
    """Return the snapshot, its parent, and so on down to the one that has none.

    Cost: one point read for each parent.
    """
    found = [snapshot]
    while found[-1].info.parent:
        found.append(find(txn, found[-1].info.parent))
    return found


def child_of(txn: Transaction, name: str) -> str | None:
    """Return the name of some snapshot that has `name` as its parent, or None."""
    for key in txn.keys(prefix=blobkv.pack("child", name)):
        return str(blobkv.unpack(key)[2])
    return None


def names(txn: Transaction) -> list[str]:
    """Return every snapshot's name, in order."""
    return [_name(key) for key in txn.keys(prefix=_SNAPSHOTS)]


def every(txn: Transaction) -> Iterator[Snapshot]:
    """Yield every snapshot, in the order of their names."""
    for key, value in txn.items(prefix=_SNAPSHOTS):
        yield _decode(_name(key), value)


def newest_time(txn: Transaction) -> datetime | None:
    """Return the newest time in any record, or None if there is no record."""
    times = (snapshot.info.updated for snapshot in every(txn))
    return max((time for time in times if time is not None), default=None)


def next_id(txn: Transaction) -> int:
    """Return the smallest id that was never recorded; DataLoss if it does not read."""
    raw = txn.get(_NEXT_ID, b"1")
    if not raw.isdigit():
        raise DataLoss(
            f"the next id of a snapshot is {raw!r}: restore the records from a backup"
        )
    return int(raw)


def trees(txn: Transaction) -> str:
    """Return whose trees these are, or "" where no snapshot was ever recorded."""
    raw = txn.get(_TREES, b"native" if _NEXT_ID in txn else b"")
    return raw.decode("ascii", "backslashreplace")


def set_trees(txn: Transaction, name: str) -> None:
    """Note whose trees these are."""
    txn.put(_TREES, name.encode())


def require_free(txn: Transaction, name: str) -> None:
    """Raise AlreadyExists if there is a snapshot of that name."""
    if _key(name) in txn:
        raise AlreadyExists(f"snapshot {name!r} exists")


def require_same(txn: Transaction, snapshot: Snapshot) -> None:
    """Raise NotFound if the snapshot has gone, though another may have its name by now."""
    if find(txn, snapshot.info.name).id != snapshot.id:
        raise NotFound(f"snapshot {snapshot.info.name!r} was removed meanwhile; try again")


def put(txn: Transaction, snapshot: Snapshot) -> None:
    """Write the snapshot's record, new or not."""
    txn.put(_key(snapshot.info.name), _encode(snapshot))
    if snapshot.info.parent:
        txn.put(_child_key(snapshot.info), b"")
    if snapshot.id >= next_id(txn):
        txn.put(_NEXT_ID, b"%d" % (snapshot.id + 1))


def delete(txn: Transaction, snapshot: Snapshot) -> None:
    """Drop the snapshot's record."""
    txn.delete(_key(snapshot.info.name))
    if snapshot.info.parent:
        txn.delete(_child_key(snapshot.info))


def _key(name: str) -> bytes:
    return blobkv.pack("snapshot", name)


def _child_key(info: Info) -> bytes:
    return blobkv.pack("child", info.parent, info.name)


def _name(key: bytes) -> str:
    return str(blobkv.unpack(key)[1])


def _encode(snapshot: Snapshot) -> bytes:
    info = snapshot.info
    assert info.created is not None
    assert info.updated is not None
    return encode(
        id=snapshot.id,
        kind=info.kind.value,
        parent=info.parent,
        labels=dict(info.labels),
        created=info.created.isoformat(),
        updated=info.updated.isoformat(),
        size=snapshot.usage.size,
        inodes=snapshot.usage.inodes,
    )


def _decode(name: str, value: bytes) -> Snapshot:
    fields = Fields(value, f"the record of snapshot {name!r}")
    info = Info(
        name,
        fields.text("parent"),
        fields.choice("kind", Kind),
        fields.labels("labels"),
        fields.time("created"),
        fields.time("updated"),
    )
    usage = Usage(fields.number("size"), fields.number("inodes"))
    return Snapshot(fields.number("id"), info, usage)
