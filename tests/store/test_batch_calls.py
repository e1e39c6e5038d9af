"""Whatever becomes of one caller of `batch`, each other one gets its own outcome, once.

Method: a caller that waits is a call in the leader's round; here it is put there by hand, with
no thread behind it, and the test's own call leads. Interrupts come at each place in turn where
the interpreter takes one.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest
from support.interrupts import Interrupts

import blobkv
from blobkv import Store, Transaction
from blobkv.batch import _Call, _commit, _Round
from blobkv.errors import InterruptedCommit, PoisonedError, UsageError
from blobkv.testing import SimulatedDisk


@pytest.fixture
def store() -> Iterator[Store]:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        yield store


def joining(store: Store, *fns: Callable[[Transaction], object]) -> _Round:
    """Have these calls join the round that the next caller opens; return it, to be filled."""
    batches = store._batches
    begin = batches._begin
    joined = _Round(_Call(lambda _: None))

    def begin_joined() -> object:
        batches._begin = begin
        opened = batches._joining
        assert opened is not None
        opened.calls += map(_Call, fns)
        joined.__dict__ = opened.__dict__
        return begin()

    batches._begin = begin_joined
    return joined


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

    joined = joining(store, fail, put(b"other"))

    assert store.batch(put(b"leader")) == b"leader"
    _, failing, other = joined.calls
    assert other.outcome(joined.error) == b"other"
    with pytest.raises(raised):
        failing.outcome(joined.error)
    assert keys(store) == [b"leader", b"other"]


def test_a_commit_that_fails_fails_every_caller() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        store.batch(put(b"old"))
        disk.fail(errno.ENOSPC, when=lambda operation, _: operation == "append")
        joined = joining(store, put(b"other"))
        with pytest.raises(OSError, match="ENOSPC"):
            store.batch(put(b"leader"))

        with pytest.raises(OSError, match="ENOSPC"):
            joined.calls[1].outcome(joined.error)
        assert keys(store) == [b"old"]


def test_an_interrupt_of_the_leader_leaves_nobody_waiting_and_calls_nobody_twice() -> None:
    for place in count(1):
        store = blobkv.open("/db", fs=SimulatedDisk())
        calls: list[Transaction] = []
        joined = joining(store, calls.append)
        interrupts = Interrupts(place)
        with suppress(KeyboardInterrupt), interrupts.watching():
            store.batch(put(b"leader"))

        store._batches._begin = store._begin
        assert not store._write_lock.locked()
        assert not store._batches._turn.locked()
        assert store._batches._joining is None
        if len(joined.calls) > 1:
            assert not joined.ended.locked(), "somebody waits for ever"
            other = joined.calls[1]
            # Or else it has been called once, and its caller is told what became of it.
            assert not (other.waiting and calls), "it will be called once more"
            assert other.waiting or other.result or isinstance(joined.error, Exception)
        told = len(calls)
        with suppress(PoisonedError):
            assert store.batch(put(b"next leader")) == b"next leader"
        assert len(calls) == told <= 1
        with suppress(PoisonedError):
            store.close()
        if interrupts.met < place:
            break
    assert place > 50


class Ended:
    """The end of a round, at which something happens to who comes to wait for it."""

    def __init__(self, happens: Callable[[], object]) -> None:
        self._happens = [happens]

    def __enter__(self) -> None:
        while self._happens:
            self._happens.pop()()

    def __exit__(self, *_: object) -> None:
        pass


def opened(store: Store, happens: Callable[[_Round], object]) -> _Round:
    """Open a round as a leader does; that happens when another caller waits for its end."""

    def leave() -> None:
        store._batches._joining = None
        happens(led)

    led = _Round(_Call(put(b"leader")))
    led.ended = Ended(leave)
    store._batches._joining = led
    return led


def test_a_caller_interrupted_after_its_call_was_made_is_interrupted(store: Store) -> None:
    def interrupt(led: _Round) -> None:
        _commit(*store._begin(), led)
        raise KeyboardInterrupt

    opened(store, interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.batch(put(b"mine"))
    assert keys(store) == [b"leader", b"mine"]


def test_a_caller_interrupted_before_its_call_was_made_never_has_it_made(store: Store) -> None:
    def interrupt(_: _Round) -> None:
        raise KeyboardInterrupt

    led = opened(store, interrupt)
    with pytest.raises(KeyboardInterrupt):
        store.batch(put(b"mine"))
    _commit(*store._begin(), led)
    assert keys(store) == [b"leader"]


def test_a_caller_that_joined_too_late_leads_the_next_round(store: Store) -> None:
    def lead_without_it(led: _Round) -> None:
        mine = led.calls.pop()
        _commit(*store._begin(), led)
        led.calls.append(mine)

    opened(store, lead_without_it)
    assert store.batch(put(b"mine")) == b"mine"
    assert keys(store) == [b"leader", b"mine"]
    assert store.stats().commits == 2


def test_a_caller_whose_leader_was_interrupted_before_it_began_leads(store: Store) -> None:
    opened(store, lambda _: None)
    assert store.batch(put(b"mine")) == b"mine"
    assert keys(store) == [b"mine"]


def test_a_caller_whose_leader_was_interrupted_within_its_call_is_told(store: Store) -> None:
    def interrupt(txn: Transaction) -> None:
        txn.put(b"lost", b"")
        raise KeyboardInterrupt

    def lead(led: _Round) -> None:
        with pytest.raises(KeyboardInterrupt):
            _commit(*store._begin(), led)

    opened(store, lead)
    with pytest.raises(InterruptedCommit):
        store.batch(interrupt)
    assert keys(store) == []


def test_who_has_an_update_open_is_refused_before_it_waits(store: Store) -> None:
    led = opened(store, lambda _: pytest.fail("it would wait for itself"))
    with store.update(), pytest.raises(UsageError, match="has an update open"):
        store.batch(put(b"mine"))
    assert len(led.calls) == 1
