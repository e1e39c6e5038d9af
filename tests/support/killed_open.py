"""A process that opens a store and is killed before the Nth change that this makes to the disk.

    python -m support.killed_open STORE N

If the open needs fewer than N, it prints the number of the last change that the store showed,
and is killed then.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys

from support import history

import blobkv
from blobkv._engine import fs

_CHANGES = {"fdatasync", "fsync", "ftruncate", "pwrite", "rename", "unlink"}


def main(path: str, number: int) -> None:
    calls = itertools.count(1)

    def count(frame, event, called):  # noqa: ANN001, ANN202  # As `sys.setprofile` calls it.
        if event != "c_call" or frame.f_code.co_filename != fs.__file__:
            return
        if called.__name__ in _CHANGES and next(calls) == number:
            die()

    sys.setprofile(count)
    store = blobkv.open(path)
    sys.setprofile(None)
    with store.view() as txn:
        print(history.reached(txn), flush=True)
    die()


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
