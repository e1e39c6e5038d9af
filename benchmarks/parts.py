"""Print where blobkv's own time and memory go, part by part, for the findings of the page.

    python benchmarks/parts.py                 a million keys
    python benchmarks/parts.py --keys 20000

The store is made anew in a temporary directory under --root, and removed.
"""

from __future__ import annotations

import argparse
import os
import random
import tempfile
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

import inputs
from memory import children, peak_size

import blobkv
from blobkv.keys import prefix_end

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

PROJECT = Path(__file__).parents[1]
BATCH = 1000
COMMITS = 2000
READS = 50_000
HOT = 500
REPEATS = 3


def show(name: str, figure: float, unit: str = "us") -> None:
    """Print one figure."""
    print(f"{name:<50} {figure:8.2f} {unit}", flush=True)


def each(work: Callable[..., object], arguments: Sequence[tuple[object, ...]]) -> float:
    """Return what one call takes in microseconds, the best of some rounds."""
    best = float("inf")
    for _ in range(REPEATS):
        began = time.perf_counter_ns()
        for those in arguments:
            work(*those)
        best = min(best, (time.perf_counter_ns() - began) / len(arguments) / 1000)
    return best


class Peaks(threading.Thread):
    """Watches the largest child of this process until it is stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.largest = 0
        self._stopped = threading.Event()

    def run(self) -> None:
        """Look, again and again."""
        while not self._stopped.wait(0.02):
            sizes = map(peak_size, children(os.getpid()))
            self.largest = max(self.largest, *sizes, 0)

    def stop(self) -> int:
        """Return the peak of the largest, in bytes."""
        self._stopped.set()
        self.join()
        return self.largest


def commits(directory: Path) -> None:
    """A durable commit, and the sync in it."""
    with blobkv.open(directory) as store:
        began = time.perf_counter_ns()
        for number in range(COMMITS):
            with store.update() as txn:
                txn.put(inputs.key(number), bytes(100))
        took = time.perf_counter_ns() - began
        stats = store.stats()
    show("durable commit", took / COMMITS / 1000)
    show("  of it the sync", stats.sync_ns / stats.syncs / 1000)


def load(directory: Path, keys: int) -> None:
    """A load in scattered order: who works, who waits, and how much is merged."""
    order = list(range(keys))
    random.Random(1).shuffle(order)
    bare, watch = peak_size(), Peaks()
    watch.start()
    spent = 0
    with blobkv.open(directory) as store:
        before = os.times()
        for at in range(0, keys, BATCH):
            pairs = [(inputs.key(i), inputs.value(i, 100)) for i in order[at : at + BATCH]]
            began = time.thread_time_ns()
            with store.update() as txn:
                for key, value in pairs:
                    txn.put(key, value)
            spent += time.thread_time_ns() - began
        stalled = store.stats().stall_ns
        store.compact()
        stats = store.stats()
    after = os.times()
    show("load, a pair: this thread's processor time", spent / keys / 1000)
    show("  waiting for flushes and merges", stalled / keys / 1000)
    child = sum(after[2:4]) - sum(before[2:4])
    show("  the child's processor time, settling included", child * 1e6 / keys)
    show("  tables merged, by what was loaded", stats.merge_written / stats.log_written, "x")
    show("  peak memory of this process", (peak_size() - bare) / (1 << 20), "MiB")
    show("  peak memory of the child", watch.stop() / (1 << 20), "MiB")


def reads(directory: Path, keys: int) -> None:
    """Gets and prefix scans, hot and random, and their parts."""
    rng = random.Random(2)
    some = range(min(READS, keys))
    found = [(inputs.key(rng.randrange(keys)),) for _ in some]
    absent = [(inputs.key(keys + rng.randrange(keys)),) for _ in some]
    prefixes = [(inputs.prefix(rng.randrange(max(keys // inputs.GROUP, 1))),) for _ in some]
    stored = [(b"\x00" + prefix, prefix_end(b"\x00" + prefix)) for (prefix,) in prefixes]
    with blobkv.open(directory) as store, store.view() as txn:
        for name, arguments in (("get", found), ("get of a missing key", absent)):
            show(f"{name}, random", each(txn.get, arguments))
            show(f"{name}, of {HOT} keys", each(txn.get, hot(arguments)))
        show("  the CRC of a key", each(crc32, found))
        show("get in a view of its own", each(lambda key: read(store, key), found))

        def scan(prefix: bytes) -> object:
            return list(txn.items(prefix=prefix))

        show("prefix scan of ten, random", each(scan, prefixes))
        show("  making the view of items", each(lambda p: txn.items(prefix=p), prefixes))
        run = txn._scope.reader._tables.runs[0]
        tables = [(run._within(*bounds)[0], *bounds) for bounds in stored]
        show("  reading the range", each(run.read_short, stored))
        search = each(lambda table, *bounds: table.block_index.span(*bounds), tables)
        show("    search in the block index", search)
        blocks = [(table, table.block_index.span(*bounds)[0]) for table, *bounds in tables]
        show("    decoding a block", each(lambda table, i: table._block(i, 0), blocks))


def read(store: blobkv.Store, key: bytes) -> bytes | None:
    """A get in a view of its own."""
    with store.view() as txn:
        return txn.get(key)


def hot(arguments: Sequence[tuple[bytes]]) -> list[tuple[bytes]]:
    """As many, of a few keys."""
    few = list(arguments[:HOT])
    return few * max(len(arguments) // len(few), 1)


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--keys", type=int, default=1_000_000)
    parser.add_argument("--root", type=Path, default=PROJECT / ".cache/benchmarks")
    options = parser.parse_args(arguments)
    options.root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=options.root) as scratch:
        commits(Path(scratch, "commits"))
        load(Path(scratch, "load"), options.keys)
        reads(Path(scratch, "load"), options.keys)


if __name__ == "__main__":
    main()
