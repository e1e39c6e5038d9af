"""References: which blob a snapshot stands for, and which others belong to it.

A reference is bound to one life of a snapshot's key, by its time of creation. It is shown only
for a snapshot of that life; what is left from an earlier one is replaced when the snapshot
is mapped, and dropped when the key is committed away, removed, or reconciled.

Only a committed snapshot refers to blobs, for only what cannot change can be the same.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from blobmap import digest as digests
from blobmap import filters as filter_language
from blobmap import labels as label_rules
from blobmap import locks
from blobmap._map import schema
from blobmap._map.schema import Edge
from blobmap.contracts import Info, Kind, Reference
from blobmap.errors import AlreadyExists, FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap._map.deletions import Deletions
    from blobmap._map.parts import Parts

_LOG: Final = logging.getLogger("blobmap")

_STALE: Final = "of an earlier life of the key"


class Mappings:
    """The mappings of one snapshotter. Safe to call from many threads."""

    def __init__(self, parts: Parts, deletions: Deletions) -> None:
        self._parts = parts
        self._deletions = deletions

    def stat(self, key: str) -> Info:
        """See `BlobSnapshotter.stat`."""
        # The edge first: if there is none, the snapshot that is seen then stood for no blob at
        # some moment in between, while one that was seen first may have gone with its edge.
        edge = self._parts.refs.edge(key)
        return _with_blob(self._parts.inner.stat(key), edge)

    def update(self, info: Info, *fieldpaths: str) -> Info:
        """See `BlobSnapshotter.update`."""
        edge = self._parts.refs.edge(info.name)
        return _with_blob(self._parts.inner.update(replace(info, blob=None), *fieldpaths), edge)

    def walk(self, *filters: str) -> Iterator[Info]:
        """See `BlobSnapshotter.walk`."""
        inner = self._parts.inner
        if not any("blob" in text for text in filters):
            return map(self._walked, inner.walk(*filters))
        matches = filter_language.parse(*filters)
        infos = map(self._walked, inner.walk())
        return (info for info in infos if matches(_fields(info)))

    def set(self, key: str, reference: Reference, *, replaces: bool, cause: str) -> None:
        """See `BlobSnapshotter.set_reference`. What size the given blob has does not matter."""
        schema.check_name("snapshot", key, schema.SNAPSHOT_SIZE_MAX)
        schema.check_name("role", reference.role, schema.ROLE_SIZE_MAX)
        digest = digests.validate(reference.blob.digest)
        if reference.blob.diff_id is not None:
            digests.validate(reference.blob.diff_id)
        label_rules.checked(reference.annotations)
        refs = self._parts.refs
        released: tuple[str, ...] = ()
        # From here until the edge is recorded, nobody can delete the blob or the snapshot.
        with self._parts.locks.hold(locks.snapshot(key), locks.blob(digest)):
            info = self._committed(key)
            size = self._parts.content.info(digest).size
            reference = replace(reference, blob=replace(reference.blob, size=size))
            old = refs.edge(key, reference.role)
            if old is not None and old.is_of(info) and not replaces:
                reference = _merged(key, old.reference, reference)
            edge = Edge(reference, schema.incarnation(info))
            if not refs.holds(key, edge):
                released = refs.put_edge(key, edge, cause)
                _LOG.info("snapshot %r has %s as its %s", key, digest, reference.role)
        self._deletions.carry_out(*released)

    def unset(self, key: str, role: str, cause: str) -> None:
        """See `BlobSnapshotter.unset_reference`."""
        with self._parts.locks.hold(locks.snapshot(key)):
            edge = self._parts.refs.edge(key, role)
            if edge is None:
                self._parts.inner.stat(key)
                return
            released = self._parts.refs.drop_edge(key, edge, cause) or ()
        _LOG.info("snapshot %r has %s as its %s no longer", key, edge.blob.digest, role)
        self._deletions.carry_out(*released)

    def all_of(self, key: str) -> tuple[Reference, ...]:
        """See `BlobSnapshotter.references_of`."""
        edges = self._parts.refs.edges_of(key)
        info = self._parts.inner.stat(key)
        return tuple(edge.reference for edge in edges if edge.is_of(info))

    def drop_stale(self, key: str) -> None:
        """Drop what the map has under the key from an earlier life of it, if anything."""
        if not self._parts.refs.edges_of(key):
            return
        released: list[str] = []
        with self._parts.locks.hold(locks.snapshot(key)):
            info = self._parts.inner.stat(key)
            for edge in self._parts.refs.edges_of(key):
                if not edge.is_of(info):
                    released += self._parts.refs.drop_edge(key, edge, _STALE) or ()
                    _LOG.info("dropped what an earlier %r had: %s", key, edge.blob.digest)
        self._deletions.carry_out(*released)

    def _walked(self, info: Info) -> Info:
        return _with_blob(info, self._parts.refs.edge(info.name))

    def _committed(self, key: str) -> Info:
        info = self._parts.inner.stat(key)
        if info.kind is not Kind.COMMITTED:
            raise FailedPrecondition(
                f"snapshot {key!r} is {info.kind.value}: commit it before it is mapped"
            )
        return info


def _with_blob(info: Info, edge: Edge | None) -> Info:
    """Return the snapshot with its layer's blob, if it stands for one."""
    return replace(info, blob=edge.blob if edge is not None and edge.is_of(info) else None)


def _merged(key: str, old: Reference, new: Reference) -> Reference:
    """Return the new one with what the old one adds; AlreadyExists if they contradict."""
    if old.blob.digest != new.blob.digest:
        raise AlreadyExists(
            f"snapshot {key!r} has {old.blob.digest} as its {old.role}, not "
            f"{new.blob.digest}: pass replace=True to replace it"
        )
    blob = replace(
        new.blob,
        diff_id=new.blob.diff_id or old.blob.diff_id,
        media_type=new.blob.media_type or old.blob.media_type,
    )
    annotations = {**old.annotations, **new.annotations}
    merged = replace(new, blob=blob, annotations=annotations)
    for name in ("diff_id", "media_type"):
        recorded, given = getattr(old.blob, name), getattr(blob, name)
        if recorded not in (None, given):
            raise AlreadyExists(
                f"snapshot {key!r} has {name} {recorded}, not {given}: pass replace=True to "
                "replace it"
            )
    if old.policy is not new.policy or dict(annotations) != {**annotations, **old.annotations}:
        raise AlreadyExists(
            f"snapshot {key!r} has its {old.role} under another policy or other annotations: "
            "pass replace=True to replace them"
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
