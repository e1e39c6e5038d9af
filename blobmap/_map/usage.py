"""What snapshots cost on disk, with the bytes they share counted once."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blobmap.contracts import Usage
from blobmap.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap._map.parts import Parts
    from blobmap.contracts import Blob, ContentStore, Info, Kind

_LOG: Final = logging.getLogger("blobmap")


@dataclass(frozen=True, slots=True)
class UsageRow:
    """What one snapshot costs, in bytes.

    Attributes:
        name: The snapshot.
        kind: Its kind.
        blob: The blob it stands for, or None.
        exclusive: What goes when the snapshot goes: its own tree, and its blob if nothing
            else holds that.
        shared: The blob's size if something else holds it too, or this merely knows it. Do not
            add these up: one blob is in many rows. `DiskUsage.size` counts it once.
        missing: Whether the blob is not in the content store; it then costs nothing.
    """

    name: str
    kind: Kind
    blob: Blob | None
    exclusive: int
    shared: int
    missing: bool

    @property
    def total(self) -> int:
        """What the snapshot takes by itself: exclusive and shared."""
        return self.exclusive + self.shared


class DiskUsage(list[UsageRow]):
    """The rows, one a snapshot, in order of names."""

    @property
    def shared(self) -> dict[str, int]:
        """The size of each blob that no row has to itself, by digest, once each."""
        blobs = [(row.blob.digest, row.shared) for row in self if row.blob is not None]
        # A snapshot may know what another one has to itself.
        own = {digest for digest, size in blobs if not size}
        return {digest: size for digest, size in blobs if digest not in own}

    @property
    def size(self) -> int:
        """The bytes of all rows: what is exclusive, and what is shared once.

        That is what snapshots and their blobs take on disk; blobs that only images hold,
        manifests and configs, are not among them.
        """
        return sum(row.exclusive for row in self) + sum(self.shared.values())


def usage_of(key: str, own: Usage, blob: Blob | None, content: ContentStore) -> Usage:
    """Return the snapshot's `own` usage and its blob's bytes; a missing blob is logged."""
    size = 0 if blob is None else _size_on_disk(key, blob, content)
    return Usage(own.size + (size or 0), own.inodes)


def disk_usage(infos: Iterator[Info], parts: Parts) -> DiskUsage:
    """Return a row for each of the snapshots.

    Args:
        infos: The snapshots, with their blobs.
        parts: What knows the costs, and who holds what.
    """
    rows = []
    for info in infos:
        try:
            own = parts.inner.usage(info.name).size
        except NotFound:
            # Removed since the walk came by.
            continue
        size = None if info.blob is None else _size_on_disk(info.name, info.blob, parts.content)
        alone = info.blob is not None and _is_its_own(info.name, info.blob, parts)
        rows.append(
            UsageRow(
                info.name,
                info.kind,
                info.blob,
                exclusive=own + (size or 0 if alone else 0),
                shared=0 if alone else size or 0,
                missing=info.blob is not None and size is None,
            )
        )
    return DiskUsage(rows)


def _is_its_own(key: str, blob: Blob, parts: Parts) -> bool:
    """Return whether the blob goes when the snapshot goes."""
    edge = parts.refs.edge(key)
    return edge is not None and edge.retains and parts.refs.count(blob.digest) <= 1


def _size_on_disk(key: str, blob: Blob, content: ContentStore) -> int | None:
    try:
        return content.info(blob.digest).size
    except NotFound:
        _LOG.warning("snapshot %r stands for %s, which is not there", key, blob.digest)
        return None
