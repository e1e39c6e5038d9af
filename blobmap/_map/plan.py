"""What would go if some snapshots were removed: the answer before the deed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobmap.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobmap._map.parts import Parts
    from blobmap.contracts import Blob


@dataclass(frozen=True, slots=True)
class RemovalPlan:
    """What would go.

    Attributes:
        snapshots: The snapshots, in the order in which they can be removed.
        blobs: The blobs that nothing else holds, by digest; a size of 0 where none is known.
        snapshot_size: The bytes of the snapshots' own trees.
        blob_size: The bytes of the blobs.
    """

    snapshots: tuple[str, ...]
    blobs: tuple[Blob, ...]
    snapshot_size: int
    blob_size: int

    @property
    def size(self) -> int:
        """All the bytes that would come free."""
        return self.snapshot_size + self.blob_size


def planned(keys: Sequence[str], parts: Parts) -> RemovalPlan:
    """See `BlobSnapshotter.plan_removal`."""
    wanted = dict.fromkeys(keys)
    order = _from_the_top(wanted, parts)
    held: Counter[str] = Counter()
    blobs: dict[str, Blob] = {}
    for key in order:
        for edge in parts.refs.edges_of(key):
            if edge.retains:
                held[edge.blob.digest] += 1
                blobs[edge.blob.digest] = edge.blob
    gone = [
        blobs[digest] for digest in sorted(held) if parts.refs.count(digest) <= held[digest]
    ]
    return RemovalPlan(
        tuple(order),
        tuple(gone),
        sum(parts.inner.usage(key).size for key in order),
        sum(blob.size for blob in gone),
    )


def _from_the_top(wanted: dict[str, None], parts: Parts) -> list[str]:
    """Return the snapshots, children before their parents."""
    parents: dict[str, str] = {}
    children: Counter[str] = Counter()
    for info in parts.inner.walk():
        if info.name in wanted:
            parents[info.name] = info.parent
        elif info.parent in wanted:
            raise FailedPrecondition(
                f"cannot remove snapshot {info.parent!r}: it is the parent of {info.name!r}"
            )
        children[info.parent] += info.parent in wanted and info.name in wanted
    missing = [key for key in wanted if key not in parents]
    if missing:
        raise NotFound(f"no snapshot {missing[0]!r}")
    free = [key for key in wanted if not children[key]]
    # The list grows while it is read.
    for key in free:
        parent = parents[key]
        if parent in parents:
            children[parent] -= 1
            if not children[parent]:
                free.append(parent)
    return free
