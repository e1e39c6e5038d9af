"""Unfinished ingests: bytes on their way to becoming a blob, by the caller's ref.

    ROOT/ingest/<sha256 of the ref>/data    the bytes so far
    pack("ingest", ref)                     a record: total, expected, started, updated

A ref has at most one writer at a time. Between writers the bytes stay; the next one hashes
them again and goes on. Nothing here need survive a power cut, only a crash of the process:
so no step waits for the disk, and an ingest that has lost its record or its bytes is
forgotten at the next open.
"""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

import blobkv
from blobmap import digest as digests
from blobmap.contracts import IngestStatus
from blobmap.errors import NotFound, Unavailable
from blobmap.fields import Fields, encode
from blobmap.local import tree
from blobmap.local.writer import LocalWriter

if TYPE_CHECKING:
    from blobmap.local.clock import Ticker
    from blobmap.local.records import Records

Publish = Callable[[int, Path, str, dict[str, str]], None]
"""Make a file, given open and by path, the blob of a digest, with labels; or AlreadyExists."""

_DATA: Final = "data"
_INGESTS: Final = blobkv.pack("ingest")
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


class Ingests:
    """All unfinished ingests under one directory, and their open writers.

    Invariants:

    * `_writers` holds exactly the refs that are taken; None while no writer stands for one.
    * `_mutex` is never held over I/O.
    """

    def __init__(
        self, directory: Path, records: Records, ticker: Ticker, publish: Publish
    ) -> None:
        self._directory = directory
        self._records = records
        self._ticker = ticker
        self._publish = publish
        self._writers: dict[str, LocalWriter | None] = {}
        self._mutex = threading.Lock()
        self._forget_broken()

    def open(self, ref: str, total: int, expected: str | None) -> LocalWriter:
        """Open the ingest `ref`, or start it.

        An ingest that was declared with another total size is started anew.

        Raises:
            Unavailable: Another writer holds the ref.

        Cost: O(bytes already there), to hash them.
        """
        self._take(ref)
        try:
            writer = self._open(ref, total, expected)
        except BaseException:
            self.release(ref)
            raise
        with self._mutex:
            self._writers[ref] = writer
        return writer

    def status(self, ref: str) -> IngestStatus:
        """Return how far the ingest is.

        Raises:
            NotFound: There is none.
        """
        recorded = self._recorded(ref)
        with self._mutex:
            writer = self._writers.get(ref)
        return recorded if writer is None else writer.status()

    def statuses(self) -> list[IngestStatus]:
        """Return the status of each ingest, by ref."""
        with self._records.view() as txn:
            refs = [_ref(key) for key in txn.keys(prefix=_INGESTS)]
        found = []
        for ref in refs:
            try:
                found.append(self.status(ref))
            except NotFound:
                # It ended after the list was made.
                continue
        return found

    def abort(self, ref: str) -> None:
        """Close the ingest's writer, if it has one, and drop its bytes.

        Raises:
            NotFound: There is none.
            Unavailable: A writer is just being opened.
        """
        with self._mutex:
            writer = self._writers.get(ref)
        if writer is not None:
            writer.close()
        self._take(ref)
        try:
            self._recorded(ref)
            self.drop(ref)
        finally:
            self.release(ref)

    def close(self) -> None:
        """Close every writer; each keeps its progress."""
        with self._mutex:
            writers = [writer for writer in self._writers.values() if writer is not None]
        for writer in writers:
            writer.close()

    def keep(self, status: IngestStatus) -> None:
        """Record how far the ingest is."""
        with self._records.update(durable=False) as txn:
            txn.put(_key(status.ref), _encode(status))

    def publish(self, fd: int, ref: str, digest: str, labels: dict[str, str]) -> None:
        """Make the ingest's bytes a blob.

        Raises:
            AlreadyExists: There is one of that digest.
        """
        self._publish(fd, self._path(ref), digest, labels)

    def drop(self, ref: str) -> None:
        """Forget the ingest: its bytes, unless they became a blob, then its record."""
        path = self._path(ref)
        path.unlink(missing_ok=True)
        if path.parent.exists():
            path.parent.rmdir()
        with self._records.update(durable=False) as txn:
            txn.delete(_key(ref))

    def release(self, ref: str) -> None:
        """Let the next writer have the ref."""
        with self._mutex:
            del self._writers[ref]

    def _path(self, ref: str) -> Path:
        _, digits = digests.split(digests.of(ref.encode("utf-8", "surrogatepass")))
        return self._directory / digits / _DATA

    def _take(self, ref: str) -> None:
        with self._mutex:
            if ref in self._writers:
                raise Unavailable(f"ref {ref!r} is held by another writer; try again later")
            self._writers[ref] = None

    def _open(self, ref: str, total: int, expected: str | None) -> LocalWriter:
        status = self._found(ref, total)
        fresh = status is None
        if status is None:
            now = self._ticker.now()
            status = IngestStatus(ref, 0, 0, None, now, now)
        status = replace(
            status, total=total or status.total, expected=expected or status.expected
        )
        path = self._path(ref)
        path.parent.mkdir(mode=0o700, exist_ok=True)
        with suppress(FileNotFoundError):
            # A commit that was cut short may have made it read-only already.
            path.chmod(0o600)
        flags = _OPEN | os.O_TRUNC if fresh else _OPEN
        file = io.FileIO(os.open(path, flags, 0o600), "r+")
        try:
            writer = LocalWriter(self, status, file, self._ticker)
            self.keep(writer.status())
        except BaseException:
            file.close()
            raise
        return writer

    def _found(self, ref: str, total: int) -> IngestStatus | None:
        """Return the status to go on from, or None to start anew."""
        try:
            status = self._recorded(ref)
        except NotFound:
            return None
        return None if total and status.total and total != status.total else status

    def _recorded(self, ref: str) -> IngestStatus:
        with self._records.view() as txn:
            value = txn.get(_key(ref))
        if value is None:
            raise NotFound(f"no ingest {ref!r}; it was never begun, or it ended")
        try:
            offset = self._path(ref).stat().st_size
        except FileNotFoundError:
            offset = 0
        return _decode(ref, value, offset)

    def _forget_broken(self) -> None:
        with self._records.view() as txn:
            refs = [_ref(key) for key in txn.keys(prefix=_INGESTS)]
        lost = [ref for ref in refs if not self._path(ref).exists()]
        if lost:
            with self._records.update(durable=False) as txn:
                for ref in lost:
                    txn.delete(_key(ref))
        known = {self._path(ref).parent.name for ref in refs} - {
            self._path(ref).parent.name for ref in lost
        }
        for directory in self._directory.iterdir():
            if directory.name not in known and directory.is_dir():
                tree.remove(str(self._directory), directory.name)


def _key(ref: str) -> bytes:
    return blobkv.pack("ingest", ref)


def _ref(key: bytes) -> str:
    return str(blobkv.unpack(key)[1])


def _encode(status: IngestStatus) -> bytes:
    return encode(
        total=status.total,
        expected=status.expected,
        started=status.started.isoformat(),
        updated=status.updated.isoformat(),
    )


def _decode(ref: str, value: bytes, offset: int) -> IngestStatus:
    fields = Fields(value, f"the record of ingest {ref!r}")
    return IngestStatus(
        ref,
        offset,
        fields.number("total"),
        fields.digest_or_none("expected"),
        fields.time("started"),
        fields.time("updated"),
    )
