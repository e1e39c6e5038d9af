"""The bytes of a log as pure functions: bytes in, values out, no I/O.

A log is a header and then frames; a frame is one committed transaction, so a torn write
loses a whole transaction or nothing. All integers are little-endian, every checksum is
CRC-32, and zeroes are never valid, so that a log may be grown ahead with them.

    log header (64 bytes)
    offset  size  field      meaning
    ------  ----  ---------  -----------------------------------------------------------
         0     8  magic      "blobkv", 0x00, "L"
         8     4  version    1
        12     4  log_id     random; seeds the checksum of every frame in this log
        16    16  store_id   random; the manifest holds it too
        32     8  number     the log's number, which is also its file name
        40     8  sequence   the last commit before this log
        48    12  zero
        60     4  crc        of the 60 bytes before

    frame (32 bytes, then the body)
    offset  size  field      meaning
    ------  ----  ---------  -----------------------------------------------------------
         0     4  crc        of everything after this field, body included; seed: log_id
         4     4  size       bytes in the body
         8     8  sequence   commit number, one more than the frame before
        16     8  synced     how far this log was known synced when the frame was written
        24     4  count      entries in the body
        28     1  kind       1 commit, 2 seal: the log's clean end, without a body
        29     1  zero
        30     2  magic      0xb10b

    body: key_size u32[count], value_size u32[count], then all keys, then all values
        value_size 0xffffffff is a tombstone; 0xfffffffe is half of a range tombstone: two
        such entries in a row are its start and its stop, an empty stop means no bound.
        Range tombstones come first and are older than the other entries of their frame.

Invariants:

* A frame is valid only as a whole: no entry of one whose checksum fails is served.
* A key occurs at most once among the entries of a frame.
* No byte of a frame is ever overwritten.

Source: one frame a transaction follows fjall's journal; `synced` follows Pebble's walSync
chunks; seeding the checksum with the log follows RocksDB's recyclable log records.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import accumulate, pairwise
from struct import Struct
from struct import pack as pack_struct
from struct import unpack_from as unpack_struct_from
from typing import Final, NamedTuple
from zlib import crc32

from blobkv.errors import CorruptionError, LimitError

FORMAT_VERSION: Final = 1
KEY_SIZE_MAX: Final = 2**17
VALUE_SIZE_MAX: Final = 2**30
BODY_SIZE_MAX: Final = 2**32 - 1
SEQUENCE_MAX: Final = 2**63 - 1

Changes = Mapping[bytes, bytes | None]
Range = tuple[bytes, bytes | None]

_U32_MAX: Final = 2**32 - 1
_TOMBSTONE: Final = _U32_MAX
_RANGE: Final = _U32_MAX - 1

_LOG_MAGIC: Final = b"blobkv\x00L"
_LOG_HEADER: Final = Struct("<8sII16sQQ12x")
CRC: Final = Struct("<I")
LOG_HEADER_SIZE: Final = _LOG_HEADER.size + CRC.size

_FRAME: Final = Struct("<IIQQIBxH")
_FRAME_TAIL: Final = Struct("<IQQIBxH")
FRAME_SIZE: Final = _FRAME.size
_NO_HEADER: Final = bytes(FRAME_SIZE)
FRAME_MAGIC: Final = 0xB10B
FRAME_MAGIC_OFFSET: Final = 30
FRAME_ZERO_OFFSET: Final = 29
COMMIT: Final = 1
SEAL: Final = 2

# The diagrams above are the specification; these tie the code to them.
assert LOG_HEADER_SIZE == 64
assert FRAME_SIZE == 32
assert VALUE_SIZE_MAX < _RANGE


class NewerFormatError(CorruptionError):
    """A file that only a newer blobkv can read."""


class LogHeader(NamedTuple):
    """What a log says of itself."""

    log_id: int
    store_id: bytes
    number: int
    sequence: int


class Frame(NamedTuple):
    """One valid frame: where it ends and what it holds."""

    sequence: int
    synced: int
    kind: int
    end: int
    ranges: list[Range]
    keys: list[bytes]
    values: list[bytes | None]


def encode_log_header(header: LogHeader) -> bytes:
    """Return the first 64 bytes of a log."""
    raw = _LOG_HEADER.pack(
        _LOG_MAGIC,
        FORMAT_VERSION,
        header.log_id,
        header.store_id,
        header.number,
        header.sequence,
    )
    return raw + CRC.pack(crc32(raw))


def decode_log_header(data: bytes, path: str) -> LogHeader:
    """Read a log's header.

    Raises:
        CorruptionError: It is not one, or of a newer format.
    """
    raw = checked(data[:LOG_HEADER_SIZE], LOG_HEADER_SIZE, _LOG_MAGIC, path, 0, "log header")
    _, _, log_id, store_id, number, sequence = _LOG_HEADER.unpack(raw)
    return LogHeader(log_id, store_id, number, sequence)


def encode_frame(
    sequence: int,
    entries: Changes,
    ranges: Sequence[Range] = (),
    *,
    log_id: int,
    synced: int,
    kind: int = COMMIT,
) -> bytearray:
    """Return one transaction as a frame; range tombstones apply before the entries.

    Raises:
        LimitError: It is larger than a frame can be, 4 GiB, or no commit has this number.

    Cost: copies every key and value once.
    """
    keys = list(entries)
    values = list(entries.values())
    key_sizes = list(map(len, keys))
    value_sizes = [_TOMBSTONE if value is None else len(value) for value in values]
    if ranges:
        bounds = [bound for start, stop in ranges for bound in (start, stop or b"")]
        keys = bounds + keys
        key_sizes = list(map(len, bounds)) + key_sizes
        value_sizes = [_RANGE] * len(bounds) + value_sizes
    count = len(keys)
    size = 8 * count + sum(map(len, keys)) + sum(map(len, filter(None, values)))
    if sequence > SEQUENCE_MAX:
        raise LimitError(f"commit {sequence}, limit {SEQUENCE_MAX}; nothing is written")
    if size > BODY_SIZE_MAX:
        raise LimitError(
            f"a transaction of {size} bytes, limit {BODY_SIZE_MAX}; commit in parts"
        )
    frame = bytearray().join(
        (
            _NO_HEADER,
            pack_struct(f"<{2 * count}I", *key_sizes, *value_sizes),
            *keys,
            *filter(None, values),
        )
    )
    _FRAME_TAIL.pack_into(frame, CRC.size, size, sequence, synced, count, kind, FRAME_MAGIC)
    CRC.pack_into(frame, 0, crc32(memoryview(frame)[CRC.size :], log_id))
    return frame


def decode_frame(data: bytes, at: int, log_id: int) -> Frame | None:
    """Return the valid frame that starts at `at`, or None if there is none.

    Bytes decide nothing here: whether None means the log's end, a torn tail, or corruption
    is for the caller, who knows what was promised.
    """
    body_at = at + FRAME_SIZE
    if body_at > len(data):
        return None
    crc, size, sequence, synced, count, kind, magic = _FRAME.unpack_from(data, at)
    end = body_at + size
    if magic != FRAME_MAGIC or end > len(data) or 8 * count > size:
        return None
    if crc32(memoryview(data)[at + 4 : end], log_id) != crc:
        return None
    body = _decode_body(data, body_at, count, end)
    if body is None or kind not in {COMMIT, SEAL} or sequence > SEQUENCE_MAX:
        return None
    return Frame(sequence, synced, kind, end, *body)


class Claim(NamedTuple):
    """What a frame header says of its frame, unverified; `size` counts the header."""

    size: int
    sequence: int
    synced: int


def claimed_frame(data: bytes, at: int) -> Claim | None:
    """Return what a frame header at `at` claims, or None if there can be none."""
    if at + FRAME_SIZE > len(data):
        return None
    _, size, sequence, synced, count, kind, magic = _FRAME.unpack_from(data, at)
    if magic != FRAME_MAGIC or 8 * count > size or sequence > SEQUENCE_MAX:
        return None
    if kind not in {COMMIT, SEAL} or data[at + FRAME_ZERO_OFFSET] or synced < LOG_HEADER_SIZE:
        return None
    return Claim(FRAME_SIZE + size, sequence, synced)


def _decode_body(
    data: bytes, at: int, count: int, end: int
) -> tuple[list[Range], list[bytes], list[bytes | None]] | None:
    sizes = unpack_struct_from(f"<{2 * count}I", data, at)
    key_sizes, value_sizes = sizes[:count], sizes[count:]
    bounds = list(accumulate(key_sizes, initial=at + 8 * count))
    keys = [data[start:stop] for start, stop in pairwise(bounds)]
    values: list[bytes | None] = []
    at = bounds[-1]
    for size in value_sizes:
        if size >= _RANGE:
            values.append(None)
        else:
            values.append(data[at : at + size])
            at += size
    halves = value_sizes.count(_RANGE)
    if at != end or halves % 2 or value_sizes[:halves].count(_RANGE) < halves:
        return None
    ranges: list[Range] = []
    if halves:
        ranges = [(keys[i], keys[i + 1] or None) for i in range(0, halves, 2)]
        keys, values = keys[halves:], values[halves:]
    return ranges, keys, values


def checked(raw: bytes, size: int, magic: bytes, path: str, offset: int, what: str) -> bytes:
    """Verify a header or footer: its size, magic, checksum at its end, and version.

    Returns:
        `raw` without its checksum.

    Raises:
        CorruptionError: `raw` is not a `what` that this version of blobkv can read.
    """
    if len(raw) < size:
        raise CorruptionError(path, offset, f"{what} ends after {len(raw)} of {size} bytes")
    if not raw.startswith(magic):
        found = raw[: len(magic)]
        raise CorruptionError(
            path, offset, f"not a {what}: starts with {found!r}, not {magic!r}"
        )
    crc = crc32(raw[: size - CRC.size])
    expected = CRC.unpack_from(raw, size - CRC.size)[0]
    if crc != expected:
        reason = f"{what} checksum is {crc:#010x}, expected {expected:#010x}"
        raise CorruptionError(path, offset, reason)
    version = CRC.unpack_from(raw, len(magic))[0]
    if version != FORMAT_VERSION:
        reason = (
            f"{what} is of format {version}, this blobkv reads {FORMAT_VERSION}: "
            "open it with the blobkv that wrote it"
        )
        raise NewerFormatError(path, offset, reason)
    return raw[: size - CRC.size]
