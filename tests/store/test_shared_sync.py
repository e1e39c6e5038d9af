"""One sync serves all who wait for one; whatever becomes of it, nobody waits for ever.

Method: the log is a place that grows, and its sync waits at a gate that the test opens, so
that it is known who came before the sync began and who came after.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from itertools import count

import pytest
from support.interrupts import Interrupts

from blobkv._engine.shared_sync import SharedSync

TIMEOUT_SECONDS = 60


class GrowingLog:
    """As much of a log as a sync needs."""

    def __init__(self) -> None:
        self.end = 0
        self.synced = 0
        self.syncs = 0
        self.begun = threading.Semaphore(0)
        self.gate = threading.Semaphore(0)

    def sync(self) -> None:
        self.syncs += 1
        end = self.end
        self.begun.release()
        assert self.gate.acquire(timeout=TIMEOUT_SECONDS)
        self.synced = end

    def append(self) -> int:
        self.end += 1
        return self.end


@pytest.fixture
def log() -> GrowingLog:
    return GrowingLog()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


class Turn:
    """A turn that lets a test know when somebody waits for it."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.waits = threading.Semaphore(0)

    def __enter__(self) -> None:
        self.waits.release()
        assert self.lock.acquire(timeout=TIMEOUT_SECONDS)

    def __exit__(self, *_: object) -> None:
        self.lock.release()


def sync_under_way(
    pool: ThreadPoolExecutor, log: GrowingLog, shared: SharedSync, joining: int
) -> list[Future[None]]:
    """Have one thread sync, one wait to be next, and `joining` more in its round."""
    shared._turn = turn = Turn()
    done = [pool.submit(shared.through, log, log.append())]
    assert log.begun.acquire(timeout=TIMEOUT_SECONDS)
    assert turn.waits.acquire(timeout=TIMEOUT_SECONDS)
    done.append(pool.submit(shared.through, log, log.append()))
    assert turn.waits.acquire(timeout=TIMEOUT_SECONDS)
    ended = shared._joining
    assert ended is not None
    done += [pool.submit(shared.through, log, log.append()) for _ in range(joining)]
    return done


def test_one_sync_serves_all_who_came_before_it_began(
    log: GrowingLog, pool: ThreadPoolExecutor
) -> None:
    shared = SharedSync(GrowingLog.sync)
    first, *others = sync_under_way(pool, log, shared, joining=4)
    assert not any(future.done() for future in (first, *others))

    log.gate.release()
    first.result(TIMEOUT_SECONDS)
    assert log.begun.acquire(timeout=TIMEOUT_SECONDS)
    # Whoever had not come by then is served by a third.
    log.gate.release(2)
    for future in others:
        future.result(TIMEOUT_SECONDS)
    assert log.syncs <= 3
    assert log.synced == log.end


def test_who_is_durable_already_does_not_wait(log: GrowingLog) -> None:
    SharedSync(GrowingLog.sync).through(log, 0)
    assert log.syncs == 0


def test_a_sync_that_fails_fails_all_who_wait_for_it(
    log: GrowingLog, pool: ThreadPoolExecutor
) -> None:
    def fail(log: GrowingLog) -> None:
        log.sync()
        log.synced = 0
        raise OSError("refused")

    shared = SharedSync(fail)
    waiting = sync_under_way(pool, log, shared, joining=4)
    log.gate.release(len(waiting))
    for future in waiting:
        with pytest.raises(OSError, match="refused"):
            future.result(TIMEOUT_SECONDS)


def test_who_waits_for_one_that_is_interrupted_syncs_itself(
    log: GrowingLog, pool: ThreadPoolExecutor
) -> None:
    interrupted = []

    def sync(log: GrowingLog) -> None:
        log.sync()
        if not interrupted:
            interrupted.append(True)
            log.synced = 0
            raise KeyboardInterrupt

    waiting = sync_under_way(pool, log, SharedSync(sync), joining=4)
    log.gate.release(len(waiting))
    with pytest.raises(KeyboardInterrupt):
        waiting[0].result(TIMEOUT_SECONDS)
    for future in waiting[1:]:
        future.result(TIMEOUT_SECONDS)
    assert log.synced == log.end


def test_an_interrupt_anywhere_leaves_no_round_open() -> None:
    class Logged(GrowingLog):
        def sync(self) -> None:
            assert shared._joining is None, "nobody joins once the sync has begun"
            self.synced = self.end

    for place in count(1):
        log, shared = Logged(), SharedSync(Logged.sync)
        interrupts = Interrupts(place)
        with suppress(KeyboardInterrupt), interrupts.watching():
            shared.through(log, log.append())
        assert not shared._turn.locked()
        assert shared._joining is None
        if interrupts.met < place:
            break
    assert place > 3


def test_an_interrupted_waiter_leaves_the_others_waiting(
    log: GrowingLog, pool: ThreadPoolExecutor
) -> None:
    class Interrupted:
        def __enter__(self) -> None:
            raise KeyboardInterrupt

        def __exit__(self, *_: object) -> None:
            pass

    shared = SharedSync(GrowingLog.sync)
    waiting = sync_under_way(pool, log, shared, joining=1)
    ended, shared._joining = shared._joining, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        shared.through(log, log.end)
    shared._joining = ended
    log.gate.release(3)
    for future in waiting:
        future.result(TIMEOUT_SECONDS)


def test_an_interrupt_while_another_syncs_leaves_no_round_open(log: GrowingLog) -> None:
    """It comes as the one that would lead waits for its turn."""

    class Interrupted:
        def __enter__(self) -> None:
            raise KeyboardInterrupt

        def __exit__(self, *_: object) -> None:
            """Never entered."""

    shared = SharedSync(GrowingLog.sync)
    turn, shared._turn = shared._turn, Interrupted()
    with pytest.raises(KeyboardInterrupt):
        shared.through(log, log.append())
    assert shared._joining is None

    shared._turn = turn
    log.gate.release()
    end = log.append()
    shared.through(log, end)
    assert log.synced == end
