"""The write-ahead log: append a frame, sync, replay; a torn tail told from corruption.

A log is *active* while frames are appended to it and *sealed* by a last frame that marks its
clean end. Which logs are live, and in which order, is the manifest's to say.

Torn or corrupt is decided by promise. Bytes at X that are no valid frame are corruption if a
valid frame further on says that the log had been synced past X when it was written: what was
synced must not change. With no such frame they are a torn tail, which power loss leaves and
nobody was promised; valid frames behind it (the disk may write pages out of order) are cut
with it. A log that is followed by another was sealed and synced before the other was made,
so there any bad byte is corruption.

Source: Pebble's walSync chunks and read-ahead (record/record.go).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from blobkv._engine.format import (
    COMMIT,
    FRAME_MAGIC,
    FRAME_MAGIC_OFFSET,
    LOG_HEADER_SIZE,
    SEAL,
    Frame,
    LogHeader,
    claimed_size,
    decode_frame,
    decode_log_header,
    encode_frame,
    encode_log_header,
)
from blobkv.errors import CorruptionError, PoisonedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobkv._engine.format import Entries, Range
    from blobkv._engine.fs import FileSystem, WritableFile

_MAGIC: Final = FRAME_MAGIC.to_bytes(2, "little")
# What the search for a later promise may checksum, as a multiple of the log's size: enough
# for any log that blobkv wrote, and a bound on the time hostile bytes can cost.
_SEARCH_FACTOR_MAX: Final = 64


class LogFile(NamedTuple):
    """A log as the manifest names it: its number, and the seed of its checksums."""

    number: int
    log_id: int

    @property
    def name(self) -> str:
        """The file's name in the store's directory."""
        return f"{self.number:06d}.log"


class Log:
    """The active log. One thread appends at a time; one, maybe another, syncs.

    Attributes:
        file: What the manifest says of it.
        end: Where the next frame goes, in bytes.
        synced: How far the file is known to be durable.
    """

    def __init__(self, file: LogFile, handle: WritableFile) -> None:
        self.file = file
        self.end = LOG_HEADER_SIZE
        self.synced = LOG_HEADER_SIZE
        self._handle = handle

    @classmethod
    def create(
        cls, fs: FileSystem, directory: str, file: LogFile, store_id: bytes, sequence: int
    ) -> Log:
        """Make a new log for commits after `sequence`; it and its name are durable."""
        handle = fs.create(f"{directory}/{file.name}")
        header = LogHeader(file.log_id, store_id, file.number, sequence)
        handle.append(encode_log_header(header))
        handle.sync()
        fs.sync_directory(directory)
        return cls(file, handle)

    def append(self, sequence: int, entries: Entries, ranges: Sequence[Range]) -> int:
        """Write one transaction; return where it ends. It is not durable yet.

        Raises:
            OSError: The device refused; the frame was cut back, and the log is as before.
            PoisonedError: It could not even be cut back.
        """
        return self._append(sequence, entries, ranges, COMMIT)

    def sync(self) -> None:
        """Make everything appended so far durable."""
        end = self.end
        self._handle.sync()
        self.synced = max(self.synced, end)

    def seal(self, sequence: int) -> None:
        """Mark the clean end after commit `sequence`; the next `sync` makes it durable."""
        self._append(sequence, {}, (), SEAL)

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._handle.close()

    def _append(
        self, sequence: int, entries: Entries, ranges: Sequence[Range], kind: int
    ) -> int:
        frame = encode_frame(
            sequence, entries, ranges, log_id=self.file.log_id, synced=self.synced, kind=kind
        )
        try:
            self._handle.append(frame)
        except BaseException as cause:
            # Also after an interrupt: the frame may be there whole, but nobody was told.
            self._cut_back(cause)
            raise
        self.end += len(frame)
        return self.end

    def _cut_back(self, cause: BaseException) -> None:
        try:
            self._handle.truncate(self.end)
        except OSError:
            raise PoisonedError(
                f"{self.file.name}: a write failed and could not be cut back; close the store "
                "and open it again"
            ) from cause


class LogReader:
    """Reads a log's frames in order, and can be asked again when the log has grown.

    Attributes:
        sealed: Whether the clean end was read.
        sequence: The last commit read, or the one before this log.
    """

    def __init__(
        self, fs: FileSystem, directory: str, file: LogFile, store_id: bytes, sequence: int
    ) -> None:
        self._file = fs.open(f"{directory}/{file.name}")
        self._path = file.name
        self._log_id = file.log_id
        self._at = LOG_HEADER_SIZE
        self.sealed = False
        self.sequence = sequence
        expected = LogHeader(file.log_id, store_id, file.number, sequence)
        try:
            self._check_header(expected)
        except BaseException:
            self._file.close()
            raise

    @property
    def size(self) -> int:
        """How far the log has been read, in bytes."""
        return self._at

    def frames(self) -> Iterator[Frame]:
        """Yield the commits that follow, up to the first byte that is no valid frame.

        Raises:
            CorruptionError: A valid frame has another sequence than the next.
        """
        base = self._at
        data = self._file.read(base, self._file.size - base)
        while not self.sealed:
            frame = decode_frame(data, self._at - base, self._log_id)
            if frame is None:
                return
            self._check_sequence(frame)
            self._at = base + frame.end
            if frame.kind == SEAL:
                self.sealed = True
            else:
                self.sequence = frame.sequence
                yield frame

    def check_end(self, *, last: bool) -> None:
        """Decide what ended `frames`.

        Args:
            last: Whether this is the store's last log, the only one that may be unsealed.

        Raises:
            CorruptionError: The bytes there were promised to be a frame.
        """
        if self.sealed:
            return
        if not last:
            reason = "no valid frame, though a later log says this one was sealed"
            raise CorruptionError(self._path, self._at, reason)
        self._check_promises()

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._file.close()

    def _check_header(self, expected: LogHeader) -> None:
        header = decode_log_header(self._file.read(0, LOG_HEADER_SIZE), self._path)
        if header != expected:
            reason = f"this log is {header}, the manifest means {expected}"
            raise CorruptionError(self._path, 0, reason)

    def _check_sequence(self, frame: Frame) -> None:
        expected = self.sequence + (frame.kind != SEAL)
        if frame.sequence != expected:
            reason = f"frame has sequence {frame.sequence}, expected {expected}"
            raise CorruptionError(self._path, self._at, reason)

    def _check_promises(self) -> None:
        """Raise CorruptionError if a later valid frame says the log was synced past here."""
        base = self._at
        data = self._file.read(base, self._file.size - base)
        budget = _SEARCH_FACTOR_MAX * len(data)
        found = data.find(_MAGIC, FRAME_MAGIC_OFFSET + 1)
        while found >= 0:
            at = found - FRAME_MAGIC_OFFSET
            frame = decode_frame(data, at, self._log_id)
            if frame is not None and frame.synced > base:
                reason = (
                    f"no valid frame, though the frame at {base + at:#x} says that the log was "
                    f"synced up to {frame.synced:#x}"
                )
                raise CorruptionError(self._path, base, reason)
            budget -= claimed_size(data, at)
            if budget < 0:
                reason = "no valid frame, and more that look like one than any log could hold"
                raise CorruptionError(self._path, base, reason)
            found = data.find(_MAGIC, found + 1)
