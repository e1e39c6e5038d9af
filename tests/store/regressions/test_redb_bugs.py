"""What went wrong in redb goes right here: no file is promised more bytes than are durable."""

from __future__ import annotations

import random

import pytest
from support.operations import Done, record
from support.pairs import flush_only, pairs, put

import blobkv
from blobkv._engine.manifest import Manifest
from blobkv.testing import Keep, SimulatedDisk


@pytest.mark.usefixtures("small_pieces")
def test_a_manifest_names_only_files_that_were_durable_before_it() -> None:
    """Redb pull request #1276: a header reached the disk that counted on a longer file.

    The file was not longer yet, and nothing could be opened again. Here each file that a
    manifest names was synced, and its name too, after its last write and before the
    manifest's rename. Of a log that is its header; its commits come later.
    """
    disk = SimulatedDisk()
    named: list[tuple[int, set[str]]] = []
    done = record(disk)
    with blobkv.open("/db", fs=disk, memtable_size=3000) as store:
        for i in range(40):
            put(store, b"%d" % (i % 9), bytes(400))
            if i % 9 == 8:
                store.compact()
            renames = [
                at for at, what in enumerate(done) if what == Done("rename", "/db/MANIFEST")
            ]
            if not named or named[-1][0] != renames[-1]:
                named.append((renames[-1], Manifest.read(disk, "/db").names))

    assert len(named) > 10
    for renamed, names in named:
        for name in names:
            path = f"/db/{name}"
            before = done[:renamed]
            created = before.index(Done("create", path))
            synced = before.index(Done("sync", path))
            assert created < synced
            assert Done("sync_directory", "/db") in before[created:]
            if name.endswith(".tbl"):
                assert Done("append", path) not in before[synced:]


@pytest.mark.usefixtures("room_ahead")
@pytest.mark.parametrize("keep", ["none", "all", "random"])
def test_a_log_whose_growth_failed_is_opened_by_what_is_durable_of_it(keep: Keep) -> None:
    """Redb pull request #1276, for the file that grows here, the log.

    The sync of a commit, or of the room ahead, fails, so that the size may be behind the
    bytes, or ahead of them.
    """
    for fails in range(1, 12):
        disk = SimulatedDisk()
        store = blobkv.open("/db", fs=disk)
        put(store, b"table")
        flush_only(store)
        seen = 0

        def is_the_one(operation: str, path: str, fails: int = fails) -> bool:
            nonlocal seen
            seen += operation == "sync" and path.endswith(".log")
            return seen == fails

        disk.fail(when=is_the_one)
        acknowledged = [b"table"]
        with pytest.raises((OSError, blobkv.PoisonedError)):
            for i in range(30):
                put(store, b"%02d" % i, bytes(150))
                acknowledged.append(b"%02d" % i)
        assert list(pairs(store)) == sorted(acknowledged)
        for seed in range(5):
            with blobkv.open("/db", fs=disk.crash(random.Random(seed), keep=keep)) as survivor:
                found = set(pairs(survivor))
                assert set(acknowledged) <= found
                assert len(found) <= len(acknowledged) + 1
                assert survivor.verify().ok
                put(survivor, b"later")
        store.close()
