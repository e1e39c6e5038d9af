"""Many threads, one order: every history could have been run one call after another.

Method: threads make random calls on a few keys: updates that commit or roll back, batches that
return or raise, and views. Each notes when it began and ended, and what it read and wrote; only
of a roll-back nothing is noted, since what it read may not be durable yet. Short histories are
judged by a search that knows nothing of the store; long ones by the order that a counted key
tells, and so is a reader that follows. Beside them logs are rotated, tables flushed and merged.
The judges themselves are shown histories that no order explains.
"""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import pytest
from support.histories import Call, Value, check_counted, check_followed, linearizes

import blobkv
from blobkv import Store, Transaction
from blobkv.testing import SimulatedDisk

pytestmark = pytest.mark.usefixtures("small_pieces")

KEYS = ["a", "b", "c"]
COUNTER = "n"
TIMEOUT_SECONDS = 60.0


@pytest.fixture
def often_switched() -> Iterator[None]:
    """Have the interpreter switch threads at every chance it has."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Oops(Exception):
    """What a failing block raises."""


def read(txn: Transaction, keys: list[str]) -> dict[str, Value]:
    values = {key: txn.get(key.encode()) for key in keys}
    return {key: None if value is None else int(value) for key, value in values.items()}


def write(txn: Transaction, changes: dict[str, Value]) -> None:
    for key, value in changes.items():
        if value is None:
            txn.delete(key.encode())
        else:
            txn.put(key.encode(), b"%d" % value)


class Client:
    """One thread's random calls, and what came of them.

    Args:
        store: What it writes to and reads from.
        seed: Decides the calls.
        clock: What all clients share.
        counted: Whether each call reads the counter, and each that writes counts it up.
    """

    def __init__(self, store: Store, seed: int, clock: Iterator[int], *, counted: bool) -> None:
        self.calls: list[Call] = []
        self._store = store
        self._rng = random.Random(seed)
        self._values = count(seed * 1_000_000 + 1)
        self._clock = clock
        self._counted = counted

    def call(self) -> None:
        if self._rng.random() < 0.1:
            self.roll_back()
            return
        kind = self._rng.choice([self.update, self.batch, self.failing_batch, self.view])
        began = next(self._clock)
        reads, writes = kind()
        self.calls.append(Call(began, next(self._clock), reads, writes))

    def update(self) -> tuple[dict[str, Value], dict[str, Value]]:
        with self._store.update(durable=self._rng.random() < 0.7) as txn:
            return self._change(txn)

    def roll_back(self) -> None:
        with self._store.update() as txn:
            self._change(txn)
            txn.rollback()

    def batch(self) -> tuple[dict[str, Value], dict[str, Value]]:
        return self._store.batch(self._change)

    def failing_batch(self) -> tuple[dict[str, Value], dict[str, Value]]:
        read: list[dict[str, Value]] = []

        def fail(txn: Transaction) -> None:
            read.append(self._change(txn)[0])
            raise Oops

        with pytest.raises(Oops):
            self._store.batch(fail)
        return read[0], {}

    def view(self) -> tuple[dict[str, Value], dict[str, Value]]:
        with self._store.view() as txn:
            return self._look(txn), {}

    def _look(self, txn: Transaction) -> dict[str, Value]:
        reads = read(txn, self._chosen())
        sequence = txn.sequence
        assert read(txn, list(reads)) == reads, "a view reads the same twice"
        assert txn.sequence == sequence
        return reads

    def _change(self, txn: Transaction) -> tuple[dict[str, Value], dict[str, Value]]:
        reads = read(txn, self._chosen())
        writes: dict[str, Value] = {
            key: None if self._rng.random() < 0.2 else next(self._values)
            for key in self._rng.sample(KEYS, self._rng.randrange(1, 3))
        }
        if self._counted:
            writes[COUNTER] = (reads[COUNTER] or 0) + 1
        write(txn, writes)
        txn.put(b"padding %d" % self._rng.randrange(20), bytes(150))
        return reads, writes

    def _chosen(self) -> list[str]:
        keys = self._rng.sample(KEYS, self._rng.randrange(1, 4))
        return [*keys, COUNTER] if self._counted else keys


def recorded(
    store: Store, seed: int, clock: Iterator[int], threads: int, calls: int, *, counted: bool
) -> list[Call]:
    """Let so many threads make so many calls each; return all that is to be judged."""
    clients = [Client(store, seed * 100 + i, clock, counted=counted) for i in range(threads)]
    together = threading.Barrier(threads, timeout=TIMEOUT_SECONDS)

    def run(client: Client) -> None:
        together.wait()
        for _ in range(calls):
            client.call()

    with ThreadPoolExecutor(threads) as pool:
        for future in [pool.submit(run, client) for client in clients]:
            future.result(TIMEOUT_SECONDS)
    return [call for client in clients for call in client.calls]


def follow(disk: SimulatedDisk, clock: Iterator[int], done: threading.Event) -> list[Call]:
    """Open views of a read-only store, one after another, until the others are done."""
    views = []
    with blobkv.open("/db", fs=disk, read_only=True) as follower:
        while not done.is_set():
            began = next(clock)
            with follower.view() as txn:
                reads = read(txn, [*KEYS, COUNTER])
            views.append(Call(began, next(clock), reads))
    return views


@pytest.mark.slow
@pytest.mark.usefixtures("often_switched")
def test_short_histories_are_linearizable() -> None:
    judged = overlaps = 0
    for seed in range(150):
        with blobkv.open("/db", fs=SimulatedDisk(), memtable_size=2048) as store:
            calls = recorded(store, seed, count(1), threads=6, calls=12, counted=False)
            assert store.verify().ok
        assert linearizes(calls), f"seed {seed}: {calls}"
        judged += len(calls)
        overlaps += sum(
            a.began < b.began < a.ended for a in calls for b in calls if a.writes and b.writes
        )
    print(f"{judged} calls in 150 histories, {overlaps} pairs of writes that overlap")
    assert overlaps > 100, "the calls ran one after another anyway"


@pytest.mark.slow
@pytest.mark.usefixtures("often_switched")
def test_long_histories_are_linearizable_and_who_follows_is_never_behind() -> None:
    judged = followed = 0
    for seed in range(4):
        disk, clock, done = SimulatedDisk(), count(1), threading.Event()
        with (
            blobkv.open("/db", fs=disk, memtable_size=4096) as store,
            ThreadPoolExecutor(2) as pool,
        ):
            followers = [pool.submit(follow, disk, clock, done) for _ in range(2)]
            try:
                calls = recorded(store, seed, clock, threads=6, calls=120, counted=True)
            finally:
                done.set()
            assert store.stats().flushes > 3
            assert store.verify().ok
        check_counted(calls)
        for views in (follower.result(TIMEOUT_SECONDS) for follower in followers):
            check_followed(calls, views)
            followed += len(views)
        judged += len(calls)
    print(f"{judged} calls and {followed} views from outside in 4 histories")
    assert followed > 100


# What the judges must refuse.


def lost_update() -> list[Call]:
    """Two count up from the same number."""
    return [
        Call(1, 4, {"n": None}, {"n": 1}),
        Call(2, 5, {"n": None}, {"n": 1}),
    ]


def stale_read() -> list[Call]:
    """One that began after the write had ended does not see it."""
    return [Call(1, 2, {"n": None}, {"n": 1, "a": 1}), Call(3, 4, {"n": None, "a": None})]


def torn_read() -> list[Call]:
    """One sees half of another's writes."""
    return [
        Call(1, 9, {"n": None}, {"n": 1, "a": 1, "b": 1}),
        Call(2, 3, {"n": 1, "a": 1, "b": None}),
    ]


def backward_read() -> list[Call]:
    """A write under way is seen, and by a later reader not."""
    return [
        Call(1, 9, {"n": None}, {"n": 1, "a": 1}),
        Call(2, 3, {"n": 1, "a": 1}),
        Call(4, 5, {"n": None, "a": None}),
    ]


def deleted_read() -> list[Call]:
    """A deleted key is back."""
    return [
        Call(1, 2, {"n": None}, {"n": 1, "a": 1}),
        Call(3, 4, {"n": 1}, {"n": 2, "a": None}),
        Call(5, 6, {"n": 2, "a": 1}),
    ]


REFUSED = [lost_update, stale_read, torn_read, backward_read, deleted_read]


@pytest.mark.parametrize("history", REFUSED)
def test_a_history_that_no_order_explains_is_refused(
    history: Callable[[], list[Call]],
) -> None:
    assert not linearizes(history())
    with pytest.raises(AssertionError):
        check_counted(history())


def test_a_follower_that_is_behind_or_shows_half_is_refused() -> None:
    calls = [
        Call(1, 4, {"n": None}, {"n": 1, "a": 1}),
        Call(5, 8, {"n": 1}, {"n": 2, "a": None}),
    ]

    check_followed(calls, [Call(2, 3, {"n": None}), Call(6, 7, {"n": 2, "a": None})])
    for views in (
        [Call(5, 6, {"n": None})],
        [Call(6, 7, {"n": 2}), Call(8, 9, {"n": 1})],
        [Call(6, 7, {"n": 2, "a": 1})],
        [Call(2, 3, {"n": 2})],
    ):
        with pytest.raises(AssertionError):
            check_followed(calls, views)


def test_a_history_that_an_order_explains_is_accepted() -> None:
    calls = [
        Call(1, 8, {"n": None}, {"n": 1, "a": 1}),
        Call(2, 9, {"n": 1, "a": 1}, {"n": 2, "a": None}),
        Call(3, 4, {"n": None, "a": None}),
        Call(5, 6, {"n": 1, "a": 1}),
        Call(7, 10, {"n": 2, "a": None}),
    ]

    assert linearizes(calls)
    check_counted(calls)


def test_a_call_of_which_nothing_is_known_may_have_happened_at_any_time_or_not() -> None:
    unknown = Call(1, 2, {"a": None}, {"a": 1}, known=False)

    assert linearizes([unknown, Call(3, 4, {"a": None})])
    assert linearizes([unknown, Call(3, 4, {"a": 1})])
    assert linearizes([unknown, Call(3, 4, {"a": None}), Call(5, 6, {"a": 1})])
    assert not linearizes([unknown, Call(3, 4, {"a": 1}), Call(5, 6, {"a": None})])
