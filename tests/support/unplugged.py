"""A process whose disk goes away between two of its commits.

    python -m support.unplugged STORE SEED

It commits, prints the number of its last change, and waits for a line. Then it prints what its
next commits raise, the number of the change that it still shows, and what an open raises.
"""

from __future__ import annotations

import sys
from pathlib import Path

from support import buckets, history

import blobkv
from blobkv.errors import PoisonedError


def main(path: Path, seed: int) -> None:
    store = blobkv.open(path)
    for _ in range(20):
        number = commit(store, seed)
    store.flush()
    for _ in range(5):
        number = commit(store, seed)
    print(number, flush=True)
    sys.stdin.readline()

    for _ in range(3):
        try:
            print("committed", commit(store, seed))
        except (OSError, PoisonedError) as error:
            print(type(error).__name__)
    with store.view() as txn:
        contents = buckets.dump(txn)
    assert contents == history.replayed({}, seed, number)
    print("shown", history.number_of(contents))
    store.close()
    try:
        blobkv.open(path)
    except OSError as error:
        print(type(error).__name__)


def commit(store: blobkv.Store, seed: int) -> int:
    with store.update() as txn:
        return history.advance(txn, seed)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
