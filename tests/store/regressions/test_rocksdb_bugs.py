"""What went wrong in RocksDB goes right here: failed manifests, holes, and deleted ranges."""

from __future__ import annotations

import errno
import random
from collections.abc import Callable
from contextlib import suppress
from itertools import count

import pytest
from support.operations import record
from support.pairs import Pairs, after, flush_only, merge, pairs, put

import blobkv
from blobkv import Store
from blobkv.errors import PoisonedError
from blobkv.testing import Keep, Operation, SimulatedDisk

STEPS: dict[str, Callable[[Operation, str], bool]] = {
    "append": lambda operation, path: operation == "append" and "MANIFEST" in path,
    "sync": lambda operation, path: operation == "sync" and "MANIFEST" in path,
    "rename": lambda operation, path: operation == "rename" and "MANIFEST" in path,
}


def two_tables_and_a_log(disk: SimulatedDisk) -> Store:
    store = blobkv.open("/db", fs=disk)
    for i in range(3):
        with store.update() as txn:
            txn.update({b"%d/%d" % (i, j): bytes(20) for j in range(30)})
            txn.delete(b"%d/7" % (i - 1))
        if i < 2:
            flush_only(store)
    return store


@pytest.mark.parametrize("keep", ["none", "all", "random"])
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("work", [Store.flush, Store.compact])
@pytest.mark.parametrize("step", [*STEPS, "sync of the directory"])
def test_files_of_a_manifest_that_failed_are_there_whichever_is_found(
    step: str, work: Callable[[Store], None], code: int, keep: Keep
) -> None:
    """RocksDB #4990, #6316: a manifest whose sync had failed was there after the restart.

    It named files that had been removed because of the failure. Here the store goes on as far
    as it does; then comes the crash.
    """
    disk = SimulatedDisk()
    store = two_tables_and_a_log(disk)
    expected = pairs(store)
    if step in STEPS:
        disk.fail(code, when=STEPS[step])
    else:
        renamed: list[str] = []

        def right_after_the_rename(operation: Operation, path: str) -> bool:
            if operation == "rename":
                renamed.append(path)
            return operation == "sync_directory" and bool(renamed)

        disk.fail(code, when=right_after_the_rename)
    with pytest.raises(OSError, match=errno.errorcode[code]):
        work(store)
    disk.heal()
    poisoned = store._source.tree.poisoned
    assert poisoned == (step in {"rename", "sync of the directory"})
    with suppress(PoisonedError):
        work(store)
        put(store, b"later")
        expected[b"later"] = b"value"
        assert not poisoned

    for seed in range(4):
        assert after(disk, keep, seed) == expected
    with suppress(PoisonedError):
        store.close()
    with blobkv.open("/db", fs=disk) as store:
        assert pairs(store) == expected


@pytest.mark.parametrize("keep", ["none", "all"])
def test_a_recovery_gives_no_number_that_one_before_it_has_used(keep: Keep) -> None:
    """RocksDB pull request #7607: a recovery reused a number that an unsynced manifest named.

    The first recovery fails at each of its operations, the second comes after a crash or on the
    same machine; a file that the first has left, or that its manifest names, is never written
    again.
    """
    disk = SimulatedDisk()
    store = two_tables_and_a_log(disk)
    expected = pairs(store)
    killed = disk.crash(random.Random(0), keep="all")
    store.close()
    for operation in count(1):
        first = killed.crash(random.Random(0), keep="all")
        first.fail(at=operation, kept_size=20)
        try:
            blobkv.open("/db", fs=first).close()
        except (OSError, PoisonedError):
            failed = True
        else:
            failed = first.operations >= operation
        first.heal()
        left = {name: first.contents(f"/db/{name}") for name in first.names("/db")}
        for second in (first, first.crash(random.Random(0), keep=keep)):
            done = record(second)
            with blobkv.open("/db", fs=second) as store:
                assert pairs(store) == expected
                assert store.verify().ok
            written = {what.path for what in done if what.operation == "create"}
            assert not {f"/db/{name}" for name in left if name.endswith(".tbl")} & written
        if not failed:
            break
    assert operation > 8


def test_survivors_are_a_prefix_however_few_commits_were_to_be_durable() -> None:
    """RocksDB's lost and recovered writes of 2022: a later write survived, an earlier did not.

    One in seven commits asks to be durable, logs are changed now and then, and after each
    commit the power might go.
    """
    rng = random.Random(5)
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    durable = 0
    for number in range(1, 60):
        asked = number % 7 == 0
        put(store, b"%03d" % number, bytes(rng.randrange(700)), durable=asked)
        if number % 13 == 0:
            store._freeze()
        if number % 20 == 0:
            store.flush()
        if asked or number % 13 == 0 or number % 20 == 0:
            durable = number
        for seed in range(3):
            found = list(after(disk, "random", seed))
            assert found == [b"%03d" % i for i in range(1, len(found) + 1)]
            assert len(found) >= durable
    store.close()


@pytest.mark.usefixtures("clear_by_range")
def test_a_cleared_range_between_two_pieces_stays_cleared() -> None:
    """RocksDB #3039: a range tombstone in the gap between two output files was in neither.

    Their keys: A and B make one file, D and F the next, and C to E is deleted. What it hides is
    in an older table, which is not merged. Each piece holds one key.
    """
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys([b"c", b"ca", b"cz", b"dz", b"e", b"g"], b"old"))
        flush_only(store)
        # Each larger than a block.
        new = {key: key * 5000 for key in (b"a", b"b", b"d", b"f")}
        with store.update() as txn:
            assert txn.clear(b"c") == 3
            assert txn.clear(b"dz") == 1
            txn.update({key: new[key] for key in (b"a", b"b", b"d")})
        flush_only(store)
        with store.update() as txn:
            txn.update({key: new[key] for key in (b"b", b"f")})
        flush_only(store)
        expected = new | {b"e": b"old", b"g": b"old"}
        assert pairs(store) == expected
        merge(store, 0, 2, piece_size=100)

        assert len(store._source.layers.tables) > 3
        assert pairs(store) == expected
        assert store.view().get(b"ca") is None
        store.compact()
        assert pairs(store) == expected
    assert after(disk) == expected


@pytest.mark.usefixtures("small_pieces", "clear_by_range")
@pytest.mark.parametrize("seed", range(12))
def test_no_merge_changes_what_is_seen_where_ranges_were_cleared(seed: int) -> None:
    """RocksDB #2722, #2752, #2833, #2989: merges brought keys of deleted ranges back.

    Or they took others away. Here are layers of puts, deletes, and cleared ranges over few
    keys, then merges of whichever neighbors, in pieces of a few keys. Views of every layer
    stay open.
    """
    rng = random.Random(seed)
    keys = [b"%03d" % i for i in range(300)]
    expected: Pairs = {}
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        views = []
        for layer in range(8):
            with store.update() as txn:
                start = b"%02d" % rng.randrange(30)
                txn.clear(start[: rng.randrange(1, 3)])
                for key in rng.sample(keys, 40):
                    txn.put(key, b"%d" % layer * 300)
                for key in rng.sample(keys, 20):
                    txn.delete(key)
                expected = dict(txn)
            flush_only(store)
            views.append((store.view(), expected))
        pieces = 0
        for _ in range(10):
            size = len(store._source.layers.tables)
            if size < 2:
                break
            first = rng.randrange(size - 1)
            last = rng.randrange(first + 2, size + 1)
            merge(store, first, last, piece_size=rng.choice([200, 500, 3000]))
            pieces += len(store._source.layers.tables) - (size - (last - first))
            assert pairs(store) == expected
            assert [store.view().get(key) for key in keys] == [expected.get(k) for k in keys]
        assert pieces > 10
        assert all(dict(view) == then for view, then in views)
        assert store.verify().ok
