"""Whatever becomes of one caller of `batch`, each other one gets its own outcome, once.

Method: a caller that waits is a call in the queue; here it is put there by hand, with no
thread behind it, and the test's own call leads. Interrupts come at each place in turn where
the interpreter takes one.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest
from support.interrupts import Interrupts

import blobkv
from blobkv import Store, Transaction
from blobkv.batch import _Call
from blobkv.errors import PoisonedError
from blobkv.testing import SimulatedDisk


@pytest.fixture
def store() -> Iterator[Store]:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        yield store


def waiting(store: Store, fn: Callable[[Transaction], object]) -> _Call[object]:
    """Queue a call as a caller does that waits for the write lock."""
    call = _Call(fn)
    store._batches._waiting.append(call)
    return call


def put(key: bytes) -> Callable[[Transaction], bytes]:
    def fn(txn: Transaction) -> bytes:
        txn.put(key, b"")
        return key

    return fn


def keys(store: Store) -> list[bytes]:
    with store.view() as txn:
        return list(txn)


@pytest.mark.parametrize("raised", [asyncio.CancelledError, SystemExit, LookupError])
def test_what_a_function_raises_reaches_its_own_caller_only(
    store: Store, raised: type[BaseException]
) -> None:
    def fail(txn: Transaction) -> None:
        txn.put(b"failed", b"")
        raise raised

    failing, other = waiting(store, fail), waiting(store, put(b"other"))

    assert store.batch(put(b"leader")) == b"leader"
    assert other.outcome() == b"other"
    with pytest.raises(raised):
        failing.outcome()
    assert keys(store) == [b"leader", b"other"]


def test_an_interrupt_of_the_leader_leaves_nobody_waiting_and_calls_nobody_twice() -> None:
    for place in count(1):
        store = blobkv.open("/db", fs=SimulatedDisk())
        calls: list[Transaction] = []
        other = waiting(store, calls.append)
        interrupts = Interrupts(place)
        with suppress(KeyboardInterrupt), interrupts.watching():
            store.batch(put(b"leader"))

        assert not store._write_lock.locked()
        told, called = other.done.is_set(), len(calls)
        try:
            store.batch(put(b"next leader"))
            assert other.done.is_set(), "somebody waits for ever"
        except PoisonedError:
            # Who still waits for the lock finds it out by itself.
            assert told or other in store._batches._waiting
        assert not told or len(calls) == called, "called after its caller was told"
        assert len(calls) == 1 or other.error is not None or not other.done.is_set()
        with suppress(PoisonedError):
            store.close()
        if interrupts.met < place:
            break
    assert place > 50


def while_it_waits(store: Store, happens: Callable[[], object]) -> None:
    """Have that happen once, when the next caller waits for the write lock."""
    begin = store._batches._begin

    def begin_late() -> object:
        store._batches._begin = begin
        happens()
        return begin()

    store._batches._begin = begin_late


def lead_in_a_thread(store: Store) -> None:
    thread = threading.Thread(target=store.batch, args=(put(b"leader"),))
    thread.start()
    thread.join()


def test_an_interrupted_caller_is_interrupted_though_a_leader_has_made_its_call(
    store: Store,
) -> None:
    def interrupt() -> None:
        lead_in_a_thread(store)
        raise KeyboardInterrupt

    while_it_waits(store, interrupt)

    with pytest.raises(KeyboardInterrupt):
        store.batch(put(b"mine"))
    assert keys(store) == [b"leader", b"mine"]


def test_a_caller_whose_call_was_made_hands_the_lock_on_and_leads_nobody(store: Store) -> None:
    late: list[_Call[object]] = []

    def overtake() -> None:
        lead_in_a_thread(store)
        late.append(waiting(store, put(b"late")))

    while_it_waits(store, overtake)

    assert store.batch(put(b"mine")) == b"mine"
    assert not late[0].done.is_set(), "its own caller leads it, and may be quicker"
    assert store.batch(put(b"next")) == b"next"
    assert late[0].outcome() == b"late"
