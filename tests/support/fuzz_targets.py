"""What a fuzzer calls: each target takes any bytes, and raises if what they do is wrong.

Wrong is an error without a type of its own (other than `BlobKVError` and `OSError`), a value
that nobody wrote though no checksum was mended, or something that does not survive being
encoded again. That too much memory or time is taken, the fuzzer itself notices. The first byte
of an input says how it is taken, the rest is bytes to be decoded, or a program of edits
(`support/edits.py`) on a file that blobkv wrote.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from io import BytesIO
from itertools import count
from random import Random
from types import SimpleNamespace
from typing import Any, NamedTuple, cast
from zlib import crc32

from support.edits import edited, random_program
from support.fuzz_stores import fuzz_log, fuzz_store, fuzz_table
from support.mending import mended_manifest

import blobkv
from blobkv._engine import builder, table_format
from blobkv._engine.child import Child
from blobkv._engine.format import encode_frame
from blobkv._engine.log import Log, LogFile
from blobkv._engine.manifest import Manifest
from blobkv._engine.table import TableFile
from blobkv.errors import BlobKVError, CorruptionError, UsageError
from blobkv.keys import Part, escape, pack, unescape, unpack
from blobkv.testing import SimulatedDisk

# Whether checksums are made right before the bytes are read.
AS_IS = b"\x00"
MENDED = b"\x01"


class Target(NamedTuple):
    """Something to be fuzzed.

    Attributes:
        run: Takes an input; raises if what it does is wrong.
        seeds: Returns inputs to start from.
        by_edits: Whether inputs are programs of edits.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]
    by_edits: bool = False

    def inputs(self, rng: Random) -> Iterator[bytes]:
        """Yield inputs without end, the seeds first: what a fuzzer does, but blindly."""
        seeds = self.seeds()
        yield from seeds
        while True:
            if self.by_edits and rng.random() < 0.9:
                yield rng.randbytes(2) + random_program(rng)
            else:
                yield edited(rng.choice(seeds), random_program(rng))


# The manifest.


def fuzz_manifest(data: bytes) -> None:
    how, body = data[:1], data[1:]
    with suppress(CorruptionError):
        manifest = Manifest.decode(mended_manifest(body) if how == MENDED else body)
        assert Manifest.decode(manifest.encode()) == manifest
        assert len(manifest.store_id) == 16
        files = [*manifest.tables, *manifest.logs]
        assert all(file.number < manifest.next_number for file in files)


def manifest_seeds() -> list[bytes]:
    files = [TableFile(9 - i, 4096 << i, 2**31 + i, f"{i:064x}") for i in range(3)]
    logs = LogFile(11, 2**32 - 1), LogFile(12, 7)
    found = []
    for held in range(3):
        manifest = Manifest(b"\x5a" * 16, 7, 41, 13, tuple(files[:held]), logs[:held])
        data = manifest.encode()
        found += [AS_IS + data, MENDED + data[: data.rindex(b"\n", 0, -1) + 1]]
    return found


# A block.


def fuzz_block(data: bytes) -> None:
    how, skip, raw = data[:1], data[1:2], data[2:]
    if how == MENDED and len(raw) >= table_format.BLOCK_HEADER_SIZE:
        (size,) = table_format.CRC.unpack_from(raw, 4)
        raw = table_format.CRC.pack(crc32(raw[4:size], 64)) + raw[4:]
    with suppress(CorruptionError):
        keys, values = table_format.read_block(raw, 64, "block", 64)
        parts = [*keys, *(value for value in values if value is not None)]
        assert len(keys) == len(values)
        assert sum(map(len, parts)) <= len(raw)
        start = keys[0]
        at = raw.find(start, table_format.BLOCK_HEADER_SIZE)
        with suppress(ValueError):
            table_format.find_entry(raw, 0, at)
        left_out = min([*skip, *map(len, keys)])
        skipped, _ = table_format.decode_block(raw, 0, left_out)
        assert [key[left_out:] for key in keys] == [*skipped]


def block_seeds() -> list[bytes]:
    found = []
    for keys, values in (
        ([b"a"], [b"1"]),
        ([b"key %d" % i for i in range(9)], [b"v" * i for i in range(9)]),
        ([b"", b"b", b"bb"], [None, b"", None]),
    ):
        sizes = table_format.sizes_of(keys), table_format.sizes_of(values)
        bounds = table_format.block_bounds(*sizes)
        block = b"".join(table_format.encode_block(keys, values, bounds, 64))
        found += [AS_IS + b"\x00" + block, MENDED + b"\x02" + block]
    return found


# Keys, and how buckets are spelled.


def fuzz_keys(data: bytes) -> None:
    with suppress(UsageError):
        assert pack(*unpack(data)) == data
    with suppress(UsageError):
        name, after = unescape(data, 0)
        assert escape(name) == data[:after]
    parts = [*_parts(data)]
    packed = [pack(part) for part in parts]
    assert unpack(b"".join(packed)) == tuple(parts)
    for i in range(3):
        # Every third is of one type.
        alike: list[Any] = parts[i::3]
        assert sorted(alike) == sorted(alike, key=pack)
    _read_spelled(data.split(b"|"))


def _parts(data: bytes) -> Iterator[Part]:
    for piece in data.split(b"|"):
        yield piece
        yield piece.decode("utf-8", "replace")
        yield int.from_bytes(piece[:8], "big") * (-1) ** len(piece)


def _read_spelled(stored: list[bytes]) -> None:
    """Read a store whose stored keys are these, whether they spell a bucket or not."""
    disk, file = _empty_store()
    frame = encode_frame(1, dict.fromkeys(stored, b"value"), log_id=file.log_id, synced=64)
    path = f"/db/{file.name}"
    before = disk.contents(path)
    disk.set_contents(path, before + frame)
    try:
        with blobkv.open("/db", fs=disk, read_only=True) as store, store.view() as txn:
            for entries in (txn, txn.bucket(b""), txn.bucket(b"a", b"b")):
                for key, value in entries.items():
                    assert value == b"value"
                    assert entries.get(key) == value
                with suppress(BlobKVError):
                    for name in entries.buckets():
                        entries.bucket(name).buckets()
                        assert set(entries.bucket(name).values()) <= {b"value"}
    finally:
        disk.set_contents(path, before)


@cache
def _empty_store() -> tuple[SimulatedDisk, LogFile]:
    """A store with a log that has no frame yet."""
    disk = SimulatedDisk()
    disk.make_directory("/db")
    file = LogFile(1, 0x01020304)
    manifest = Manifest(bytes(range(16)), next_number=2, logs=(file,))
    Log.create(disk, "/db", file, manifest.store_id, 0).close()
    manifest.write(disk, "/db")
    return disk, file


def keys_seeds() -> list[bytes]:
    return [
        pack("text", 7, b"\x00\xff", -1, 2**64 - 1),
        b"\x00key|\x01name\x00\x00\x00key",
        b"\x01\x00\xff\x00\x00\x01\x00\x00\x00|\x01a\x00\x00\x01b\x00\x00\x00x",
        b"\x02\xed\xa0\x80\x00\x00",
    ]


# What a child says.


def fuzz_answers(data: bytes) -> None:
    """Whatever a child answers, it is a piece, or the job is to be done here."""
    child = Child.__new__(Child)
    child._process = cast(
        "Any",
        SimpleNamespace(
            stdin=BytesIO(), stdout=BytesIO(data), kill=lambda: None, wait=lambda: 0
        ),
    )
    numbers = count(1)
    built = builder.Builder(
        SimulatedDisk(), "/db", lambda: None, numbers.__next__, numbers.__next__
    )
    # Another, once the first was dropped, goes on where that ended.
    built._running_child = lambda: child  # type: ignore[method-assign]
    for number in range(1, 4):
        piece = built.next_piece()
        if piece is not None:
            file, entries, end = piece
            assert isinstance(entries, int)
            assert end is None or isinstance(end, bytes)
            if file is not None:
                assert isinstance(file.size, int)
                assert isinstance(file.crc, int)
                assert isinstance(file.sha256, str)
                assert file.number == number


def answers_seeds() -> list[bytes]:
    table = b'[[1, 4096, 7, "%s"], 30, "6b"]\n' % (b"0" * 64)
    return [
        table,
        b'[null, 0, null]\ntrue\n"idle"\n',
        b'{"error": "OSError: no room"}\n' + table,
        b'[[2, 1, 1, ""], 1, null]\n',
    ]


def edit_seeds() -> list[bytes]:
    rng = Random(0)
    return [bytes((how, rng.randrange(256))) + random_program(rng) for how in range(8)]


TARGETS = {
    "manifest": Target(fuzz_manifest, manifest_seeds),
    "log": Target(fuzz_log, edit_seeds, by_edits=True),
    "table": Target(fuzz_table, edit_seeds, by_edits=True),
    "block": Target(fuzz_block, block_seeds),
    "store": Target(fuzz_store, edit_seeds, by_edits=True),
    "keys": Target(fuzz_keys, keys_seeds),
    "answers": Target(fuzz_answers, answers_seeds),
}
