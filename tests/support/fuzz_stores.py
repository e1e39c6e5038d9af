"""Fuzz targets that damage files of a store: a log, a table, any file of it.

An input is a byte that says how, one that says where, and a program of edits. Where checksums
are not mended, what is read must be what was written, as of one commit; where they are,
anything may be read, but every error is typed, also those of flushes, merges, backups,
`verify`, and `salvage`.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from functools import cache
from hashlib import sha256
from typing import NamedTuple

from support.edits import edited
from support.mending import mended_log, mended_manifest, mended_table

import blobkv
from blobkv import Store, Transaction
from blobkv._engine.log import LogFile, LogReader
from blobkv._engine.manifest import MANIFEST_NAME, Manifest
from blobkv._engine.table_format import FOOTER_SIZE, decode_footer, footer_crc
from blobkv._engine.writer import Writer
from blobkv.errors import BlobKVError, CorruptionError
from blobkv.testing import SimulatedDisk

Pairs = dict[bytes, bytes]
# What may come out of a call on a damaged store.
TYPED = (BlobKVError, OSError)
MENDED = 0x01
READ_ONLY = 0x02
SECOND = 0x04
ABSENT = [b"", b"key", b"key 1", b"key 100x", b"m", b"\xff" * 9]


class Made(NamedTuple):
    """A store in /db, and what it holds.

    Attributes:
        disk: Where it is.
        states: What it holds after each commit that its logs hold; first, what its tables do.
        ever: Every pair that it has held.
    """

    disk: SimulatedDisk
    states: dict[int, Pairs]
    ever: set[tuple[bytes, bytes]]

    def copy(self) -> SimulatedDisk:
        return self.disk.crash(random.Random(0), keep="all")


@cache
def made() -> Made:
    """Two tables, the newer with tombstones of both kinds; two logs, the last one unsealed."""
    disk = SimulatedDisk()
    states: dict[int, Pairs] = {}
    store = blobkv.open("/db", fs=disk)

    def commit(change: Callable[[Transaction], object]) -> None:
        with store.update() as txn:
            change(txn)
            states[txn.sequence + 1] = dict(txn)

    commit(lambda txn: txn.update({b"key %03d" % i: b"old %d" % i for i in range(160)}))
    store.flush()
    commit(lambda txn: txn.clear(b"key 0"))
    commit(_change_much)
    store._freeze().maintenance.flush()
    in_tables = store.sequence
    commit(lambda txn: txn.put(b"key 101", b"sealed"))
    commit(lambda txn: txn.clear(b"key 11"))
    store._freeze()
    for i in range(4):
        commit(lambda txn, i=i: txn.update({b"last": b"%d" % i * 40, b"log %d" % i: b"here"}))
    killed = disk.crash(random.Random(0), keep="all")
    store.close()
    ever = {pair for held in states.values() for pair in held.items()}
    return Made(killed, {at: held for at, held in states.items() if at >= in_tables}, ever)


def _change_much(txn: Transaction) -> None:
    txn.update({b"key %03d" % i: b"new %d " % i * 9 for i in range(100, 220, 2)})
    txn.put(b"long " * 220, b"a key too long for a slot")
    txn.put(b"value", b"too long for a slot, " * 800)
    txn.delete(b"key 111")


# Any file.


def fuzz_store(data: bytes) -> None:
    if len(data) < 2:
        return
    flags, which, program, disk = data[0], data[1], data[2:], made().copy()
    names = [name for name in disk.names("/db") if name != "LOCK"]
    for name in {names[which % len(names)], names[which // 16 % len(names)]}:
        path = f"/db/{name}"
        disk.set_contents(path, edited(disk.contents(path), program))
        if flags & MENDED:
            _mend(disk, name)
    true = None if flags & MENDED else made().states
    _salvage(disk, true)
    _read(disk, true, read_only=bool(flags & READ_ONLY))


def _mend(disk: SimulatedDisk, name: str) -> None:
    path = f"/db/{name}"
    data = disk.contents(path)
    if name == MANIFEST_NAME:
        disk.set_contents(path, mended_manifest(data[: data[:-1].rfind(b"\n") + 1]))
    elif name.endswith(".log"):
        logs = {file.name: file.log_id for file in Manifest.read(made().disk, "/db").logs}
        disk.set_contents(path, mended_log(data, logs[name]))
    else:
        disk.set_contents(path, mended_table(data))
        name_table(disk, name)


def _salvage(disk: SimulatedDisk, true: dict[int, Pairs] | None) -> None:
    with suppress(*TYPED):
        found = blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
        with blobkv.open("/new", fs=disk, read_only=True) as store, store.view() as txn:
            pairs = dict(txn)
            assert len(txn) <= found.entries
        if true is not None and found.sequence in true:
            assert pairs.items() <= true[found.sequence].items()
        with blobkv.open("/doubtful", fs=disk, read_only=True) as store, store.view() as txn:
            assert true is None or set(txn.items()) <= made().ever


def _read(disk: SimulatedDisk, true: dict[int, Pairs] | None, *, read_only: bool) -> None:
    with (
        suppress(*TYPED),
        blobkv.open("/db", fs=disk, create=False, read_only=read_only) as store,
    ):
        expected = None
        if true is not None:
            assert store.sequence in true, "a commit that was never made"
            expected = true[store.sequence]
        _ask_everything(store, expected)


def _ask_everything(store: Store, expected: Pairs | None) -> None:
    """Read in all ways, do all work, and read again; each call may fail, but not lie."""
    keys = [*next(iter(made().states.values())), *ABSENT]
    for work in (store.verify, store.flush, store.compact, lambda: store.backup("/copy")):
        _ask(store, keys, expected)
        with suppress(*TYPED):
            work()
    _ask(store, keys, expected)
    with suppress(*TYPED), store.update() as txn:
        txn.put(b"new", b"")
    if isinstance(store._source, Writer):
        assert store._source.failure is None or isinstance(store._source.failure, TYPED)


def _ask(store: Store, keys: list[bytes], expected: Pairs | None) -> None:
    with suppress(*TYPED), store.view() as txn:
        for key in keys:
            with suppress(*TYPED):
                value = txn.get(key)
                assert expected is None or value == expected.get(key), key
        for low, high in ((None, None), (b"key 10", b"key 12"), (b"key 15", None)):
            _scan(txn, low, high, expected)
        with suppress(*TYPED):
            cursor = txn.cursor()
            assert cursor.seek(b"key 14") in {True, False}
            assert cursor.prev() in {True, False}
        with suppress(*TYPED):
            assert isinstance(txn.buckets(), list)
    with suppress(*TYPED):
        assert store.stats().table_count >= 0


def _scan(
    txn: Transaction, start: bytes | None, stop: bytes | None, expected: Pairs | None
) -> None:
    true = None if expected is None else sorted(_within(expected, start, stop))
    for reverse in (False, True):
        found: list[tuple[bytes, bytes]] = []
        with suppress(*TYPED):
            # What came before an error stays in it.
            found.extend(txn.items(start=start, stop=stop, reverse=reverse))
            assert true is None or found == (true[::-1] if reverse else true)
        if true is not None:
            assert found == (true[::-1] if reverse else true)[: len(found)]
    with suppress(*TYPED):
        count = len(txn.keys(start=start, stop=stop))
        assert true is None or count == len(true)


def _within(
    pairs: Pairs, start: bytes | None, stop: bytes | None
) -> Iterator[tuple[bytes, bytes]]:
    for key, value in pairs.items():
        if (start is None or key >= start) and (stop is None or key < stop):
            yield key, value


# A table, that the manifest names as it is.


@cache
def _tables() -> dict[str, tuple[int, ...]]:
    """The tables, and where in each something begins."""
    disk = made().disk
    found = {}
    for table in Manifest.read(disk, "/db").tables:
        data = disk.contents(f"/db/{table.name}")
        footer_at = len(data) - FOOTER_SIZE
        footer = decode_footer(data[footer_at:], footer_at, table.name)
        index = memoryview(data)[footer.index_offset : footer.ranges_offset]
        blocks = index[: 8 * footer.blocks].cast("Q").tolist()
        places = [
            *(block + more for block in blocks for more in (0, 4, 8, 12, 16, 20, 24)),
            *range(footer.hash_offset, footer.index_offset, 61),
            *range(footer.index_offset, footer.ranges_offset, 8),
            *range(footer.ranges_offset, footer_at, 4),
            *range(footer_at, len(data), 4),
        ]
        found[table.name] = tuple(places)
    return found


def fuzz_table(data: bytes) -> None:
    if len(data) < 2:
        return
    flags, program, disk = data[0], data[2:], made().copy()
    name = list(_tables())[1 if flags & SECOND else 0]
    changed = edited(disk.contents(f"/db/{name}"), program, _tables()[name])
    disk.set_contents(f"/db/{name}", mended_table(changed) if flags & MENDED else changed)
    name_table(disk, name)
    true = None if flags & MENDED else made().states
    _read(disk, true, read_only=bool(flags & READ_ONLY))


def name_table(disk: SimulatedDisk, name: str) -> None:
    """Have the manifest name the table as it is."""
    data = disk.contents(f"/db/{name}")
    if len(data) < FOOTER_SIZE:
        return
    crc = footer_crc(data[-FOOTER_SIZE:])
    with suppress(CorruptionError):
        manifest = Manifest.read(disk, "/db")
        tables = (
            table._replace(size=len(data), crc=crc, sha256=sha256(data).hexdigest())
            if table.name == name
            else table
            for table in manifest.tables
        )
        manifest = replace(manifest, tables=tuple(tables))
        disk.set_contents(f"/db/{MANIFEST_NAME}", manifest.encode())


# A log.


@cache
def _logs() -> tuple[LogFile, ...]:
    return Manifest.read(made().disk, "/db").logs


def fuzz_log(data: bytes) -> None:
    if len(data) < 2:
        return
    flags, program, disk = data[0], data[2:], made().copy()
    file = _logs()[1 if flags & SECOND else 0]
    path = f"/db/{file.name}"
    changed = edited(disk.contents(path), program)
    disk.set_contents(path, mended_log(changed, file.log_id) if flags & MENDED else changed)
    _read_log(disk, file, honest=not flags & MENDED)
    true = None if flags & MENDED else made().states
    _salvage(disk, true)
    with suppress(*TYPED), blobkv.open("/db", fs=disk, read_only=True) as store:
        assert true is None or store.sequence in true
        _ask(store, [b"last", b"log 0"], None if true is None else true[store.sequence])


def _read_log(disk: SimulatedDisk, file: LogFile, *, honest: bool) -> None:
    """Read it as recovery does, and as salvage does what is behind damage."""
    store_id = Manifest.read(made().disk, "/db").store_id
    with suppress(CorruptionError):
        reader = LogReader(disk, "/db", file, store_id)
        first = reader.sequence
        frames = [*reader.frames()]
        assert [frame.sequence for frame in frames] == [
            *range(first + 1, first + 1 + len(frames))
        ]
        reader.check_end()
    reader = LogReader(disk, "/db", file, None)
    beyond = [frame.sequence for frame in reader.frames_beyond()]
    assert not honest or set(beyond) <= {*made().states, max(made().states) + 1}
