"""Mappings: which blob a snapshot stands for.

A mapping is bound to one life of a snapshot's key, by its time of creation. It is shown only
for a snapshot of that life; what is left from an earlier one is replaced when the snapshot
is mapped, and dropped when the key is committed away, removed, or reconciled.

Only a committed snapshot stands for a blob, for only what cannot change can be the same.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blobmap import digest as digests
from blobmap import filters as filter_language
from blobmap import locks
from blobmap._map import schema
from blobmap._map.schema import Edge
from blobmap.contracts import Blob, Info, Kind
from blobmap.errors import AlreadyExists, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap._map.deletions import Deletions
    from blobmap._map.parts import Parts

_LOG: Final = logging.getLogger("blobmap")


class Mappings:
    """The mappings of one snapshotter. Safe to call from many threads."""

    def __init__(self, parts: Parts, deletions: Deletions) -> None:
        self._parts = parts
        self._deletions = deletions

    def with_blob(self, info: Info) -> Info:
        """Return the snapshot with its blob, if it stands for one."""
        edge = self._parts.refs.edge(info.name)
        blob = edge.blob if edge is not None and edge.is_of(info) else None
        return replace(info, blob=blob)

    def walk(self, *filters: str) -> Iterator[Info]:
        """See `BlobSnapshotter.walk`."""
        inner = self._parts.inner
        if not any("blob" in text for text in filters):
            return map(self.with_blob, inner.walk(*filters))
        matches = filter_language.parse(*filters)
        infos = map(self.with_blob, inner.walk())
        return (info for info in infos if matches(_fields(info)))

    def set(
        self,
        key: str,
        digest: str,
        *,
        diff_id: str | None,
        media_type: str | None,
        replaces: bool,
    ) -> None:
        """See `BlobSnapshotter.set_blob`."""
        schema.check_name("snapshot", key, schema.SNAPSHOT_SIZE_MAX)
        digests.validate(digest)
        if diff_id is not None:
            digests.validate(diff_id)
        refs = self._parts.refs
        # From here until the edge is recorded, nobody can delete the blob or the snapshot.
        with self._parts.locks.hold(locks.snapshot(key), locks.blob(digest)):
            info = self._parts.inner.stat(key)
            if info.kind is not Kind.COMMITTED:
                raise FailedPrecondition(
                    f"snapshot {key!r} is {info.kind.value}: commit it before it is mapped"
                )
            size = self._parts.content.info(digest).size
            blob = Blob(digest, size, diff_id, media_type)
            old = refs.edge(key)
            if old is not None and old.is_of(info) and not replaces:
                blob = _merged(key, old.blob, blob)
            edge = Edge(blob, schema.incarnation(info))
            if not refs.holds(key, edge):
                refs.put_edge(key, edge)
                _LOG.info("snapshot %r stands for %s", key, digest)
        if old is not None and old.blob.digest != digest:
            self._deletions.carry_out(old.blob.digest)

    def unset(self, key: str) -> None:
        """See `BlobSnapshotter.unset_blob`."""
        with self._parts.locks.hold(locks.snapshot(key)):
            edge = self._parts.refs.edge(key)
            if edge is None:
                self._parts.inner.stat(key)
                return
            self._parts.refs.drop_edge(key, edge)
        _LOG.info("snapshot %r stands for %s no longer", key, edge.blob.digest)
        self._deletions.carry_out(edge.blob.digest)

    def drop_stale(self, key: str) -> None:
        """Drop what the map has under the key from an earlier life of it, if anything."""
        if self._parts.refs.edge(key) is None:
            return
        with self._parts.locks.hold(locks.snapshot(key)):
            edge = self._parts.refs.edge(key)
            if edge is None or edge.is_of(self._parts.inner.stat(key)):
                return
            self._parts.refs.drop_edge(key, edge)
        _LOG.info("dropped the mapping of an earlier %r to %s", key, edge.blob.digest)
        self._deletions.carry_out(edge.blob.digest)


def _merged(key: str, old: Blob, new: Blob) -> Blob:
    """Return the new blob with what the old one adds; AlreadyExists if they contradict."""
    if old.digest != new.digest:
        raise AlreadyExists(
            f"snapshot {key!r} stands for {old.digest}, not {new.digest}: pass replace=True to "
            "replace it"
        )
    merged = replace(
        new,
        diff_id=new.diff_id or old.diff_id,
        media_type=new.media_type or old.media_type,
    )
    for field in ("diff_id", "media_type"):
        recorded, given = getattr(old, field), getattr(merged, field)
        if recorded not in (None, given):
            raise AlreadyExists(
                f"snapshot {key!r} has {field} {recorded}, not {given}: pass replace=True to "
                "replace it"
            )
    return merged


def _fields(info: Info) -> filter_language.Lookup:
    """Return the fields of a snapshot for filters, those of its blob included."""
    rest = filter_language.snapshot(info)
    blob = info.blob
    fields = (
        {}
        if blob is None
        else {
            (): blob.digest,
            ("digest",): blob.digest,
            ("diff_id",): blob.diff_id,
            ("media_type",): blob.media_type,
        }
    )
    return lambda path: fields.get(path[1:]) if path[0] == "blob" else rest(path)
