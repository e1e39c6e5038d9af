"""What a person means by a name on the command line.

One rule for all commands: a name in full, or of a digest, with or without "sha256:", its
first digits, at least four, if nothing else of the kind starts so.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from blobmap.errors import FailedPrecondition, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable

    from blobmap import BlobSnapshotter

_START: Final = re.compile(r"(?:sha256:)?([0-9a-f]{4,64})|sha512:[0-9a-f]{4,128}")


def resolve(name: str, known: Iterable[str], *, what: str) -> str:
    """Return the one of `known` that is meant.

    Args:
        name: As it was typed.
        known: All names there are.
        what: What they are names of, and the commands that list them, for the error.

    Raises:
        NotFound: None is.
        FailedPrecondition: Several could be.
    """
    start = _START.fullmatch(name)
    digest = "" if start is None else f"sha256:{start[1]}" if start[1] else name
    found = set()
    for candidate in known:
        if candidate == name:
            return name
        if digest and candidate.startswith(digest):
            found.add(candidate)
    if len(found) > 1:
        raise FailedPrecondition(f"{name} could be {len(found)} of them: give more digits")
    if not found:
        raise NotFound(f"{name}: no {what}")
    return found.pop()


def blob_of(target: BlobSnapshotter, name: str) -> tuple[str, str | None]:
    """Return the digest that is meant, and by which snapshot, if it was one that was named.

    What names both a blob and a snapshot, as the base layer's diff ID does where the layer is
    not compressed, is the blob.

    Raises:
        NotFound: No blob and no snapshot is, or a snapshot that stands for no blob.
        FailedPrecondition: Several could be.
    """
    blobs = {info.digest for info in target.content.walk()}
    blobs |= {blob.digest for blob in target.blobs()}
    snapshots = (info.name for info in target.walk())
    what = "blob and no snapshot; see: blobmap blobs, blobmap ls"
    found = resolve(name, [*blobs, *snapshots], what=what)
    if found in blobs:
        return found, None
    blob = target.get_blob(found)
    if blob is None:
        raise NotFound(f"snapshot {found} stands for no blob")
    return blob.digest, found


def image_or_snapshot(target: BlobSnapshotter, name: str) -> tuple[str, str]:
    """Return which of both is meant, "image" or "snapshot", and its name.

    Raises:
        NotFound: None is.
        FailedPrecondition: Several could be.
    """
    try:
        return "image", target.get_image(name).name
    except (NotFound, InvalidArgument):
        return "snapshot", snapshot(target, name)


def remove(target: BlobSnapshotter, name: str) -> tuple[str, str]:
    """Remove the image or the snapshot that is meant; return which of both, and its name.

    Raises:
        NotFound: None is.
        FailedPrecondition: Several could be; or it is a snapshot that an image lists or that
            another has as its parent.
    """
    try:
        target.remove_image(name)
    except (NotFound, InvalidArgument):
        pass
    else:
        return "image", name
    found = snapshot(target, name)
    images = [image.name for image in target.images() if found in image.snapshots]
    if images:
        raise FailedPrecondition(
            f"snapshot {found} belongs to image {' and to image '.join(images)}, and goes "
            f"with that: {', then '.join(f'blobmap rm {image}' for image in images)}"
        )
    target.remove(found)
    return "snapshot", found


def snapshot(target: BlobSnapshotter, name: str) -> str:
    """Return the snapshot that is meant; raises as `resolve`."""
    snapshots = (info.name for info in target.walk())
    what = "image and no snapshot; see: blobmap images, blobmap ls"
    return resolve(name, snapshots, what=what)
