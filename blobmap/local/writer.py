"""The open end of one ingest: bytes in, and at last a blob, or progress kept."""

from __future__ import annotations

import os
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol, Self

from blobmap import digest as digests
from blobmap import labels as label_rules
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument
from blobmap.local.durable import write_at

if TYPE_CHECKING:
    import io
    from collections.abc import Mapping
    from hashlib import _Hash
    from types import TracebackType

    from blobmap.clock import Ticker
    from blobmap.contracts import IngestStatus

_CHUNK_SIZE: Final = 1 << 20


class Keeper(Protocol):
    """What a writer asks of whoever opened it."""

    def publish(self, fd: int, ref: str, digest: str, labels: dict[str, str]) -> None:
        """Make the ingest's bytes a blob, or raise AlreadyExists."""

    def keep(self, status: IngestStatus) -> None:
        """Record how far the ingest is."""

    def drop(self, ref: str) -> None:
        """Forget the ingest."""

    def release(self, ref: str) -> None:
        """Let the next writer have the ref."""


class LocalWriter:
    """The open end of one ingest. Safe to call from many threads.

    Invariants, while it is open:

    * The file's size is the status's offset, and the running hash is that of its bytes.
    * The ref is taken, and by this writer.
    """

    def __init__(
        self,
        keeper: Keeper,
        status: IngestStatus,
        file: io.FileIO,
        ticker: Ticker,
    ) -> None:
        self._keeper = keeper
        self._file = file
        self._ticker = ticker
        self._lock = threading.RLock()
        algorithm = digests.split(status.expected)[0] if status.expected else digests.CANONICAL
        self._hash, offset = _hash_file(file, algorithm)
        self._status = replace(status, offset=offset)

    def write(self, data: bytes) -> int:
        """Append `data`; return its size.

        Raises:
            FailedPrecondition: The writer is closed.
            TypeError: `data` is not contiguous bytes.
            OSError: The device failed or is full; nothing was appended.
        """
        # Of wider items, `len` would count the items and not the bytes.
        octets = memoryview(data).cast("B")
        with self._lock:
            self._require_open()
            try:
                write_at(self._file.fileno(), octets, self._status.offset)
                running = self._hash.copy()
                running.update(octets)
                self._moved_to(self._status.offset + len(octets), running)
            except BaseException:
                self._file.truncate(self._status.offset)
                raise
            return len(octets)

    def commit(
        self,
        size: int = 0,
        digest: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Verify, sync, and publish the blob. Always closes the writer, even on error.

        Args:
            size: The expected size in bytes, or 0 for unknown.
            digest: The expected digest, or None for unknown.
            labels: The blob's labels.

        Raises:
            FailedPrecondition: Size or digest differ, or the file was changed by others; the
                ingest is kept to be resumed. Or the writer is closed.
            AlreadyExists: The blob is there already, and the ingest is dropped.
            InvalidArgument: The digest is malformed or a label too large; the ingest is kept.

        Cost: a sync of the bytes, one of the directory, and one durable commit.
        """
        with self._lock:
            self._require_open()
            try:
                self._commit(size, digest, label_rules.checked(labels))
            except Exception:
                self.close()
                raise
            except BaseException:
                self._free()
                raise

    def status(self) -> IngestStatus:
        """Return how far the ingest is, or was when the writer was closed."""
        with self._lock:
            return self._status

    def digest(self) -> str:
        """Return the digest of the bytes written so far."""
        with self._lock:
            return digests.name(self._hash)

    def truncate(self, size: int) -> None:
        """Drop all bytes written.

        Raises:
            InvalidArgument: `size` is not 0.
            FailedPrecondition: The writer is closed.
        """
        if size != 0:
            raise InvalidArgument(f"an ingest can be cut to 0 bytes only, not to {size}")
        with self._lock:
            self._require_open()
            # First, so that an interrupt leaves bytes that are not counted, never a hole.
            self._moved_to(0, digests.hasher(self._hash.name))
            self._file.truncate(0)

    def is_orphan(self) -> bool:
        """Return whether it is closed, and nobody is about to free its ref: for its keeper."""
        if not self._lock.acquire(blocking=False):
            return False
        try:
            return self._file.closed
        finally:
            self._lock.release()

    def close(self) -> None:
        """Keep the progress and free the ref. Idempotent."""
        with self._lock:
            if self._file.closed:
                return
            try:
                self._keeper.keep(self._status)
            finally:
                self._free()

    def __repr__(self) -> str:
        state = "closed" if self._file.closed else "open"
        return f"<LocalWriter {self._status.ref!r} at {self._status.offset} bytes, {state}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is None or isinstance(exc, Exception):
            self.close()
        else:
            self._free()

    def _commit(self, size: int, digest: str | None, labels: dict[str, str]) -> None:
        ref, offset = self._status.ref, self._status.offset
        actual_size = os.fstat(self._file.fileno()).st_size
        if actual_size != offset:
            # An interrupt came while a write that failed was taken back.
            raise FailedPrecondition(
                f"ref {ref!r} has {actual_size} bytes where {offset} were written; "
                "open the ref again"
            )
        if size and size != offset:
            raise FailedPrecondition(f"ref {ref!r} has {offset} bytes, not the expected {size}")
        actual = self._digest_like(digest)
        if digest and digest != actual:
            raise FailedPrecondition(f"ref {ref!r} has digest {actual}, not {digest}")
        try:
            self._keeper.publish(self._file.fileno(), ref, actual, labels)
        except AlreadyExists:
            self._drop()
            raise
        self._drop()

    def _digest_like(self, digest: str | None) -> str:
        """Return the digest of the bytes, by the algorithm of `digest`."""
        algorithm = digests.split(digest)[0] if digest else self._hash.name
        if algorithm == self._hash.name:
            return digests.name(self._hash)
        return digests.name(_hash_file(self._file, algorithm)[0])

    def _drop(self) -> None:
        self._file.close()
        try:
            self._keeper.drop(self._status.ref)
        finally:
            self._keeper.release(self._status.ref)

    def _free(self) -> None:
        """Close the file and free the ref, with no record of it: for an interrupt.

        The records may have been struck in the midst of a change, which still is this
        thread's until the interrupt is dealt with. The bytes tell how far the ingest is.
        """
        with self._lock:
            if not self._file.closed:
                self._file.close()
                self._keeper.release(self._status.ref)

    def _moved_to(self, offset: int, running: _Hash) -> None:
        now = self._ticker.now(after=self._status.updated)
        status = replace(self._status, offset=offset, updated=now)
        # Both or neither: no call stands between, so no interrupt comes between.
        self._hash, self._status = running, status

    def _require_open(self) -> None:
        if self._file.closed:
            raise FailedPrecondition(
                f"the writer of ref {self._status.ref!r} is closed; open the ref again"
            )


def _hash_file(file: io.FileIO, algorithm: str) -> tuple[_Hash, int]:
    running = digests.hasher(algorithm)
    offset = 0
    while chunk := os.pread(file.fileno(), _CHUNK_SIZE, offset):
        running.update(chunk)
        offset += len(chunk)
    return running, offset
