"""Ctrl-C anywhere in any call costs that call, never a commit that was acknowledged.

Method: each call of the store is made once for each place where an interrupt may come, and is
interrupted there, while a reader follows. The store then goes on as far as it will; after that
the power is cut, and the store is closed and opened again.
"""

from __future__ import annotations

import random
import signal
import sys
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest
from support.actions import ACTIONS, DURABLE, fill, go_on, keys, open_store, put
from support.fault_table import Note
from support.interrupts import Interrupts

import blobkv
from blobkv.errors import PoisonedError
from blobkv.testing import SimulatedDisk

pytestmark = pytest.mark.slow


def was_interrupted(action: str, place: int) -> bool:
    """Run the action, interrupted at that place if it has so many; judge what is left."""
    disk = SimulatedDisk()
    store = open_store(disk, action)
    reader = blobkv.open("/db", fs=disk, read_only=True)
    seen: set[bytes] = set()
    interrupts = Interrupts(place, first=lambda: seen.update(keys(reader)))
    with suppress(KeyboardInterrupt), interrupts.watching():
        ACTIONS[action](store)
        assert interrupts.met < place, "the interrupt was swallowed"

    acknowledged = DURABLE | go_on(store)
    assert store._closed or store.stats().views == 0
    for keep in ("none", "all"):
        after = disk.crash(random.Random(place), keep=keep)
        with blobkv.open("/db", fs=after) as survivor:
            assert survivor.verify().ok
            assert acknowledged <= keys(survivor)
            assert keep == "none" or seen <= keys(survivor), "what a reader saw is gone"
    with suppress(PoisonedError):
        store.close()
    with blobkv.open("/db", fs=disk) as store:
        assert acknowledged | seen <= keys(store)
        put(store, b"last")
        assert store.verify().ok
        assert keys(reader) == keys(store)
    reader.close()
    return interrupts.met >= place


@pytest.mark.parametrize("action", ACTIONS)
def test_an_interrupt_anywhere_loses_no_acknowledged_commit(action: str, tried: Note) -> None:
    for place in count(1):
        if not was_interrupted(action, place):
            break
    assert place > 20
    tried("interrupt anywhere in a call", place)


def test_an_update_that_was_interrupted_and_goes_on_is_still_in_order() -> None:
    def change(txn: blobkv.Transaction) -> None:
        txn.put(b"b", b"")
        txn.bucket("new").put(b"a", b"")
        assert len(list(txn)) == 3

    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        for place in count(1):
            interrupts = Interrupts(place)
            with store.update() as txn:
                txn.update({b"a": b"", b"c": b""})
                assert list(txn) == [b"a", b"c"]
                with suppress(KeyboardInterrupt), interrupts.watching():
                    change(txn)
                assert list(txn) in ([b"a", b"c"], [b"a", b"b", b"c"])
                change(txn)
                txn.rollback()
            if interrupts.met < place:
                break
    assert place > 20


def killed(disk: SimulatedDisk) -> None:
    """Leave a store on the disk whose log could not be synced when it was closed."""
    store = blobkv.open("/db", fs=disk)
    fill(store)
    disk.fail(when=lambda operation, path: operation == "sync" and path.endswith(".log"))
    with pytest.raises(OSError, match="EIO"):
        store.close()


def test_an_interrupt_anywhere_in_a_recovery_loses_nothing() -> None:
    for place in count(1):
        disk = SimulatedDisk()
        killed(disk)
        interrupts = Interrupts(place)
        with suppress(KeyboardInterrupt), interrupts.watching():
            store = blobkv.open("/db", fs=disk)
        if interrupts.met < place:
            break
        after = disk.crash(random.Random(place), keep="none")
        with blobkv.open("/db", fs=after) as store:
            assert keys(store) >= DURABLE
            assert store.verify().ok
        with blobkv.open("/db", fs=disk) as store:
            assert keys(store) == DURABLE | {b"not durable"}
    assert place > 100
    store.close()


# A descriptor that nobody has yet is closed by the interpreter, and it says so.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_interrupt_anywhere_in_an_open_leaves_no_claim(tmp_path: Path) -> None:
    """On the real file system, where a claim is a descriptor that somebody must close."""
    blobkv.open(tmp_path / "db").close()
    for place in count(1):
        interrupts = Interrupts(place)
        with suppress(KeyboardInterrupt), interrupts.watching():
            store = blobkv.open(tmp_path / "db")
        if interrupts.met < place:
            break
        blobkv.open(tmp_path / "db").close()
    assert place > 100
    store.close()


def test_no_signal_leaves_the_write_lock_held_or_is_lost(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Real signals, also where a profile function is not called: as a lock is taken."""
    lost: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", lost.append)
    rng = random.Random(0)
    struck = 0
    armed = False

    def strike(*_: object) -> None:
        if armed:
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, strike)
    store = blobkv.open("/db", fs=SimulatedDisk())

    def update_for_ever() -> None:
        # In a function: an update that somebody can still end holds the lock for him.
        while True:
            with store.update(durable=False) as txn:
                txn.get(b"k")

    try:
        while struck < 3000:
            armed = True
            try:
                signal.setitimer(signal.ITIMER_REAL, rng.uniform(2e-6, 2e-4))
                update_for_ever()
            except KeyboardInterrupt:
                armed = False
                struck += 1
            assert not store._write_lock.locked()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    store.close()

    assert not lost
