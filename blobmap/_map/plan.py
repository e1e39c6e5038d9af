"""What would go if some snapshots were removed: the answer before the deed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobmap.contracts import Blob
from blobmap.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blobmap._map.parts import Parts
    from blobmap.contracts import Image


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
    return _plan(_from_the_top(dict.fromkeys(keys), parts), (), parts)


def planned_image(
    image: Image, parts: Parts, listing: Callable[[str], tuple[str, ...]]
) -> RemovalPlan:
    """See `BlobSnapshotter.plan_image_removal`; `listing` tells what lists a snapshot."""
    order: list[str] = []
    children: dict[str, set[str]] = {key: set() for key in image.snapshots}
    for info in parts.inner.walk():
        if info.parent in children:
            children[info.parent].add(info.name)
    for key in reversed(image.snapshots):
        if listing(key) != (image.name,) or not children[key] <= set(order):
            break
        order.append(key)
    own = [Blob(digest, parts.content.info(digest).size) for digest in image.blobs]
    return _plan(order, own, parts)


def _plan(order: Sequence[str], own: Sequence[Blob], parts: Parts) -> RemovalPlan:
    """Return what goes with these snapshots, and with what holds these blobs beside them."""
    held = Counter(blob.digest for blob in own)
    blobs = {blob.digest: blob for blob in own}
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
