"""Bytes are a promise: these are on people's disks, so a change here is a format change.

Method: each structure of `format.py`, `table_format.py`, and `manifest.py` is encoded from
fixed values and compared, byte by byte, with what version 1 wrote; then decoded again.
"""

from __future__ import annotations

from hashlib import sha256
from itertools import chain
from pathlib import Path

import pytest

from blobkv._engine import table_format as layout
from blobkv._engine.format import (
    LOG_HEADER_SIZE,
    SEAL,
    LogHeader,
    decode_frame,
    decode_log_header,
    encode_frame,
    encode_log_header,
)
from blobkv._engine.fs import OSFileSystem
from blobkv._engine.log import LogFile
from blobkv._engine.manifest import Manifest
from blobkv._engine.ranges import Ranges
from blobkv._engine.table import Table, TableFile
from blobkv._engine.table_writer import TableWriter
from blobkv.errors import CorruptionError

LOG_ID = 0x01020304


def test_log_header() -> None:
    header = LogHeader(LOG_ID, bytes(range(16)), 7, 41)

    raw = encode_log_header(header)

    assert raw.hex(" ", -8) == GOLDEN_LOG_HEADER
    assert len(raw) == LOG_HEADER_SIZE
    assert decode_log_header(raw, "t") == header


def test_frame() -> None:
    raw = encode_frame(42, {b"foo": b"bar", b"x": None, b"": b""}, log_id=LOG_ID, synced=64)

    assert raw.hex(" ", -8) == GOLDEN_FRAME
    frame = decode_frame(raw, 0, LOG_ID)
    assert frame is not None
    assert (frame.sequence, frame.synced, frame.end) == (42, 64, len(raw))
    assert (frame.keys, frame.values) == ([b"foo", b"x", b""], [b"bar", None, b""])


def test_frame_of_range_tombstones() -> None:
    ranges = [(b"a", b"b"), (b"c", None)]

    raw = encode_frame(43, {b"k": b"v"}, ranges, log_id=LOG_ID, synced=64)

    assert raw.hex(" ", -8) == GOLDEN_RANGES
    frame = decode_frame(raw, 0, LOG_ID)
    assert frame is not None
    assert (frame.ranges, frame.keys, frame.values) == (ranges, [b"k"], [b"v"])


def test_seal() -> None:
    raw = encode_frame(43, {}, log_id=LOG_ID, synced=128, kind=SEAL)

    assert raw.hex(" ", -8) == GOLDEN_SEAL


def test_a_frame_of_another_log_is_no_frame() -> None:
    raw = encode_frame(1, {b"k": b"v"}, log_id=LOG_ID, synced=64)

    assert decode_frame(raw, 0, LOG_ID + 1) is None


def test_zeroes_are_no_frame() -> None:
    assert decode_frame(bytes(4096), 0, 0) is None


def _block(keys: list[bytes], values: list[bytes | None], offset: int) -> bytes:
    bounds = layout.block_bounds(layout.sizes_of(keys), layout.sizes_of(values))
    return b"".join(layout.encode_block(keys, values, bounds, offset))


def test_block() -> None:
    raw = _block([b"", b"foo", b"x"], [b"empty", b"bar", None], 64)

    assert raw.hex(" ", -8) == GOLDEN_BLOCK
    assert layout.check_block(memoryview(bytes(64) + raw), 64, "t") == len(raw)
    keys, values = layout.decode_block(raw, 0)
    assert (list(keys), list(values)) == ([b"", b"foo", b"x"], [b"empty", b"bar", None])


def test_a_block_elsewhere_is_corruption() -> None:
    raw = _block([b"k"], [b"v"], 64)

    with pytest.raises(CorruptionError, match=r"t\+0x80: block checksum"):
        layout.check_block(memoryview(bytes(128) + raw), 128, "t")


def test_table(tmp_path: Path) -> None:
    file = _table(tmp_path)

    raw = (tmp_path / file.name).read_bytes()
    assert raw[:64].hex(" ", -8) == GOLDEN_TABLE_HEADER
    assert raw[-128:].hex(" ", -8) == GOLDEN_FOOTER
    assert file.sha256 == sha256(raw).hexdigest() == GOLDEN_TABLE_SHA256
    table = Table.open(OSFileSystem(), str(tmp_path), file)
    keys = list(chain.from_iterable(keys for keys, _ in table.chunks(b"", None)))
    assert keys == [b"key/%04d" % i for i in range(200)]
    assert list(table.ranges) == [(b"m", b"n"), (b"z", None)]


def test_manifest() -> None:
    manifest = Manifest(
        store_id=bytes(range(16)),
        epoch=7,
        sequence=41,
        next_number=12,
        tables=(TableFile(9, 18211, 7, "ab" * 32), TableFile(4, 99120, 8, "cd" * 32)),
        logs=(LogFile(11, LOG_ID),),
    )

    raw = manifest.encode()

    assert raw.decode() == GOLDEN_MANIFEST
    assert Manifest.decode(raw) == manifest


def test_a_newer_manifest_is_refused_with_advice() -> None:
    newer = Manifest(bytes(16)).encode().replace(b'"format": 1', b'"format": 2')
    body = newer[: newer.index(b'{"crc32"')]
    raw = body + b'{"crc32": "%08x"}\n' % layout.crc32(body)

    with pytest.raises(CorruptionError, match="open it with the blobkv that wrote it"):
        Manifest.decode(raw)


def _table(directory: Path) -> TableFile:
    file = OSFileSystem().create(f"{directory}/000009.tbl")
    writer = TableWriter(file, 9)
    keys = [b"key/%04d" % i for i in range(200)]
    writer.add(keys, [None if i % 50 == 7 else b"v" * (i % 60) for i in range(200)])
    table = writer.finish(Ranges([(b"m", b"n"), (b"z", None)]))
    file.close()
    return table


GOLDEN_LOG_HEADER = (
    "626c6f626b76004c 0100000004030201 0001020304050607 08090a0b0c0d0e0f "
    "0700000000000000 2900000000000000 0000000000000000 00000000db7dea2a"
)
GOLDEN_FRAME = (
    "d7d7820c1f000000 2a00000000000000 4000000000000000 0300000001000bb1 "
    "0300000001000000 0000000003000000 ffffffff00000000 666f6f78626172"
)
GOLDEN_RANGES = (
    "0d9b20dd2d000000 2b00000000000000 4000000000000000 0500000001000bb1 "
    "0100000001000000 0100000000000000 01000000feffffff fefffffffeffffff "
    "feffffff01000000 6162636b76"
)
GOLDEN_SEAL = "7d61515800000000 2b00000000000000 8000000000000000 0000000002000bb1"
GOLDEN_BLOCK = (
    "4f800b5534000000 0300000028000000 280000002d000000 3000000033000000 "
    "3400008034000000 656d707479666f6f 62617278"
)
GOLDEN_TABLE_HEADER = (
    "626c6f626b760054 0100000000000000 0000000000000000 0000000000000000 "
    "0000000000000000 0000000000000000 0000000000000000 00000000e5f7dc39"
)
GOLDEN_FOOTER = (
    "626c6f626b760046 0100000000000000 c800000000000000 0400000000000000 "
    "0200000000000000 9001000000000000 c821000000000000 6534000000000000 "
    "a534000000000000 4835000000000000 8b9564d11dbdc36a 937d34ef00000000 "
    "0000000000000000 0000000000000000 0000000000000000 00000000b7a2b775"
)
GOLDEN_TABLE_SHA256 = "7472653109c0c36c8330352aca17da74cd497ec8f8d36db13888f072d00a2a6d"
GOLDEN_MANIFEST = (
    '{"format": 1, "store": "000102030405060708090a0b0c0d0e0f", "epoch": 7, '
    '"sequence": 41, "next": 12}\n'
    '{"table": 9, "size": 18211, "crc": 7, '
    '"sha256": "abababababababababababababababababababababababababababababababab"}\n'
    '{"table": 4, "size": 99120, "crc": 8, '
    '"sha256": "cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd"}\n'
    '{"log": 11, "id": 16909060}\n'
    '{"crc32": "d1dc36bd"}\n'
)
