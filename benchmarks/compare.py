"""How fast is blobkv beside py-lmdb and SQLite, at the same durability?

Four questions: one durable commit of one pair; a load in durable transactions of 1,000; a
random get within one view; a scan of everything. Keys are 71 bytes in random order, values
100. Gets and scans are on the store reopened after the load.

Each engine runs in a process of its own, the engines take turns round by round, and a table
of best times and ratios is printed: a ratio above 1 means that blobkv was faster. Run it on
the disk that matters; in memory (tmpfs) a sync costs nothing and the commits say nothing.

    python benchmarks/compare.py [--keys 200000] [--rounds 3] [--directory .cache]
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

import harness
from engines import ENGINES
from harness import Figure, checksum, key, pairs, timed

BATCH = 1000
TASKS = ("durable commit", "load, a key", "random get", "scan, a key")


@dataclass(frozen=True, slots=True)
class Round:
    """What one process measured: nanoseconds an operation, and a checksum, for each task."""

    times: dict[str, float]
    fingerprint: int


def measure(name: str, directory: Path, keys: int) -> Round:
    """Do all the work with one engine, in this process."""
    commits, gets = max(1, keys // 200), keys
    engine = ENGINES[name](directory / name)
    times: dict[str, float] = {}

    singles = [[pair] for pair in pairs(keys, keys + commits)]
    elapsed, _ = timed(lambda: [engine.commit(single) for single in singles])
    times[TASKS[0]] = elapsed / commits

    batches = [list(pairs(at, min(at + BATCH, keys))) for at in range(0, keys, BATCH)]
    elapsed, _ = timed(lambda: [engine.commit(batch) for batch in batches])
    times[TASKS[1]] = elapsed / keys
    engine.close()

    engine = ENGINES[name](directory / name)
    wanted = random.Random(0).choices([key(number) for number in range(keys)], k=gets)
    elapsed, values = timed(lambda: engine.get(wanted))
    times[TASKS[2]] = elapsed / gets
    elapsed, order = timed(engine.scan)
    times[TASKS[3]] = elapsed / (keys + commits)
    engine.close()
    return Round(times, checksum(values) ^ checksum(chain.from_iterable(order)))


def measure_apart(name: str, directory: Path, keys: int) -> Round:
    """The same in a process of its own, on an empty directory."""
    with tempfile.TemporaryDirectory(dir=directory) as empty:
        command = [sys.executable, __file__, "--one", name, "--directory", empty]
        done = subprocess.run(
            [*command, "--keys", str(keys)], check=True, stdout=subprocess.PIPE
        )
    return Round(**json.loads(done.stdout))


def compare(directory: Path, *, keys: int, rounds: int) -> str:
    """Measure every engine and return the table."""
    found: dict[str, list[Round]] = {name: [] for name in ENGINES}
    for _ in range(rounds):
        for name, results in found.items():
            results.append(measure_apart(name, directory, keys))
    fingerprints = {result.fingerprint for results in found.values() for result in results}
    assert len(fingerprints) == 1, f"the engines did different work: {fingerprints}"
    rows = [["", *ENGINES, *(f"{name}/blobkv" for name in ENGINES if name != "blobkv")]]
    for task in TASKS:
        figures = {
            name: Figure(tuple(result.times[task] for result in results))
            for name, results in found.items()
        }
        ours = figures["blobkv"].best
        ratios = [f"{f.best / ours:.2f}" for name, f in figures.items() if name != "blobkv"]
        rows.append([task, *map(str, figures.values()), *ratios])
    head = f"{keys} keys, best of {rounds} rounds, fingerprint {fingerprints.pop():#010x}"
    return f"{head}\n{harness.table(rows)}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--keys", type=int, default=200_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--directory", type=Path, default=Path(".cache"))
    parser.add_argument("--one", choices=ENGINES, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        result = measure(options.one, options.directory, options.keys)
        print(json.dumps({"times": result.times, "fingerprint": result.fingerprint}))
    else:
        options.directory.mkdir(parents=True, exist_ok=True)
        print(compare(options.directory, keys=options.keys, rounds=options.rounds))


if __name__ == "__main__":
    main()
