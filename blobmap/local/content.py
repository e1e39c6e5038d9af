"""A content store in a directory that other tools can read.

    ROOT/blobs/<algorithm>/<hex>    the blobs, read-only: the OCI image layout's directory
    ROOT/ingest/                    what is still being written (`blobmap.local.ingest`)
    ROOT/meta/                      a blobkv store:
      pack("blob", digest)          a record: created, updated, labels

A blob becomes one in this order, each step durable before the next: its bytes, its name in
`blobs`, its record. It goes in this one: its name, its record. So after a crash

* a file without a record is a blob whose commit nobody was told of: it is whole, and is
  recorded at the next open, with the file's time and no labels;
* a record without a file is a blob whose delete nobody was told of: it is dropped then.

Invariant: while the store is open, what exists is what has both. The size is not recorded but
always the file's: were that cut or grown behind the store's back, a record would hide it.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

import blobkv
from blobmap import digest as digests
from blobmap import filters as filter_language
from blobmap import labels as label_rules
from blobmap import locks
from blobmap.clock import Clock, Ticker, utc_now
from blobmap.closing import Closing
from blobmap.contracts import ContentInfo
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from blobmap.fields import Fields, encode
from blobmap.local.durable import make_directory, resolved, sync_directory, sync_file
from blobmap.local.ingest import Ingests
from blobmap.local.records import Records

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blobkv import Transaction
    from blobmap.contracts import IngestStatus
    from blobmap.local.writer import LocalWriter

_BLOBS: Final = blobkv.pack("blob")
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW


class LocalContent(Closing):
    """The content store under one root. Safe to call from many threads.

    Besides the errors named below, every call raises `InvalidArgument` for a malformed
    digest or filter and `FailedPrecondition` once the store is closed.

    Args:
        root: The directory; made if it does not exist.
        clock: Tells the time; for tests.
        lock_timeout: How long to wait for another who has it open, in seconds.

    Raises:
        blobkv.LockedError: Another has it open.
        FailedPrecondition: Another version of blobmap made it.

    Cost: O(blobs), to compare names with records.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, clock: Clock = utc_now, lock_timeout: float = 0.0
    ) -> None:
        path = resolved(root)
        self._blobs = path / "blobs"
        make_directory(self._blobs / digests.CANONICAL)
        make_directory(path / "ingest")
        self._ticker = Ticker(clock)
        self._locks = locks.Locks()
        self._records = Records(path / "meta", lock_timeout=lock_timeout)
        try:
            self._match_records_to_files()
            self._ingests = Ingests(path / "ingest", self._records, self._ticker, self._publish)
        except BaseException:
            self._records.close()
            raise

    def info(self, digest: str) -> ContentInfo:
        """Return the committed blob's record, with the size that its file has now.

        Raises:
            NotFound: There is no such blob.
        """
        digests.validate(digest)
        with self._records.view() as txn:
            return self._find(txn, digest)

    def update(self, info: ContentInfo, *fieldpaths: str) -> ContentInfo:
        """Change the labels of the blob `info.digest`: all, or those at the paths only.

        Raises:
            NotFound: There is no such blob.
            InvalidArgument: A path is not `labels` or `labels.<key>`, or a label too large.
        """
        digests.validate(info.digest)
        with self._records.update() as txn:
            found = self._find(txn, info.digest)
            changed = replace(
                found,
                labels=label_rules.updated(found.labels, info.labels, fieldpaths),
                updated=self._ticker.now(after=found.updated),
            )
            txn.put(_key(info.digest), _encode(changed))
        return changed

    def walk(self, *filters: str) -> Iterator[ContentInfo]:
        """Yield each committed blob that some filter matches, in digest order.

        Other methods may be called between two steps; a blob deleted meanwhile is left out,
        one added meanwhile may be.
        """
        matches = filter_language.parse(*filters)
        with self._records.view() as txn:
            keys = list(txn.keys(prefix=_BLOBS))
        return self._walk(keys, matches)

    def delete(self, digest: str) -> None:
        """Remove the blob; readers that are open keep it until they close.

        Raises:
            NotFound: There is no such blob.

        Cost: a sync of the directory and one durable commit.
        """
        path = self._path(digest)
        with self._locks.hold(locks.blob(digest)):
            with self._records.view() as txn:
                recorded = txn.get(_key(digest)) is not None
            there = path.exists()
            # Also a name or a record alone, which a commit or delete that failed half-way
            # left: the caller drops what is said to be gone, so it must be.
            path.unlink(missing_ok=True)
            if path.parent.is_dir():
                sync_directory(path.parent)
            if recorded:
                with self._records.update() as txn:
                    txn.delete(_key(digest))
            if not (recorded and there):
                raise _not_found(digest)

    def reader_at(self, digest: str) -> LocalReader:
        """Open the blob for reading.

        Raises:
            NotFound: There is no such blob.
        """
        self.info(digest)
        try:
            return LocalReader(digest, self._path(digest))
        except FileNotFoundError:
            raise _not_found(digest) from None

    def writer(self, ref: str, *, size: int = 0, digest: str | None = None) -> LocalWriter:
        """Open or resume the ingest named `ref`.

        Args:
            ref: Any text but "".
            size: The total size in bytes, or 0 for unknown. Where the ingest was begun with
                another, it is begun anew.
            digest: The digest to come, or None for unknown.

        Raises:
            Unavailable: Another writer holds the ref.
            AlreadyExists: `digest` is given and there already.
            InvalidArgument: The ref is empty.

        Cost: O(bytes already there), to hash them.
        """
        if not ref:
            raise InvalidArgument("an ingest needs a ref that is not empty")
        if size < 0:
            raise InvalidArgument(f"a blob cannot have {size} bytes")
        if digest is not None:
            digests.validate(digest)
            with self._records.view() as txn:
                self._require_absent(txn, digest)
        return self._ingests.open(ref, size, digest)

    def status(self, ref: str) -> IngestStatus:
        """Return the ingest's status.

        Raises:
            NotFound: There is no such ingest.
        """
        return self._ingests.status(ref)

    def list_statuses(self, *filters: str) -> list[IngestStatus]:
        """Return the unfinished ingests that some filter matches, by ref."""
        matches = filter_language.parse(*filters)
        return [
            status
            for status in self._ingests.statuses()
            if matches(filter_language.ingest(status))
        ]

    def abort(self, ref: str) -> None:
        """Drop the ingest and its bytes; a writer that is open is closed first.

        Raises:
            NotFound: There is no such ingest.
        """
        self._ingests.abort(ref)

    def close(self) -> None:
        """Close the writers, which keep their progress, and the records. Idempotent."""
        self._ingests.close()
        self._records.close()

    def __repr__(self) -> str:
        return f"LocalContent({str(self._blobs.parent)!r})"

    def _walk(
        self, keys: list[bytes], matches: filter_language.Matcher
    ) -> Iterator[ContentInfo]:
        for key in keys:
            try:
                info = self.info(_digest(key))
            except NotFound:
                continue
            if matches(filter_language.content(info)):
                yield info

    def _publish(self, fd: int, data: Path, digest: str, labels: dict[str, str]) -> None:
        path = self._path(digest)
        with self._locks.hold(locks.blob(digest)):
            with self._records.view() as txn:
                self._require_absent(txn, digest)
            os.fchmod(fd, 0o400)
            sync_file(fd)
            make_directory(path.parent)
            now = self._ticker.now()
            info = ContentInfo(digest, os.fstat(fd).st_size, now, now, labels)
            try:
                data.rename(path)
                sync_directory(path.parent)
                with self._records.update() as txn:
                    txn.put(_key(digest), _encode(info))
            except BaseException:
                # Back to an ingest: a name without a record would be adopted at next open.
                with suppress(OSError):
                    path.rename(data)
                raise

    def _find(self, txn: Transaction, digest: str) -> ContentInfo:
        value = txn.get(_key(digest))
        if value is None:
            raise _not_found(digest)
        try:
            size = self._path(digest).stat().st_size
        except FileNotFoundError:
            raise _not_found(digest) from None
        return _decode(digest, value, size)

    def _require_absent(self, txn: Transaction, digest: str) -> None:
        if txn.get(_key(digest)) is not None and self._path(digest).exists():
            raise AlreadyExists(f"blob {digest} exists")

    def _match_records_to_files(self) -> None:
        with self._records.view() as txn:
            recorded = {_digest(key) for key in txn.keys(prefix=_BLOBS)}
        directories = [self._blobs / name for name in digests.ALGORITHMS]
        directories = [directory for directory in directories if directory.is_dir()]
        there = {digest for directory in directories for digest in _names(directory)}
        if recorded == there:
            return
        for directory in directories:
            # The crash may have come before the name was durable, or its removal.
            sync_directory(directory)
        with self._records.update() as txn:
            for digest in recorded - there:
                txn.delete(_key(digest))
            for digest in there - recorded:
                txn.put(_key(digest), _encode(self._described(digest)))

    def _described(self, digest: str) -> ContentInfo:
        status = self._path(digest).stat()
        written = datetime.fromtimestamp(status.st_mtime, UTC)
        return ContentInfo(digest, status.st_size, written, written)

    def _path(self, digest: str) -> Path:
        algorithm, digits = digests.split(digest)
        return self._blobs / algorithm / digits


class LocalReader(Closing):
    """One blob, open. It stays readable when the blob is deleted or the store closed."""

    def __init__(self, digest: str, path: Path) -> None:
        self._digest = digest
        self._file = io.FileIO(os.open(path, _READ))
        self._size = os.fstat(self._file.fileno()).st_size

    @property
    def size(self) -> int:
        """The blob's size in bytes."""
        return self._size

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end.

        Raises:
            InvalidArgument: An argument is negative.
            FailedPrecondition: The reader is closed.
        """
        if offset < 0 or size < 0:
            raise InvalidArgument(f"cannot read {size} bytes at {offset}; neither is negative")
        if self._file.closed:
            raise FailedPrecondition("this reader is closed; open the blob again")
        end = min(offset + size, self._size)
        parts: list[bytes] = []
        # One call moves at most about 2 GiB.
        while offset < end and (part := os.pread(self._file.fileno(), end - offset, offset)):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def close(self) -> None:
        """Release the blob. Idempotent."""
        self._file.close()

    def __repr__(self) -> str:
        state = "closed" if self._file.closed else "open"
        return f"<LocalReader {self._digest} of {self._size} bytes, {state}>"


def _names(directory: Path) -> Iterator[str]:
    """Yield the digests that the directory's files are named by; others' files are not ours."""
    for path in directory.iterdir():
        try:
            yield digests.validate(f"{directory.name}:{path.name}")
        except InvalidArgument:
            continue


def _not_found(digest: str) -> NotFound:
    return NotFound(f"no blob {digest}")


def _key(digest: str) -> bytes:
    return blobkv.pack("blob", digest)


def _digest(key: bytes) -> str:
    return str(blobkv.unpack(key)[1])


def _encode(info: ContentInfo) -> bytes:
    assert info.created is not None
    assert info.updated is not None
    return encode(
        created=info.created.isoformat(),
        updated=info.updated.isoformat(),
        labels=dict(info.labels),
    )


def _decode(digest: str, value: bytes, size: int) -> ContentInfo:
    fields = Fields(value, f"the record of blob {digest}")
    return ContentInfo(
        digest, size, fields.time("created"), fields.time("updated"), fields.labels("labels")
    )
