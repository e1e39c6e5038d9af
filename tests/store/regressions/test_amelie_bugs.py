"""What went wrong in Amelie goes right here: what stands behind the end of a log."""

from __future__ import annotations

import random

import pytest
from support.pairs import pairs, put

import blobkv
from blobkv.testing import SimulatedDisk

GARBAGE = {
    "a byte": b"\x07",
    "a zero": b"\0",
    "less than a header": b"\xb1" * 20,
    "zeroes": bytes(5000),
    "noise": random.Random(1).randbytes(5000),
    "the magic": b"\x0b\xb1" * 500,
}


def newest_log(disk: SimulatedDisk) -> str:
    return "/db/" + max(name for name in disk.names("/db") if name.endswith(".log"))


@pytest.mark.parametrize("garbage", GARBAGE)
@pytest.mark.parametrize("closed", [True, False])
def test_what_is_committed_behind_a_bad_tail_stays(garbage: str, *, closed: bool) -> None:
    """Amelie #17: commits were appended behind bad bytes, where the next replay ended."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"before")
    if closed:
        store.close()
    damaged = disk.crash(random.Random(0), keep="all")
    store.close()
    expected = {b"before": b"value"}
    for i in range(4):
        log = newest_log(damaged)
        damaged.set_contents(log, damaged.contents(log) + GARBAGE[garbage])
        with blobkv.open("/db", fs=damaged) as store:
            assert pairs(store) == expected
            assert store.verify().ok
            put(store, b"%d" % i)
            expected[b"%d" % i] = b"value"
            killed = damaged.crash(random.Random(0), keep="all")
        if not closed:
            damaged = killed
    with blobkv.open("/db", fs=damaged) as store:
        assert pairs(store) == expected


def test_a_last_commit_that_is_not_whole_is_no_reason_not_to_open() -> None:
    """Amelie #58: a log whose last record was a byte short kept the store from opening."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"first")
    whole = store.stats().log_size
    put(store, b"torn")
    log = newest_log(disk)
    data = disk.contents(log)
    for size in range(whole, len(data)):
        torn = disk.crash(random.Random(0), keep="all")
        torn.set_contents(log, data[:size])
        for _ in range(2):
            with blobkv.open("/db", fs=torn) as survivor:
                assert pairs(survivor) == {b"first": b"value"}
    store.close()
