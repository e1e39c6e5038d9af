"""Readers in other processes: whole states, in order, never behind, also when the writer dies.

Method: readers print what each of their views shows, with the time by a clock that all
processes share; writers print the same of their commits. State n follows from n alone, so that
a reader can judge by itself whether it was shown a whole state; the order of views and commits
is judged by the parent. One writer is killed again and again, and others come in its place.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

import blobkv

pytestmark = pytest.mark.slow

TIMEOUT_SECONDS = 60.0

WRITER = """
import sys, threading, time, blobkv

def change(txn):
    n = int(txn.get(b"n", b"0")) + 1
    txn.put(b"n", b"%d" % n)
    txn.bucket("copy").put(b"n", b"%d" % n)
    txn.put(b"k%d" % (n % 13), b"%d" % n * 30)
    if n % 100 == 0:
        # So many that it is a range tombstone.
        assert txn.bucket("many").clear() == 99
    else:
        txn.bucket("many").put(b"%d" % (n % 100), b"")
    return n

def commit(store, number):
    if number % 3:
        return store.batch(change)
    with store.update(durable=number % 2 == 0) as txn:
        return change(txn)

def write(store, lock):
    for number in range(1_000_000):
        began = time.monotonic_ns()
        n = commit(store, number)
        with lock:
            print(began, time.monotonic_ns(), n, flush=True)

with blobkv.open(sys.argv[1], memtable_size=16384, lock_timeout=30) as store:
    lock = threading.Lock()
    threads = [threading.Thread(target=write, args=(store, lock)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
"""

READER = """
import sys, time, blobkv

with blobkv.open(sys.argv[1], read_only=True) as store:
    sequence = 0
    for line in sys.stdin:
        for _ in range(20):
            began = time.monotonic_ns()
            with store.view() as txn:
                n = int(txn.get(b"n", b"0"))
                assert txn.sequence >= sequence, "the sequence went back"
                sequence = txn.sequence
                assert sequence <= n, "each commit counts up, a batch more than once"
                assert int(txn.bucket("copy").get(b"n", b"0")) == n
                for i in range(max(1, n - 12), n + 1):
                    assert txn[b"k%d" % (i % 13)] == b"%d" % i * 30
                assert len(txn.bucket("many")) == n % 100
                assert int(txn.get(b"n", b"0")) == n, "a view reads the same twice"
            print(began, time.monotonic_ns(), n, flush=True)
    print("done", flush=True)
"""


class Seen(NamedTuple):
    """A commit that was acknowledged, or a view: when, and of which state."""

    began: int
    ended: int
    n: int


def start(script: str, path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def parsed(lines: list[str]) -> list[Seen]:
    # A kill may cut the last line short.
    whole = [line for line in lines if line.endswith("\n") and line != "done\n"]
    return [Seen(*map(int, line.split())) for line in whole]


def read_some(process: subprocess.Popen[str], count: int) -> list[str]:
    assert process.stdout is not None
    return [process.stdout.readline() for _ in range(count)]


def go_on(reader: subprocess.Popen[str]) -> list[str]:
    """Have a reader open some more views; return what it prints of them."""
    assert reader.stdin is not None
    reader.stdin.write("go on\n")
    reader.stdin.flush()
    return read_some(reader, 20)


def kill(writer: subprocess.Popen[str]) -> list[str]:
    """Kill the writer; return what else it had acknowledged."""
    writer.kill()
    assert writer.stdout is not None
    # Not by `communicate`, which misses what `readline` has read ahead.
    rest = writer.stdout.readlines()
    for pipe in (writer.stdin, writer.stdout, writer.stderr):
        assert pipe is not None
        pipe.close()
    writer.wait(TIMEOUT_SECONDS)
    return rest


def end(reader: subprocess.Popen[str]) -> list[str]:
    """Have a reader come to its end, at which it has found nothing wrong."""
    out, errors = reader.communicate(timeout=TIMEOUT_SECONDS)
    assert errors == ""
    assert reader.returncode == 0
    assert out.endswith("done\n")
    return out.splitlines(keepends=True)


def judge(commits: list[Seen], views: list[Seen]) -> None:
    """No view is behind what was acknowledged before it, nor before the one before it."""
    by_end = sorted(commits, key=lambda commit: commit.ended)
    shown = acknowledged = at = 0
    for view in views:
        while at < len(by_end) and by_end[at].ended < view.began:
            acknowledged = max(acknowledged, by_end[at].n)
            at += 1
        assert view.n >= max(shown, acknowledged)
        shown = view.n


def test_readers_see_each_commit_in_order_beside_writers_that_are_killed(
    tmp_path: Path,
) -> None:
    path, rng = tmp_path / "db", random.Random(1)
    blobkv.open(path).close()
    readers = {start(READER, path): list[Seen]() for _ in range(2)}
    commits: list[Seen] = []

    def look() -> None:
        for reader, views in readers.items():
            views.extend(parsed(go_on(reader)))

    for kills in range(6):
        writer = start(WRITER, path)
        lines = read_some(writer, rng.randrange(20, 150))
        assert all(lines)
        look()
        rest = kill(writer) if kills % 2 else []
        # Beside the writer, or just after its death.
        look()
        commits += parsed(lines + (rest or kill(writer)))
        look()
        newest = max(commit.n for commit in commits)
        assert all(views[-1].n >= newest for views in readers.values())
    with blobkv.open(path) as store:
        assert store.verify().ok
        with store.view() as txn:
            last = int(txn[b"n"])
    look()
    for reader, views in readers.items():
        end(reader)
        assert views[-1].n == last
        judge(commits, views)

    numbers = [commit.n for commit in commits]
    assert len(set(numbers)) == len(numbers), "no number was given twice"
    print(f"{len(commits)} commits, {sum(map(len, readers.values()))} views, 6 kills")
