"""Stores that an older blobkv wrote stay readable, writable, and whole; newer ones are refused.

Method: copies of the directories in `tests/data` are opened in every way, and what they hold is
compared with what was noted when they were made. For the other direction the format version in
one file of a store is raised, with right checksums: every way in must refuse, say what to do,
and change nothing.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest
from support import buckets
from support.buckets import Contents
from support.command import run

import blobkv
from blobkv import Store
from blobkv._engine.table_format import FOOTER_SIZE
from blobkv.errors import CorruptionError

STORES = Path(__file__).parents[1] / "data" / "format-1"
NAMES = ["closed", "killed", "ranges", "buckets"]
ADVICE = "open it with the blobkv that wrote it"
LOG_HEADER_SIZE = TABLE_HEADER_SIZE = 64


def noted(name: str) -> Contents:
    contents: Contents = {}
    for path, key, value in json.loads((STORES / f"{name}.json").read_text()):
        names = tuple(bytes.fromhex(part) for part in path)
        buckets.put(contents, names, bytes.fromhex(key), bytes.fromhex(value))
    return contents


def shown(store: Store) -> Contents:
    """Everything, by scans, and by point reads."""
    with store.view() as txn:
        contents = buckets.dump(txn)
        for path, pairs in contents.items():
            entries = buckets.entries_at(txn, path)
            assert {key: entries.get(key) for key in pairs} == pairs
            assert list(entries.items(reverse=True)) == list(pairs.items())[::-1]
            assert len(entries) == len(pairs)
        return contents


def files(directory: Path) -> dict[str, bytes]:
    """All but the lock, which is no part of the store."""
    return {path.name: path.read_bytes() for path in directory.iterdir() if path.name != "LOCK"}


@pytest.fixture(params=NAMES)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def path(name: str, tmp_path: Path) -> Path:
    shutil.copytree(STORES / name, tmp_path / "db")
    return tmp_path / "db"


def test_an_old_store_is_read_and_not_changed(name: str, path: Path) -> None:
    before = files(path)
    with blobkv.open(path, read_only=True) as store:
        assert shown(store) == noted(name)
        assert store.verify().ok
        store.backup(path.parent / "copy")

    assert files(path) == before
    assert not (path / "LOCK").exists()
    with blobkv.open(path.parent / "copy") as copy:
        assert shown(copy) == noted(name)


def test_an_old_store_is_written_flushed_and_merged(name: str, path: Path) -> None:
    expected = noted(name)
    with blobkv.open(path, create=False) as store:
        sequence = store.sequence
        assert shown(store) == expected
        with store.update() as txn:
            txn.bucket("added")[b"key"] = b"value"
            buckets.put(expected, (b"added",), b"key", b"value")
            deleted = next(iter(expected[()] if () in expected else expected[b"log", b"inner"]))
            where = () if () in expected else (b"log", b"inner")
            buckets.entries_at(txn, where).delete(deleted)
            buckets.delete(expected, where, deleted)
        assert store.sequence == sequence + 1
    for work in (bool, Store.flush, Store.compact):
        with blobkv.open(path, create=False) as store:
            work(store)
            assert shown(store) == dict(sorted(expected.items()))
            assert store.verify().ok


def test_an_old_store_is_salvaged_whole(name: str, path: Path) -> None:
    before = files(path)

    found = blobkv.salvage(path, path.parent / "new", doubtful=path.parent / "doubtful")

    assert not found.problems
    assert found.doubtful == 0
    assert files(path) == before
    with blobkv.open(path.parent / "new", create=False) as store:
        assert shown(store) == noted(name)


def test_the_old_stores_are_what_they_are_here_for() -> None:
    """Each has what it was made to have; else the tests above show less than they seem to."""

    def opened(name: str) -> Store:
        return blobkv.open(STORES / name, read_only=True)

    with opened("closed") as store:
        assert len(store._source.manifest.logs) == 2
        assert store._source._tail.sealed
    with opened("killed") as store:
        tail = store._source._tail
        assert not tail.sealed
        (log,) = (STORES / "killed").glob("*.log")
        data = log.read_bytes()[tail.end.offset :]
        assert any(data[:100])
        assert not any(data[300:])
        assert len(data) > 1000
    with opened("ranges") as store:
        tables = store._source.layers.tables
        assert len(tables) == 4
        assert sum(bool(table.ranges) for table in tables) > 1
        assert sum(table.footer.tombstones for table in tables) > 30
        assert store._source.layers.active.ranges(store.sequence)
    with opened("buckets") as store, store.view() as txn:
        assert len(txn.buckets()) > 5
        sizes = {len(key) for key in txn.bucket("large")}
        assert 3000 in sizes
        assert 1014 in sizes
        assert len(txn.bucket("large")[b"value"]) == 16383


# The other direction.


def raise_manifest(path: Path) -> None:
    manifest = path / "MANIFEST"
    *lines, _ = manifest.read_bytes().splitlines(keepends=True)
    body = b"".join(lines).replace(b'"format": 1', b'"format": 2', 1)
    manifest.write_bytes(body + b'{"crc32": "%08x"}\n' % crc32(body))


def raised(header: bytes) -> bytes:
    """A header or footer whose version is 2."""
    body = header[:8] + (2).to_bytes(4, "little") + header[12:-4]
    return body + crc32(body).to_bytes(4, "little")


def raise_log(path: Path) -> None:
    log = max(path.glob("*.log"))
    data = log.read_bytes()
    log.write_bytes(raised(data[:LOG_HEADER_SIZE]) + data[LOG_HEADER_SIZE:])


def raise_table(path: Path) -> None:
    table = max(path.glob("*.tbl"))
    data = table.read_bytes()
    table.write_bytes(raised(data[:TABLE_HEADER_SIZE]) + data[TABLE_HEADER_SIZE:])


def raise_footer(path: Path) -> None:
    """As `raise_table`; the manifest has the checksum of the footer."""
    table = max(path.glob("*.tbl"))
    data = table.read_bytes()
    footer = raised(data[-FOOTER_SIZE:])
    table.write_bytes(data[:-FOOTER_SIZE] + footer)


RAISES = [raise_manifest, raise_log, raise_table, raise_footer]


@pytest.mark.parametrize("raise_version", RAISES)
def test_a_store_of_a_newer_format_is_refused_with_advice(
    path: Path, raise_version: Callable[[Path], None]
) -> None:
    raise_version(path)
    before = files(path)

    for options in ({}, {"create": False}, {"read_only": True}):
        with pytest.raises(CorruptionError, match=ADVICE):
            blobkv.open(path, **options)
    assert files(path) == before
    if raise_version is not raise_footer:
        # It is the first bytes of a file that say of which format it is.
        with pytest.raises(CorruptionError, match=ADVICE):
            blobkv.salvage(path, path.parent / "new")
        assert not (path.parent / "new").exists()
        assert files(path) == before
    done = run(path, "scan")
    assert done.exit_code != 0
    assert ADVICE in done.stderr
    assert files(path) == before
