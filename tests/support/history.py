"""Changes that are numbered, so that what a store holds tells how far it came.

Each change is a pure function of its number and a seed, and puts its number into the store. So
what the store must hold after change n can be computed, by anybody, from what it held before;
nothing but the numbers has to be reported by the process that makes the changes.
"""

from __future__ import annotations

import random
from pathlib import Path as FilePath
from typing import NamedTuple

from support import buckets
from support.buckets import Contents, Path

import blobkv
from blobkv import Transaction

_NUMBER_PATH: Path = (b"history",)
_NUMBER_KEY = b"number"
_PATHS: tuple[Path, ...] = ((), (b"inner",), (b"inner", b"\x00\xff"), (b"\xfe",))
_KEYS = [b"%c%c" % pair for pair in [(a, b) for a in b"\x00a\xff" for b in range(100)]]
_SIZES = (0, 1, 20, 20, 20, 200, 200, 2000)


class Step(NamedTuple):
    """One call of a change: its name, the bucket it is made on, and its arguments."""

    call: str
    path: Path
    key: bytes = b""
    value: bytes = b""


def steps(seed: int, number: int) -> list[Step]:
    """Return what change `number` does."""
    rng = random.Random(f"{seed}/{number}")
    found = []
    for _ in range(rng.choice((1, 1, 2, 3, 30))):
        path, key = rng.choice(_PATHS), rng.choice(_KEYS)
        draw = rng.random()
        if draw < 0.8:
            found.append(Step("put", path, key, rng.randbytes(rng.choice(_SIZES))))
        elif draw < 0.975:
            found.append(Step("delete", path, key))
        elif draw < 0.99:
            # Of many keys or few: a range tombstone, or one for each key.
            found.append(Step("clear", path, key[: rng.choice((0, 1, 1))]))
        elif path:
            found.append(Step("delete_bucket", path))
    return found


def advance(txn: Transaction, seed: int) -> int:
    """Make the next change, and return its number."""
    number = reached(txn) + 1
    for call, path, key, value in steps(seed, number):
        if call == "put":
            buckets.entries_at(txn, path).put(key, value)
        elif call == "delete":
            buckets.entries_at(txn, path).delete(key)
        elif call == "clear":
            buckets.entries_at(txn, path).clear(key)
        else:
            txn.delete_bucket(*path)
    txn.bucket(*_NUMBER_PATH).put(_NUMBER_KEY, b"%d" % number)
    return number


def reached(txn: Transaction) -> int:
    """Return the number of the last change that the transaction sees; 0 if there is none."""
    return int(txn.bucket(*_NUMBER_PATH).get(_NUMBER_KEY, b"0"))


def number_of(contents: Contents) -> int:
    """Return the number of the last change in what was read from a store."""
    return int(contents.get(_NUMBER_PATH, {}).get(_NUMBER_KEY, b"0"))


def replayed(contents: Contents, seed: int, last: int) -> Contents:
    """Return what a store with these contents must hold after the changes up to `last`."""
    after = buckets.copy(contents)
    for number in range(number_of(contents) + 1, last + 1):
        for call, path, key, value in steps(seed, number):
            if call == "put":
                buckets.put(after, path, key, value)
            elif call == "delete":
                buckets.delete(after, path, key)
            elif call == "clear":
                buckets.clear(after, path, key)
            else:
                buckets.delete_bucket(after, path)
        buckets.put(after, _NUMBER_PATH, _NUMBER_KEY, b"%d" % number)
    return after


def read(path: FilePath) -> Contents:
    """Open the store that is there, verify it, and return all it holds."""
    with blobkv.open(path) as store:
        assert store.verify().problems == []
        with store.view() as txn:
            return buckets.dump(txn)


def survived(path: FilePath, seed: int) -> int:
    """Return up to which change the store holds the history, and nothing else."""
    contents = read(path)
    number = number_of(contents)
    assert contents == replayed({}, seed, number), f"not what change {number} left"
    return number
