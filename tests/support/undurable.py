"""A process that makes changes which need not be durable, and waits to be killed.

    python -m support.undurable STORE SEED

It prints the number of the last.
"""

from __future__ import annotations

import sys

from support import history

import blobkv


def main(path: str, seed: int) -> None:
    store = blobkv.open(path)
    for _ in range(5):
        with store.update(durable=False) as txn:
            number = history.advance(txn, seed)
    print(number, flush=True)
    sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
