"""The images of a map: what each holds and lists, and what one that is gone left behind.

Each method is one transaction, durable when it returns. An image goes at once, as a whole;
its snapshots are then *leftovers*, a durable intent to remove them that stands until
`finish`. Blobs that nothing holds any more are queued; deleting them is the caller's step.

Invariant: a row of listing stands exactly for each snapshot of each image.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobmap._map import edges, schema

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import blobkv
    from blobmap._map.events import Change
    from blobmap.contracts import Image
    from blobmap.refs import Refs


@dataclass(frozen=True, slots=True)
class Leftovers:
    """The snapshots of an image that is gone, the base first; the token tells them apart."""

    image: str
    token: str
    snapshots: tuple[str, ...]


class Catalog:
    """The images of one scope. Safe to call from many threads."""

    def __init__(self, refs: Refs) -> None:
        self._refs = refs

    def image(self, name: str) -> Image | None:
        """Return the image of that name, or None."""
        if not schema.fits(name, schema.IMAGE_SIZE_MAX):
            return None
        with self._refs.view() as txn:
            return self._image(txn, name)

    def images(self) -> Iterator[Image]:
        """Yield each image, by name."""
        for (name,), raw in self._refs.scan(schema.IMAGE):
            yield schema.decode_image(raw, name)

    def listing(self, snapshot: str) -> tuple[str, ...]:
        """Return the names of the images that list the snapshot, in order."""
        return tuple(image for (_, image), _ in self._refs.scan(schema.LISTING, snapshot))

    def listings(self) -> Iterator[tuple[str, str]]:
        """Yield `(snapshot, image)` for each snapshot that an image lists, in order."""
        for (snapshot, image), _ in self._refs.scan(schema.LISTING):
            yield snapshot, image

    def put(self, image: Image, sizes: Mapping[str, int]) -> tuple[str, ...]:
        """Record the image in place of any of the same name.

        Snapshots that the old one listed and this one does not become leftovers.

        Args:
            image: What to record.
            sizes: The size of each of its blobs, in bytes.

        Returns:
            The digests that the old one held and this one does not.
        """
        with self._refs.update(f"set_image {image.name!r}") as change:
            txn = change.txn
            holder = self._refs.holder(schema.BY_IMAGE, image.name)
            for digest in image.blobs:
                edges.link(change, holder, digest, size=sizes[digest])
            released = self._drop(change, image.name, kept=image)
            row = self._refs.scope.key(image.name)
            txn.bucket(schema.IMAGE).put(row, schema.encode_image(image, sizes))
            for snapshot in image.snapshots:
                row = self._refs.scope.key(snapshot, image.name)
                txn.bucket(schema.LISTING).put(row, b"")
            return released

    def drop(self, name: str) -> tuple[str, ...]:
        """Drop the image and make its snapshots leftovers; return the digests it held."""
        with self._refs.update(f"remove_image {name!r}") as change:
            return self._drop(change, name, kept=None)

    def leftovers(self, *image: str) -> Iterator[Leftovers]:
        """Yield what all images that are gone left behind, or those of one name."""
        for (name, token), raw in self._refs.scan(schema.LEFTOVER, *image):
            yield Leftovers(name, token, schema.decode_leftover(raw, name))

    def finish(self, leftovers: Leftovers) -> None:
        """Record that the snapshots are removed, or kept for good reason."""
        with self._refs.update("remove_image") as change:
            row = self._refs.scope.key(leftovers.image, leftovers.token)
            change.txn.bucket(schema.LEFTOVER).delete(row)

    def _image(self, txn: blobkv.Transaction, name: str) -> Image | None:
        raw = txn.bucket(schema.IMAGE).get(self._refs.scope.key(name))
        return None if raw is None else schema.decode_image(raw, name)

    def _drop(self, change: Change, name: str, *, kept: Image | None) -> tuple[str, ...]:
        txn = change.txn
        old = self._image(txn, name)
        if old is None:
            return ()
        kept_blobs = () if kept is None else kept.blobs
        kept_snapshots = () if kept is None else kept.snapshots
        released = tuple(digest for digest in old.blobs if digest not in kept_blobs)
        for digest in released:
            edges.unlink(change, self._refs.holder(schema.BY_IMAGE, name), digest)
        for snapshot in old.snapshots:
            txn.bucket(schema.LISTING).delete(self._refs.scope.key(snapshot, name))
        left = [snapshot for snapshot in old.snapshots if snapshot not in kept_snapshots]
        if left:
            row = self._refs.scope.key(name, secrets.token_hex(8))
            txn.bucket(schema.LEFTOVER).put(row, schema.encode_leftover(left))
        txn.bucket(schema.IMAGE).delete(self._refs.scope.key(name))
        return released
