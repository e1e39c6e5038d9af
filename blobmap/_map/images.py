"""Images: names for stacks of snapshots, which keep their own blobs and go as a whole.

An image holds the blobs it names (manifest, config); its layers' blobs are held by its
snapshots. When an image goes, or is replaced by another of its name, the record goes first,
in one transaction that turns what only it listed into *leftovers*; then each leftover
snapshot is removed, from the top down, until one is met that must stay: another image lists
it, or it has a child that is none of the image's. Below such a one all are its parents, so
all stay. A crash, or a snapshotter that fails, leaves leftovers for the next open.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from blobmap import digest as digests
from blobmap import locks
from blobmap._map import schema
from blobmap._map.plan import planned_image
from blobmap.contracts import Image, Kind
from blobmap.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap._map.catalog import Catalog, Leftovers
    from blobmap._map.deletions import Deletions
    from blobmap._map.parts import Parts
    from blobmap._map.plan import RemovalPlan
    from blobmap._map.removal import Removal


class Images:
    """The images of one snapshotter. Safe to call from many threads."""

    def __init__(
        self, parts: Parts, catalog: Catalog, removal: Removal, deletions: Deletions
    ) -> None:
        self._parts = parts
        self._catalog = catalog
        self._removal = removal
        self._deletions = deletions

    def set(self, image: Image) -> None:
        """See `BlobSnapshotter.set_image`."""
        _check(image)
        snapshots = [locks.snapshot(key) for key in image.snapshots]
        blobs = [locks.blob(digest) for digest in image.blobs]
        with self._parts.locks.hold(locks.image(image.name), *snapshots, *blobs):
            self._check_chain(image.snapshots)
            sizes = {digest: self._parts.content.info(digest).size for digest in image.blobs}
            released = self._catalog.put(image, sizes)
        self._deletions.carry_out(*released)
        for leftovers in self._catalog.leftovers(image.name):
            self._try_prune(leftovers)

    def get(self, name: str) -> Image:
        """See `BlobSnapshotter.get_image`."""
        image = self._catalog.image(name)
        if image is None:
            raise NotFound(f"there is no image {name!r}")
        return image

    def all(self) -> Iterator[Image]:
        """Yield each image, by name."""
        return self._catalog.images()

    def remove(self, name: str) -> None:
        """See `BlobSnapshotter.remove_image`."""
        with self._parts.locks.hold(locks.image(name)):
            found = self._catalog.image(name) is not None
            released = self._catalog.drop(name) if found else ()
        leftovers = list(self._catalog.leftovers(name))
        if not found and not leftovers:
            raise NotFound(f"there is no image {name!r}")
        self._deletions.carry_out(*released)
        for item in leftovers:
            self._prune(item)

    def plan(self, name: str) -> RemovalPlan:
        """See `BlobSnapshotter.plan_image_removal`."""
        return planned_image(self.get(name), self._parts, self._catalog.listing)

    def replay(self) -> None:
        """Remove what images that are gone left behind. For open and reconcile."""
        for leftovers in self._catalog.leftovers():
            self._try_prune(leftovers)

    def _check_chain(self, snapshots: tuple[str, ...]) -> None:
        """Refuse snapshots that are not committed, or not each the parent of the next.

        Pruning goes from the top down and stops at what must stay; it is right for a chain.
        """
        below: str | None = None
        for key in snapshots:
            info = self._parts.inner.stat(key)
            if info.kind is not Kind.COMMITTED:
                raise FailedPrecondition(f"snapshot {key!r} is not committed: commit it")
            if below is not None and info.parent != below:
                raise FailedPrecondition(
                    f"snapshot {key!r} is on {info.parent!r}, not on {below!r} before it: "
                    "list one chain, the base first"
                )
            below = key

    def _try_prune(self, leftovers: Leftovers) -> None:
        what = f"remove the snapshots of {leftovers.image!r}"
        self._parts.attempts.succeeds(what, partial(self._prune, leftovers))

    def _prune(self, leftovers: Leftovers) -> None:
        for key in reversed(leftovers.snapshots):
            if not self._is_removed(key, leftovers.image):
                break
        self._catalog.finish(leftovers)

    def _is_removed(self, key: str, image: str) -> bool:
        try:
            return self._removal.remove(
                key,
                cause=f"image {image!r} is gone",
                unless=lambda: bool(self._catalog.listing(key)),
            )
        except NotFound:
            return True
        except FailedPrecondition:
            return False


def _check(image: Image) -> None:
    """Refuse an image that cannot be recorded; InvalidArgument says why."""
    schema.check_name("image", image.name, schema.IMAGE_SIZE_MAX)
    for key in image.snapshots:
        schema.check_name("snapshot", key, schema.SNAPSHOT_SIZE_MAX)
    for digest in (image.digest, *image.blobs):
        digests.validate(digest)
