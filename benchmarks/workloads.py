"""The workloads, for engines with a Python interface; `bbolt/workloads.go` says the same in Go.

Input is read and cut into keys before the clock starts, except for loads: those read their
file batch by batch within the measured time, since a whole load would not fit in memory. What
a workload reads goes into its fingerprint, outside the measured time.
"""

from __future__ import annotations

import os
import signal
import struct
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar, cast
from zlib import crc32

from inputs import KEY_SIZE, PREFIX_SIZE
from memory import peak_size
from task import Outcome

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from engines.engine import Batching, Engine, Pair
    from task import Task

    Open = Callable[[], Engine]

T = TypeVar("T")


def commits(open_engine: Open, task: Task) -> Outcome:
    """How long is a durable commit of one pair, with so many threads calling?"""
    engine = open_engine()
    pairs = list(read_pairs(task, "pairs"))
    if task.call == "batch":
        batch = cast("Batching", engine).batch

        def write(share: Sequence[Pair]) -> None:
            for pair in share:
                batch(pair)
    else:

        def write(share: Sequence[Pair]) -> None:
            for pair in share:
                engine.commit((pair,))

    start = threading.Barrier(task.threads + 1)

    def wait_and_write(share: Sequence[Pair]) -> None:
        start.wait()
        write(share)

    with ThreadPoolExecutor(task.threads) as pool:
        shares = [pairs[i :: task.threads] for i in range(task.threads)]
        futures = [pool.submit(wait_and_write, share) for share in shares]
        start.wait()
        elapsed, _ = timed(lambda: [future.result() for future in futures])
    fingerprint = everything(engine)
    engine.close()
    return Outcome({"commit": elapsed / len(pairs)}, fingerprint)


def load(open_engine: Open, task: Task) -> Outcome:
    """What does a pair cost to load in durable batches, and to settle afterwards?"""
    engine = open_engine()
    record = struct.Struct(f"{KEY_SIZE}s{task.value_size}s")
    began = time.perf_counter_ns()
    with Path(task.inputs["pairs"]).open("rb") as file:
        while chunk := file.read(record.size * task.batch):
            engine.commit(list(record.iter_unpack(chunk)))
    loaded = time.perf_counter_ns()
    engine.settle()
    settled = time.perf_counter_ns()
    memory = peak_size()
    fingerprint = everything(engine)
    engine.close()
    times = {
        "written": (loaded - began) / task.keys,
        "settled": (settled - began) / task.keys,
    }
    return Outcome(times, fingerprint, memory)


def gets(open_engine: Open, task: Task) -> Outcome:
    """What does a random get cost: found, missing, and found in a view of its own?

    The first time, a get may pay for what the engine does once for each block.
    """
    engine = open_engine()
    hits = list(read(task, "hits", KEY_SIZE))
    misses = list(read(task, "misses", KEY_SIZE))
    first_time, first = timed(lambda: engine.get_each(hits))
    hit_time, found = timed(lambda: engine.get_each(hits))
    miss_time, missed = timed(lambda: engine.get_each(misses))
    get = engine.get
    apart_time, apart = timed(lambda: [get(key) for key in hits])
    engine.close()
    assert first == found == apart
    times = {
        "get, the first time": first_time / len(hits),
        "get": hit_time / len(hits),
        "get of a missing key": miss_time / len(misses),
        "get, a view each": apart_time / len(hits),
    }
    return Outcome(times, checksum(missed, checksum(found)))


def scans(open_engine: Open, task: Task) -> Outcome:
    """What does a pair cost in a scan, forward, in reverse, and in prefixes of ten?"""
    engine = open_engine()
    times = {}
    for name, reverse in (
        ("scan, the first time", False),
        ("scan", False),
        ("reverse scan", True),
    ):
        began = time.perf_counter_ns()
        with engine.scan(reverse=reverse) as pairs:
            touched = touch(pairs)
        times[name] = (time.perf_counter_ns() - began) / task.keys
        assert touched == task.keys * (KEY_SIZE + task.value_size)
    prefixes = list(read(task, "prefixes", PREFIX_SIZE))
    elapsed, touched = timed(lambda: sum(map(touch, engine.prefixes(prefixes))))
    times["prefix scan"] = elapsed / len(prefixes)
    fingerprint = crc32(b"%d" % touched, everything(engine))
    engine.close()
    return Outcome(times, fingerprint)


def mix(open_engine: Open, task: Task) -> Outcome:
    """What does an operation of a YCSB-like mix cost, every write a durable commit?"""
    engine = open_engine()
    record = struct.Struct(f"<cH{KEY_SIZE}s{task.value_size}s")
    calls = list(record.iter_unpack(Path(task.inputs["mix"]).read_bytes()))
    read_values: list[bytes | None] = []
    pages: list[list[Pair]] = []

    def run() -> None:
        for call, count, key, value in calls:
            if call == b"r":
                read_values.append(engine.get(key))
            elif call == b"s":
                pages.append(engine.page(key, count))
            else:
                engine.commit(((key, value),))

    elapsed, _ = timed(run)
    engine.close()
    fingerprint = checksum(read_values)
    for page in pages:
        fingerprint = checksum((part for pair in page for part in pair), fingerprint)
    return Outcome({"operation": elapsed / len(calls)}, fingerprint)


def churn(open_engine: Open, task: Task) -> Outcome:
    """How long are commits, and the longest, while pairs are overwritten for a time?"""
    engine = open_engine()
    pairs = list(read_pairs(task, "pairs"))
    batches = [pairs[i : i + task.batch] for i in range(0, len(pairs), task.batch)]
    clock = time.perf_counter_ns
    latencies = []
    began = now = clock()
    end = began + int(task.seconds * 1e9)
    for count, batch in enumerate(cycle(batches)):
        # Each value differs from the one before: SQLite writes nothing where it does not.
        stamp = b"%08d" % count
        engine.commit([(key, stamp + value[8:]) for key, value in batch])
        before, now = now, clock()
        latencies.append(now - before)
        if now >= end:
            break
    # Which values are left depends on how far it came.
    with engine.scan() as left:
        fingerprint = checksum(key for key, _ in left)
    engine.close()
    others = {"commits": len(latencies), "pairs a second": task.batch * len(latencies)}
    others["pairs a second"] /= (now - began) / 1e9
    latencies.sort()
    return Outcome(percentiles(latencies), fingerprint, others=others)


def opening(open_engine: Open, task: Task) -> Outcome:
    """How long until a store is open, and until its first get?"""
    wanted = next(read(task, "hits", KEY_SIZE))
    began = time.perf_counter_ns()
    engine = open_engine()
    opened = time.perf_counter_ns()
    found = engine.get(wanted)
    first = time.perf_counter_ns()
    engine.close()
    times = {"open": opened - began, "open and first get": first - began}
    return Outcome(times, checksum([found]))


def kill(open_engine: Open, task: Task) -> Outcome:
    """Write durable batches, then die without a word; `opening` then finds what they left."""
    engine = open_engine()
    pairs = list(read_pairs(task, "pairs"))
    for i in range(0, len(pairs), task.batch):
        engine.commit(pairs[i : i + task.batch])
    os.kill(os.getpid(), signal.SIGKILL)
    raise AssertionError("still alive")


WORKLOADS: dict[str, Callable[[Open, Task], Outcome]] = {
    work.__name__: work for work in (commits, load, gets, scans, mix, churn, opening, kill)
}


def read(task: Task, name: str, size: int) -> Iterator[bytes]:
    """Yield the records of an input."""
    data = Path(task.inputs[name]).read_bytes()
    return (data[at : at + size] for at in range(0, len(data), size))


def read_pairs(task: Task, name: str) -> Iterator[Pair]:
    """Yield the pairs of an input."""
    data = Path(task.inputs[name]).read_bytes()
    return cast("Iterator[Pair]", struct.iter_unpack(f"{KEY_SIZE}s{task.value_size}s", data))


def timed(work: Callable[[], T]) -> tuple[int, T]:
    """How long `work` took, in nanoseconds, and what it returned."""
    began = time.perf_counter_ns()
    result = work()
    return time.perf_counter_ns() - began, result


def touch(pairs: Iterable[Pair]) -> int:
    """Look at every key and value, and return how many bytes they have."""
    size = 0
    for key, value in pairs:
        size += len(key) + len(value)
    return size


def everything(engine: Engine) -> int:
    """A fingerprint of all that the store holds."""
    fingerprint = 0
    with engine.scan() as pairs:
        for key, value in pairs:
            fingerprint = crc32(value, crc32(key, fingerprint))
    return fingerprint


def checksum(parts: Iterable[bytes | None], start: int = 0) -> int:
    """A fingerprint of what was read."""
    for part in parts:
        start = crc32(b"-" if part is None else part, start)
    return start


def percentiles(latencies: Sequence[float]) -> dict[str, float]:
    """The latencies, sorted before, as their percentiles and the longest."""
    last = len(latencies) - 1
    marks = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999, "longest": 1.0}
    return {name: latencies[int(last * part)] for name, part in marks.items()}
