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
from dataclasses import dataclass, field, replace
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
    from blobmap.clock import Ticker
    from blobmap.local.records import Records

Publish = Callable[[int, Path, str, dict[str, str]], None]
"""Make a file, given open and by path, the blob of a digest, with labels; or AlreadyExists."""

_DATA: Final = "data"
_INGESTS: Final = blobkv.pack("ingest")
_OPEN: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW


@dataclass(slots=True, eq=False)
class _Turn:
    """The time during which a ref is one caller's: theirs until the writer is closed.

    Attributes:
        writer: The writer, or None while it is being opened or the ingest dropped.
        thread: Who took the ref.
    """

    writer: LocalWriter | None = None
    thread: int = field(default_factory=threading.get_ident)

    def is_orphan(self) -> bool:
        """Return whether an interrupt kept it from ending, so that the ref is free."""
        if self.writer is not None:
            return self.writer.is_orphan()
        # A thread that asks again is not in the midst of opening.
        return self.thread == threading.get_ident()


class Ingests:
    """All unfinished ingests under one directory, and their open writers.

    Invariants:

    * A ref is taken exactly while it has a turn that is no orphan.
    * `_mutex` is never held over I/O.
    """

    def __init__(
        self, directory: Path, records: Records, ticker: Ticker, publish: Publish
    ) -> None:
        self._directory = directory
        self._records = records
        self._ticker = ticker
        self._publish = publish
        self._turns: dict[str, _Turn] = {}
        self._mutex = threading.Lock()
        self._forget_broken()

    def open(self, ref: str, total: int, expected: str | None) -> LocalWriter:
        """Open the ingest `ref`, or start it.

        An ingest that was declared with another total size is started anew.

        Raises:
            Unavailable: Another writer holds the ref.

        Cost: O(bytes already there), to hash them.
        """
        turn = _Turn()
        try:
            self._take(ref, turn)
            turn.writer = writer = self._open(ref, total, expected)
        except BaseException:
            self._give_up(ref, turn)
            raise
        return writer

    def status(self, ref: str) -> IngestStatus:
        """Return how far the ingest is.

        Raises:
            NotFound: There is none.
        """
        recorded = self._recorded(ref)
        writer = self._writer(ref)
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
        writer = self._writer(ref)
        if writer is not None:
            writer.close()
        turn = _Turn()
        try:
            self._take(ref, turn)
            self._recorded(ref)
            self.drop(ref)
        finally:
            self._give_up(ref, turn)

    def close(self) -> None:
        """Close every writer; each keeps its progress."""
        with self._mutex:
            turns = list(self._turns.values())
        for turn in turns:
            if turn.writer is not None:
                turn.writer.close()

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
            del self._turns[ref]

    def _path(self, ref: str) -> Path:
        _, digits = digests.split(digests.of(ref.encode("utf-8", "surrogatepass")))
        return self._directory / digits / _DATA

    def _writer(self, ref: str) -> LocalWriter | None:
        with self._mutex:
            turn = self._turns.get(ref)
        return None if turn is None else turn.writer

    def _take(self, ref: str, turn: _Turn) -> None:
        with self._mutex:
            other = self._turns.get(ref)
            if other is not None and not other.is_orphan():
                raise Unavailable(f"ref {ref!r} is held by another writer; try again later")
            self._turns[ref] = turn

    def _give_up(self, ref: str, turn: _Turn) -> None:
        """Let the next have the ref, unless another has it already."""
        with self._mutex:
            if self._turns.get(ref) is turn:
                del self._turns[ref]

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
