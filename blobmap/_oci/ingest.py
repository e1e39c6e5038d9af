"""One blob into a content store: resumed where an earlier attempt stopped, and verified.

An ingest's ref is made of the digest, so attempts at the same blob meet: a later one goes on
from what a crash left, and one at the same time waits for the other for as long as that one
gets on. What nobody went on with for a day is dropped.

Source: containerd, for the day (its ingests expire after one).
"""

from __future__ import annotations

import logging
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final

from blobmap.errors import (
    AlreadyExists,
    BlobMapError,
    DataLoss,
    FailedPrecondition,
    NotFound,
    Unavailable,
)
from blobmap.verification import digest_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blobmap.contracts import ContentReader, ContentStore, ContentWriter

CHUNK_SIZE: Final = 1 << 20

_REF: Final = "import-"
_STALE: Final = timedelta(days=1)

# How long to wait for another writer that makes no progress.
_PATIENCE_SECONDS: Final = 10.0
_POLL_SECONDS_MIN: Final = 0.01
_POLL_SECONDS_MAX: Final = 0.5

# How often to begin again when the blob that was there is not, or is damaged.
_ATTEMPTS_MAX: Final = 5

_LOG: Final = logging.getLogger("blobmap")


def ingest(
    content: ContentStore,
    digest: str,
    size: int,
    chunks: Callable[[int], Iterator[bytes]],
    *,
    resumable: bool = True,
    report: Callable[[int], None] = lambda _: None,
) -> None:
    """Have the blob in the content store; where it is already, nothing is read.

    One that is there with another size is read: if its bytes are not its own, it was damaged,
    and is replaced.

    Args:
        content: The store.
        digest: The blob's.
        size: Its size in bytes.
        chunks: Gives its bytes from an offset on.
        resumable: Whether `chunks` can be called more than once, and with an offset.
        report: Called with the bytes that are there so far, after each chunk.

    Raises:
        DataLoss: The bytes are not what digest and size say, or those that are there have the
            digest and not the size. Nothing is kept of what came.
        Unavailable: Another writer holds the ingest and makes no progress; or the blob is
            removed by others again and again.

    Cost: one pass over what is missing, one sync.
    """
    ref = f"{_REF}{digest}"
    for _ in range(_ATTEMPTS_MAX):
        writer = _open(content, ref, digest, size)
        if writer is None:
            if _is_there(content, digest, size):
                return
            continue
        with writer:
            start = writer.status().offset
            if start > size or not resumable:
                writer.truncate(0)
                start = 0
            try:
                _copy(writer, chunks(start), start, report)
                writer.commit(size, digest)
            except AlreadyExists:
                _LOG.debug("blob %s was ingested meanwhile", digest)
            except FailedPrecondition as error:
                _abort(content, ref)
                # What the earlier attempt left may be what is wrong; so once more, without.
                if start == 0:
                    raise DataLoss(
                        f"blob {digest} of {size} bytes: what came is not it ({error}); "
                        "copy the image again"
                    ) from error
            except (BlobMapError, OSError):
                _abort(content, ref)
                raise
            else:
                return
    raise Unavailable(f"blob {digest} comes and goes: others remove it; import again")


def drop_stale(content: ContentStore) -> None:
    """Drop what imports that died left half-way, and none went on with for a day."""
    stale = datetime.now(UTC) - _STALE
    for status in content.list_statuses(f"ref~=^{_REF}"):
        if status.updated < stale:
            _abort(content, status.ref)


def chunks_of(reader: ContentReader) -> Callable[[int], Iterator[bytes]]:
    """Return what gives the reader's bytes from an offset on."""

    def chunks(offset: int) -> Iterator[bytes]:
        while data := reader.read_at(offset, CHUNK_SIZE):
            yield data
            offset += len(data)

    return chunks


class FromStart:
    """A blob read from first to last, as what decompresses reads it.

    Args:
        reader: The blob.
        report: Called with the bytes that are read so far, after each read.
    """

    def __init__(self, reader: ContentReader, report: Callable[[int], None]) -> None:
        self._reader = reader
        self._report = report
        self._offset = 0

    def read(self, size: int, /) -> bytes:
        """Return what comes next; b"" at the end."""
        data = self._reader.read_at(self._offset, size)
        self._offset += len(data)
        self._report(self._offset)
        return data


def _open(content: ContentStore, ref: str, digest: str, size: int) -> ContentWriter | None:
    """Return a writer of the ingest, or None if the blob is there."""
    offset, poll = -1, _POLL_SECONDS_MIN
    deadline = time.monotonic() + _PATIENCE_SECONDS
    while True:
        try:
            return content.writer(ref, size=size, digest=digest)
        except AlreadyExists:
            return None
        except Unavailable:
            now = time.monotonic()
            reached = _offset(content, ref)
            if reached != offset:
                offset, deadline = reached, now + _PATIENCE_SECONDS
            if now > deadline:
                raise
        time.sleep(poll)
        poll = min(poll * 2, _POLL_SECONDS_MAX)


def _offset(content: ContentStore, ref: str) -> int:
    with suppress(NotFound):
        return content.status(ref).offset
    return -1


def _copy(
    writer: ContentWriter, chunks: Iterator[bytes], offset: int, report: Callable[[int], None]
) -> None:
    report(offset)
    for data in chunks:
        writer.write(data)
        offset += len(data)
        report(offset)


def _abort(content: ContentStore, ref: str) -> None:
    with suppress(NotFound):
        content.abort(ref)


def _is_there(content: ContentStore, digest: str, size: int) -> bool:
    """Return whether the blob is there, whole; delete it if it is damaged."""
    try:
        with content.reader_at(digest) as reader:
            there = reader.size
            if there == size:
                return True
            found = digest_of(reader, like=digest)
        if found != digest:
            _LOG.warning("blob %s was damaged, and is replaced by the image's", digest)
            content.delete(digest)
            return False
    except NotFound:
        # Whoever else found it damaged was first.
        return False
    raise DataLoss(f"blob {digest} has {there} bytes where its descriptor says {size}")
