"""Every blob's bytes against its digest: what `reconcile`, which reads no bytes, cannot see.

A blob is *damaged* if its bytes have another digest, and *missing* if the map holds it and
the content store has none. Nothing is changed: what to do about either is to remove the
images that need the blob, which removes it, and to import them again.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from heapq import merge
from itertools import groupby
from typing import TYPE_CHECKING, Final

from blobmap import digest as digests
from blobmap.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobmap.contracts import ContentReader
    from blobmap.snapshotter import BlobSnapshotter

_CHUNK_SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Damage:
    """One blob that is not what its digest says.

    Attributes:
        digest: The blob.
        found: The digest of the bytes that are there; None if none are.
        holders: How many snapshots, images, and works hold it.
    """

    digest: str
    found: str | None
    holders: int

    def __str__(self) -> str:
        if self.found is None:
            return f"blob missing: {self.digest}: it is held, but not in the content store"
        return f"blob damaged: {self.digest}: its bytes are {self.found}"


@dataclass(slots=True)
class Verification:
    """What `verify` read and found.

    Attributes:
        blob_count: Blobs whose bytes were read.
        size: Their bytes.
        damages: What is wrong, in order of digests.
    """

    blob_count: int = 0
    size: int = 0
    damages: list[Damage] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every blob is what its digest says."""
        return not self.damages

    def __str__(self) -> str:
        lines = [f"{self.blob_count} blobs read, {self.size} bytes", *map(str, self.damages)]
        if self.ok:
            lines.append("all bytes are what their digests say")
        else:
            lines.append(
                f"{len(self.damages)} wrong: `explain` names the images that hold them; remove "
                "those, which removes the blobs, and import them again"
            )
        return "\n".join(lines)


def verify(
    target: BlobSnapshotter, *, progress: Callable[[str, int, int], None] | None = None
) -> Verification:
    """Read every blob of the content store, and compare it with its digest.

    Blobs that come or go meanwhile may be left out.

    Args:
        target: Whose content, and which blobs it holds.
        progress: Called with a digest, its bytes that are read, and all its bytes.

    Raises:
        OSError: The device cannot read a blob.

    Cost: one pass over all bytes; memory for one chunk, and for what is wrong.
    """
    result = Verification()
    walked = (info.digest for info in target.content.walk())
    held = (blob.digest for blob in target.blobs())
    for digest, _ in groupby(merge(walked, held)):
        try:
            with target.content.reader_at(digest) as reader:
                size = reader.size
                report = _reporter(progress, digest, size)
                found = digest_of(reader, like=digest, report=report)
        except NotFound:
            # One that was let go since it was listed is no loss.
            if holders := target.references(digest):
                result.damages.append(Damage(digest, None, holders))
            continue
        result.blob_count += 1
        result.size += size
        if found != digest:
            result.damages.append(Damage(digest, found, target.references(digest)))
    return result


def digest_of(
    reader: ContentReader, *, like: str, report: Callable[[int], None] = lambda _: None
) -> str:
    """Return the digest of all that the reader gives, by the algorithm of `like`.

    Cost: one pass over the bytes; `report` is called with how many are done.
    """
    running = digests.hasher(digests.split(like)[0])
    done = 0
    while data := reader.read_at(done, _CHUNK_SIZE):
        running.update(data)
        done += len(data)
        report(done)
    return digests.name(running)


def _reporter(
    progress: Callable[[str, int, int], None] | None, digest: str, size: int
) -> Callable[[int], None]:
    if progress is None:
        return lambda _: None
    return lambda done: progress(digest, done, size)
