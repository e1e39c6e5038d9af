"""One flipped bit anywhere in a store is harmless, or reported with its place; never a lie.

Method: a small store with two tables, a log, and a manifest is made once. For every byte of
every file, one bit is flipped on a copy, which is then opened, read whole, and verified. Only
three ends are allowed: the same entries as before; a `CorruptionError` that names the damaged
file; or, in the unsealed log of a killed store, a tail that is cut where nothing later says
that it was synced.
"""

from __future__ import annotations

import random

import pytest
from support import buckets
from support.fault_table import Note

import blobkv
from blobkv.errors import CorruptionError
from blobkv.testing import SimulatedDisk

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("room_ahead", "small_pieces")]


def make(*, close: bool) -> tuple[SimulatedDisk, list[buckets.Contents]]:
    """A store, and its contents after each commit that is in its log only, the oldest first."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    for table in range(2):
        with store.update() as txn:
            for i in range(3):
                txn.put(b"table %d %d" % (table, i), b"value")
            if table == 0:
                txn.put(b"x", b"to be cleared in the next table")
            else:
                assert txn.clear(b"x") == 1
            txn.delete(b"table 0 0")
        store.flush()
    states = []
    for i in range(4):
        with store.view() as txn:
            states.append(buckets.dump(txn))
        with store.update() as txn:
            txn.bucket("log").put(b"%d" % i, b"in the log")
    with store.view() as txn:
        states.append(buckets.dump(txn))
    if close:
        store.close()
        return disk, states
    killed = disk.crash(random.Random(0), keep="all")
    store.close()
    return killed, states


def flips(disk: SimulatedDisk) -> list[tuple[str, int]]:
    names = [name for name in disk.names("/db") if name not in {"LOCK", "BALLAST"}]
    assert {name.rpartition(".")[2] for name in names} == {"log", "tbl", "MANIFEST"}
    return [(name, at) for name in names for at in range(len(disk.contents(f"/db/{name}")))]


def flipped(disk: SimulatedDisk, name: str, at: int) -> SimulatedDisk:
    copy = disk.crash(random.Random(0), keep="all")
    data = bytearray(copy.contents(f"/db/{name}"))
    data[at] ^= 1 << at % 8
    copy.set_contents(f"/db/{name}", bytes(data))
    return copy


def read(disk: SimulatedDisk, *, read_only: bool) -> tuple[buckets.Contents, list[str]]:
    """Everything in the store, by scan and by point reads, and what verify complains of."""
    with blobkv.open("/db", fs=disk, create=False, read_only=read_only) as store:
        with store.view() as txn:
            contents = buckets.dump(txn)
            for path, pairs in contents.items():
                entries = buckets.entries_at(txn, path)
                assert all(entries.get(key) == value for key, value in pairs.items())
            assert txn.get(b"table 0 0") is None
            assert txn.get(b"x") is None
        return contents, [problem.path for problem in store.verify().problems]


def judge(
    disk: SimulatedDisk, *, read_only: bool
) -> tuple[buckets.Contents, list[str]] | CorruptionError:
    try:
        return read(disk, read_only=read_only)
    except CorruptionError as error:
        return error


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("close", [False, True])
@pytest.mark.usefixtures("clear_by_range")
def test_every_byte(tried: Note, *, close: bool, read_only: bool) -> None:
    disk, states = make(close=close)
    points = flips(disk)
    refused = cut = 0
    for name, at in points:
        outcome = judge(flipped(disk, name, at), read_only=read_only)
        if isinstance(outcome, CorruptionError):
            assert outcome.path == name, f"{name}+{at:#x}: {outcome}"
            refused += 1
            continue
        contents, problems = outcome
        if contents == states[-1]:
            # Harmless to these reads; verify must still see it wherever it is kept.
            assert problems in ([name], []) or set(problems) == {name}
            assert problems or name.endswith(".log"), f"{name}+{at:#x} was not noticed"
        else:
            assert not close, f"{name}+{at:#x}: a sealed log lost a commit"
            assert name.endswith(".log")
            assert contents == states[-2], f"{name}+{at:#x}: more than the last commit is gone"
            cut += 1
    assert refused > len(points) // 2
    assert close or cut > 0
    tried("bit flipped, store opened and read", len(points))


def value_or_path(txn: blobkv.Transaction, key: bytes) -> bytes | str | None:
    try:
        return txn.get(key)
    except CorruptionError as error:
        return error.path


@pytest.mark.slow
def test_some_bits_of_a_larger_store(tried: Note) -> None:
    rng = random.Random(11)
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk, memtable_size=200_000) as store:
        for _ in range(12):
            with store.update() as txn:
                txn.update(
                    {b"%06d" % rng.randrange(9000): rng.randbytes(90) for _ in range(800)}
                )
        with store.view() as txn:
            pairs = dict(txn)
    places = [
        (name, rng.randrange(len(disk.contents(f"/db/{name}"))))
        for name in rng.choices([n for n in disk.names("/db") if n.endswith(".tbl")], k=60)
    ]
    for name, at in places:
        damaged = flipped(disk, name, at)
        with blobkv.open("/db", fs=damaged, read_only=True) as store:
            problems = store.verify().problems
            assert {problem.path for problem in problems} == {name}
            with store.view() as txn:
                for key, value in pairs.items():
                    assert value_or_path(txn, key) in {value, name}
        blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=damaged)
        with blobkv.open("/new", fs=damaged) as store, store.view() as txn:
            assert txn.items() <= pairs.items()
            # A block, and in older tables what lies beside it.
            assert len(pairs) - len(txn) < len(pairs) // 10
    tried("bit flipped in a larger store: read, verified, salvaged", len(places))
