"""The write-ahead log: append a frame, sync, replay; a torn tail told from corruption.

A log is *active* while frames are appended to it and *sealed* by a last frame that marks its
clean end. All commits are synced before the seal is written, and the seal says so: a log that
ends in one was durable up to there. Which logs are live, and in which order, is the
manifest's to say.

Torn or corrupt is decided by promise. Bytes at X that are no valid frame are corruption if a
valid frame further on says that the log had been synced past X when it was written: what was
synced must not change. With no such frame they are a torn tail, which power loss leaves and
nobody was promised; valid frames behind it (the disk may write pages out of order) are cut
with it. Of a log that is followed by another every commit was durable before the other was
made, and the other's header says which was the last.

Source: Pebble's walSync chunks and read-ahead (record/record.go).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple, Self

from blobkv._engine.format import (
    COMMIT,
    FRAME_MAGIC,
    FRAME_MAGIC_OFFSET,
    FRAME_SIZE,
    LOG_HEADER_SIZE,
    SEAL,
    Frame,
    LogHeader,
    claimed_frame,
    decode_frame,
    decode_log_header,
    encode_frame,
    encode_log_header,
)
from blobkv.errors import CorruptionError, PoisonedError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blobkv._engine.files import FileSystem, WritableFile
    from blobkv._engine.format import Changes, Range

_MAGIC: Final = FRAME_MAGIC.to_bytes(2, "little")
# What the search for a later promise may checksum, as a multiple of the log's size: enough
# for any log that blobkv wrote, and a bound on the time hostile bytes can cost.
_SEARCH_FACTOR_MAX: Final = 64
_READ_SIZE: Final = 1 << 20
# A reader that follows finds a few frames, or none, and then zeroes up to the end of the room.
_FIRST_READ_SIZE: Final = 4 << 10


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
        commits_end: Where the last commit ends; before `end` once the log is sealed.
        synced: How far the file is known to be durable.
        room_end: Up to where zeroes were written ahead, if that is past `end`.
    """

    def __init__(self, file: LogFile, handle: WritableFile) -> None:
        self.file = file
        self.end = LOG_HEADER_SIZE
        self.commits_end = LOG_HEADER_SIZE
        self.synced = LOG_HEADER_SIZE
        self.room_end = LOG_HEADER_SIZE
        self._handle = handle

    @classmethod
    def create(
        cls, fs: FileSystem, directory: str, file: LogFile, store_id: bytes, sequence: int
    ) -> Log:
        """Make a new log for commits after `sequence`; it and its name are durable."""
        handle = fs.create(f"{directory}/{file.name}")
        header = LogHeader(file.log_id, store_id, file.number, sequence)
        try:
            handle.append(encode_log_header(header))
            handle.sync()
            fs.sync_directory(directory)
        except BaseException:
            handle.close()
            raise
        return cls(file, handle)

    def append(self, sequence: int, entries: Changes, ranges: Sequence[Range]) -> int:
        """Write one transaction; return where it ends. It is not durable yet.

        Raises:
            OSError: The device refused; the frame was cut back, and the log is as before.
            LimitError: The transaction is too large for a frame; nothing was written.
            PoisonedError: The frame could not even be cut back.

        After any other exception, an interrupt, the frame may be there or not.
        """
        self.commits_end = self._append(sequence, entries, ranges, COMMIT)
        return self.commits_end

    def sync(self) -> None:
        """Make everything appended so far durable."""
        end = self.end
        self._handle.sync()
        self.synced = max(self.synced, end)

    def seal(self, sequence: int) -> None:
        """Mark the clean end after commit `sequence`. The caller has synced everything before.

        Raises:
            As `append`.
        """
        assert self.synced == self.end
        self._append(sequence, {}, (), SEAL)

    def trim(self) -> None:
        """Cut off what room was made. The caller knows that nothing grows any more."""
        self._handle.truncate(self.end)

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._handle.close()

    def _append(
        self, sequence: int, entries: Changes, ranges: Sequence[Range], kind: int
    ) -> int:
        frame = encode_frame(
            sequence, entries, ranges, log_id=self.file.log_id, synced=self.synced, kind=kind
        )
        try:
            self._handle.append(frame)
        except OSError as cause:
            self._cut_back(cause)
            raise
        self.end += len(frame)
        return self.end

    def _cut_back(self, cause: OSError) -> None:
        try:
            self._handle.truncate(self.end)
            self.room_end = self.end
        except OSError:
            raise PoisonedError(
                f"{self.file.name}: a write failed and could not be cut back; close the store "
                "and open it again"
            ) from cause


class End(NamedTuple):
    """Where something older than a log ends, and with which commit."""

    path: str
    offset: int
    sequence: int


class LogReader:
    """Reads a log's frames in order, and can be asked again when the log has grown.

    Args:
        fs: Where the log is.
        directory: The store's directory.
        file: What the manifest says of it.
        store_id: What it must repeat; None for one whose header is damaged, of which only
            `frames_beyond` can be asked.

    Attributes:
        sealed: Whether the clean end was read.
        sequence: The last commit read, or the one before this log.

    Raises:
        CorruptionError: The file is not the log that the manifest means.
    """

    def __init__(
        self, fs: FileSystem, directory: str, file: LogFile, store_id: bytes | None
    ) -> None:
        self._file = fs.open(f"{directory}/{file.name}")
        self._path = file.name
        self._log_id = file.log_id
        self._at = LOG_HEADER_SIZE
        self._synced = LOG_HEADER_SIZE
        self.sealed = False
        self.sequence = 0
        try:
            if store_id is not None:
                self.sequence = self._header(file, store_id).sequence
        except BaseException:
            self._file.close()
            raise

    @classmethod
    def open_after(
        cls, fs: FileSystem, directory: str, file: LogFile, store_id: bytes, older: End
    ) -> Self:
        """Open the log that follows `older` without a gap.

        Raises:
            CorruptionError: What is older ends with another commit than this log follows.
        """
        reader = cls(fs, directory, file, store_id)
        if reader.sequence != older.sequence:
            reader.close()
            reason = (
                f"ends with commit {older.sequence}, though {file.name} goes on after commit "
                f"{reader.sequence}"
            )
            raise CorruptionError(older.path, older.offset, reason)
        return reader

    @property
    def end(self) -> End:
        """How far the log has been read."""
        return End(self._path, self._at, self.sequence)

    def frames(self) -> Iterator[Frame]:
        """Yield the commits that follow, up to the first byte that is no valid frame.

        Raises:
            CorruptionError: A valid frame has another sequence than the next.

        Cost: memory for a megabyte, or for the largest frame; where nothing follows, one read
        of a few kilobytes.
        """
        window, base = self._read(self._at, _FIRST_READ_SIZE, FRAME_SIZE), self._at
        while not self.sealed:
            frame = decode_frame(window, self._at - base, self._log_id)
            if frame is None:
                known = len(window) - (self._at - base)
                claim = claimed_frame(window, self._at - base)
                claimed = FRAME_SIZE if claim is None else claim.size
                if known >= claimed:
                    return
                # No more than there is: a header can claim 4 GiB.
                wanted = min(max(claimed, _READ_SIZE), self._file.size - self._at)
                if wanted <= known:
                    return
                window, base = self._read(self._at, wanted, claimed), self._at
                continue
            self._check_sequence(frame)
            self._synced = max(self._synced, frame.synced)
            if frame.kind == SEAL:
                # One that was written before its commits were synced promises nothing.
                self.sealed = frame.synced == self._at
                if not self.sealed:
                    return
                self._at = base + frame.end
            else:
                self._at = base + frame.end
                self.sequence = frame.sequence
                yield frame

    def check_end(self) -> None:
        """Decide what ended `frames`; nothing to say if it was a seal, or a torn tail.

        Raises:
            CorruptionError: The bytes there were promised to be a frame, by a valid one
                further on that says the log was synced past here.
        """
        if self.sealed:
            return
        base, last = self._at, self.sequence
        size = self._file.size - base
        budget = _SEARCH_FACTOR_MAX * size
        for at in self._places_of_magic(base + 1, base + size, self._file.read):
            claim = claimed_frame(self._file.read(at, FRAME_SIZE), 0)
            if claim is None or at + claim.size > base + size:
                continue
            # Only what would promise this place, and could be one of the frames that followed,
            # is worth its checksum: a value may hold any number of headers that are neither.
            frames_max = 1 + (at - base) // FRAME_SIZE
            if not (base < claim.synced <= at and 0 <= claim.sequence - last <= frames_max):
                continue
            budget -= claim.size
            if budget < 0:
                reason = "no valid frame, and more that look like one than any log could hold"
                raise CorruptionError(self._path, base, reason)
            frame = decode_frame(self._file.read(at, claim.size), 0, self._log_id)
            if frame is not None and not self._valid_now(base):
                reason = (
                    f"no valid frame, though the frame at {at:#x} says that the log was synced "
                    f"up to {frame.synced:#x}"
                )
                raise CorruptionError(self._path, base, reason)

    def frames_beyond(self) -> Iterator[Frame]:
        """Yield every valid frame from the place that ended `frames` on, wherever it is.

        Some before them are missing, so what they say is not what was committed as a whole.
        What cannot be read is left out.

        Cost: reads the rest of the log once, and checksums up to 64 times as much.
        """
        size = self._file.size
        budget = _SEARCH_FACTOR_MAX * size
        behind = self._at
        for at in self._places_of_magic(self._at, size, self._read_around):
            claim = (
                claimed_frame(self._read_around(at, FRAME_SIZE), 0) if at >= behind else None
            )
            if claim is None or at + claim.size > size:
                continue
            budget -= claim.size
            if budget < 0:
                return
            frame = decode_frame(self._read_around(at, claim.size), 0, self._log_id)
            if frame is not None:
                behind = at + claim.size
                yield frame

    def sync(self) -> None:
        """Make durable what was read, unless a frame said that it is.

        The writer may have written the last frames and be just about to sync them.
        """
        if self._synced < self._at:
            self._file.sync()
            self._synced = self._at

    def close(self) -> None:
        """Release the file. Idempotent."""
        self._file.close()

    def _read(self, at: int, size: int, wanted: int) -> bytes:
        """Return `size` bytes from `at`, or where they cannot be read all, what is wanted."""
        try:
            return self._file.read(at, size)
        except OSError:
            if wanted >= size:
                raise
            return self._file.read(at, wanted)

    def _read_around(self, at: int, size: int) -> bytes:
        """Return `size` bytes from `at`, with zeroes for what cannot be read."""
        try:
            return self._file.read(at, size)
        except OSError:
            if size <= _FIRST_READ_SIZE:
                return bytes(size)
        parts = range(at, at + size, _FIRST_READ_SIZE)
        sizes = [min(_FIRST_READ_SIZE, at + size - part) for part in parts]
        return b"".join(map(self._read_around, parts, sizes))

    def _header(self, file: LogFile, store_id: bytes) -> LogHeader:
        header = decode_log_header(self._file.read(0, LOG_HEADER_SIZE), self._path)
        expected = LogHeader(file.log_id, store_id, file.number, header.sequence)
        if header != expected:
            reason = f"this log is {header}, the manifest means {expected}"
            raise CorruptionError(self._path, 0, reason)
        return header

    def _check_sequence(self, frame: Frame) -> None:
        expected = self.sequence + (frame.kind != SEAL)
        if frame.sequence != expected:
            reason = f"frame has sequence {frame.sequence}, expected {expected}"
            raise CorruptionError(self._path, self._at, reason)

    def _valid_now(self, at: int) -> bool:
        """Look again: a live writer may have written there since `frames` looked."""
        claim = claimed_frame(self._file.read(at, FRAME_SIZE), 0)
        if claim is None or at + claim.size > self._file.size:
            return False
        return decode_frame(self._file.read(at, claim.size), 0, self._log_id) is not None

    @staticmethod
    def _places_of_magic(
        start: int, stop: int, read: Callable[[int, int], bytes]
    ) -> Iterator[int]:
        """Yield where frames may start in [start, stop), by their magic, in order."""
        at = start + FRAME_MAGIC_OFFSET
        while at < stop:
            # One byte more than a piece, since the magic may lie across its end.
            piece = read(at, min(_READ_SIZE, stop - at) + 1)
            found = piece.find(_MAGIC)
            while found >= 0:
                yield at + found - FRAME_MAGIC_OFFSET
                found = piece.find(_MAGIC, found + 1)
            at += _READ_SIZE
