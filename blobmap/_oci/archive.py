"""One tar read once, from its first byte to its last, with nothing in it trusted.

`tarfile` knows the dialects (ustar, pax, GNU, sparse); this module keeps it honest:

* It is fed by a file that only goes forward, so a header that points back is damage.
* A header, with all its extensions, is at most `HEADER_SIZE_MAX` bytes, and what global
  headers say at most `GLOBAL_SIZE_MAX`: no header can ask for memory.
* A pax header's records are checked before `tarfile` looks for them with patterns whose time
  grows with the square of a run of digits (CVE-2024-6232).
* `tarfile` ends quietly at a header it cannot read; here that is `DataLoss`.
* Members are not remembered, so memory does not grow with their number.
* Names and link targets are text with `surrogateescape`: any bytes come back from them.
"""

from __future__ import annotations

import re
import sys
import tarfile
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Self, cast

from blobmap import digest as digests
from blobmap.errors import DataLoss, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blobmap._oci.compression import Source

HEADER_SIZE_MAX: Final = 1 << 20
GLOBAL_SIZE_MAX: Final = 1 << 16
_CHUNK_SIZE: Final = 1 << 17

_PAX_LENGTH: Final = re.compile(rb"([0-9]{1,20}) ")
# What tarfile's patterns cost in a header: the square of each run of digits.
_DIGIT_RUN: Final = re.compile(rb"[0-9]{64,}")
_DIGIT_COST_MAX: Final = 1 << 26

# What tarfile lets out when a header is not what it says: its own errors, and those of
# int(), of indexing, and of headers nested in headers.
_HEADER_ERRORS: Final = (
    tarfile.TarError,
    ArithmeticError,
    LookupError,
    RecursionError,
    ValueError,
)


class Archive:
    """A tar being read.

    Iterating gives each member once, in order, up to the blocks that mark the end or to where
    the bytes end between two members. A member's `data` is read before the next
    step or not at all.

    Args:
        source: The plain tar, at its first byte.
        name: What to call it in an error.
        seek: Moves the source to an offset, so that unread data is passed over and not read.
            `digest` then has no meaning.
        algorithm: What the digest is made with.

    Attributes:
        name: What the tar is called in errors.
    """

    def __init__(
        self,
        source: Source,
        *,
        name: str,
        seek: Callable[[int], object] | None = None,
        algorithm: str = digests.CANONICAL,
    ) -> None:
        self.name = name
        self._bytes = _Forward(source, name, seek, algorithm)

    def __iter__(self) -> Iterator[tarfile.TarInfo]:
        """Yield each member.

        Raises:
            DataLoss: The tar is damaged or ends early.
        """
        if self._bytes.at_end():
            return
        archive = self._open()
        while (member := self._next(archive)) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # Documented, not typed.
            if member.size < 0 or member.offset_data != self._bytes.tell():
                raise DataLoss(f"{self.name}: {member.name}: a header with a false size")
            yield member
            self._bytes.seek(self._end_of(member))
            # Some builders leave the last padding out, and the blocks that mark the end.
            if not self._bytes.skip_to(archive.offset):
                return

    def data(self, member: tarfile.TarInfo) -> Iterator[tuple[int, bytes]]:
        """Yield `(offset in the file, bytes)` pairs; a sparse member's holes are left out.

        Raises:
            DataLoss: The tar ends inside the member.
            InvalidArgument: A sparse member's map is not in order or not inside its size.
        """
        for start, size in _ranges(member, self.name):
            at, stop = start, start + size
            while at < stop:
                data = self._bytes.take(stop - at)
                if not data:
                    raise DataLoss(f"{self.name}: {member.name}: the tar ends inside it")
                yield at, data
                at += len(data)

    def stored_size(self, member: tarfile.TarInfo) -> int:
        """Return how many bytes `data` gives.

        Raises:
            InvalidArgument: As for `data`.
        """
        return sum(size for _, size in _ranges(member, self.name))

    def drain(self) -> None:
        """Read what follows the last member, to the very end."""
        while self._bytes.take(_CHUNK_SIZE):
            pass

    @property
    def digest(self) -> str:
        """The digest of all bytes read so far."""
        return digests.name(self._bytes.hash)

    @property
    def offset(self) -> int:
        """How many bytes of the tar have been passed."""
        return self._bytes.tell()

    def _open(self) -> tarfile.TarFile:
        with self._header():
            return tarfile.TarFile(
                fileobj=self._bytes,  # type: ignore[arg-type]  # It reads, tells, and seeks.
                tarinfo=_Header,
                encoding="utf-8",
                errors="surrogateescape",
            )

    def _next(self, archive: tarfile.TarFile) -> tarfile.TarInfo | None:
        with self._header():
            return archive.next()

    def _end_of(self, member: tarfile.TarInfo) -> int:
        """Return the offset right after the member's stored bytes."""
        return member.offset_data + (self.stored_size(member) if member.isreg() else 0)

    @contextmanager
    def _header(self) -> Iterator[None]:
        """Bound what reading a header reads, and name what it raises."""
        start = self._bytes.tell()
        self._bytes.limit = start + HEADER_SIZE_MAX
        try:
            yield
        except _HEADER_ERRORS as error:
            raise DataLoss(
                f"{self.name}: no sound tar header at byte {start}: {error}"
            ) from error
        finally:
            self._bytes.limit = sys.maxsize


class _Header(tarfile.TarInfo):
    """A header block. `tarfile` takes a bad one after the first for the archive's end."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        try:
            header = super().frombuf(buf, encoding, errors)
        except tarfile.HeaderError as error:
            # A block of zeroes, or none at all, is the end; all else is damage.
            if not buf.strip(b"\0"):
                raise
            raise tarfile.ReadError(str(error)) from error
        if header.size < 0:
            raise tarfile.ReadError("negative size")
        return header

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Read an extended header, local or global, and the header that it is for."""
        source = cast("_Forward", archive.fileobj)
        _check_pax(source.peek(self.size))
        member: tarfile.TarInfo = super()._proc_pax(archive)  # type: ignore[misc]
        if self.type == tarfile.XGLTYPE:
            size = sum(len(key) + len(text) for key, text in archive.pax_headers.items())
            if size > GLOBAL_SIZE_MAX:
                raise tarfile.ReadError(
                    f"global headers of {size} bytes, at most {GLOBAL_SIZE_MAX}"
                )
        return member


class _Forward:
    """The tar's bytes as a file that is read once, hashed as it goes.

    Attributes:
        limit: No `read` goes past this offset.
        hash: Of every byte taken from the source.
    """

    def __init__(
        self, source: Source, name: str, seek: Callable[[int], object] | None, algorithm: str
    ) -> None:
        self._source = source
        self._name = name
        self._seek = seek
        self._buffer = b""
        self._used = 0
        self._offset = 0
        self.limit = sys.maxsize
        self.hash = digests.hasher(algorithm)

    def tell(self) -> int:
        return self._offset

    def at_end(self) -> bool:
        return self._used == len(self._buffer) and not self._fill()

    def read(self, size: int) -> bytes:
        if self._offset + size > self.limit:
            raise DataLoss(
                f"{self._name}: a header before byte {self._offset} takes more than "
                f"{HEADER_SIZE_MAX} bytes"
            )
        first = self.take(size)
        if len(first) == size:
            return first
        pieces = [first]
        missing = size - len(first)
        while missing and (data := self.take(missing)):
            pieces.append(data)
            missing -= len(data)
        return b"".join(pieces)

    def peek(self, size: int) -> bytes:
        """Return what `read` will."""
        data = self.read(size)
        self._buffer, self._used = data + self._buffer[self._used :], 0
        self._offset -= len(data)
        return data

    def take(self, size: int) -> bytes:
        """Return from 1 to `size` bytes, whatever is at hand; b"" at the end."""
        if self.at_end():
            return b""
        data = self._buffer[self._used : self._used + size]
        self._used += len(data)
        self._offset += len(data)
        return data

    def seek(self, offset: int) -> None:
        if offset < self._offset:
            raise DataLoss(
                f"{self._name}: a header at byte {self._offset} points back to {offset}"
            )
        if self._seek is not None and offset - self._offset > _CHUNK_SIZE:
            self._jump(self._seek, offset - 1)
        if not self.skip_to(offset):
            # After a jump nobody knows where it ended.
            raise DataLoss(f"{self._name}: the tar is cut short: it ends before byte {offset}")

    def skip_to(self, offset: int) -> bool:
        """Read on to `offset`; return whether there were so many bytes."""
        while self._offset < offset:
            if not self.take(offset - self._offset):
                return False
        return True

    def _jump(self, seek: Callable[[int], object], offset: int) -> None:
        try:
            seek(offset)
        except (OverflowError, OSError) as error:
            raise DataLoss(
                f"{self._name}: a header before byte {self._offset} has a false size: "
                f"no file reaches to byte {offset}"
            ) from error
        self._buffer, self._used, self._offset = b"", 0, offset

    def _fill(self) -> bool:
        self._buffer = self._source.read(_CHUNK_SIZE)
        self._used = 0
        self.hash.update(self._buffer)
        return bool(self._buffer)


def _check_pax(body: bytes) -> None:
    """Check that an extended header is records, each a length, a key, and a value."""
    if sum(len(run[0]) ** 2 for run in _DIGIT_RUN.finditer(body)) > _DIGIT_COST_MAX:
        raise tarfile.ReadError("a pax header with too many digits in a row")
    at = 0
    while at < len(body):
        length = _PAX_LENGTH.match(body, at)
        stop = at + int(length[1]) if length else 0
        if length is None or not length.end() < stop <= len(body) or body[stop - 1] != 0x0A:
            raise tarfile.ReadError("a pax header with a false length")
        if body.find(b"=", length.end(), stop) <= length.end():
            raise tarfile.ReadError("a pax record without a key")
        at = stop


def _ranges(member: tarfile.TarInfo, name: str) -> list[tuple[int, int]]:
    """Return where the member's stored bytes belong: one range, unless it is sparse."""
    # The stubs call it bytes; tarfile makes it pairs of offset and size.
    sparse = cast("list[tuple[int, int]] | None", member.sparse)
    if sparse is None:
        return [(0, member.size)]
    # The old GNU header pads its map with empty ranges.
    ranges = [(start, size) for start, size in sparse if size]
    stop = 0
    for start, size in ranges:
        if start < stop or size < 0 or start + size > member.size:
            raise InvalidArgument(f"{name}: {member.name}: its map of holes is out of order")
        stop = start + size
    return ranges
