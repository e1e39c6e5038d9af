"""A process that writes history until it is killed, and says what it was promised.

    python -m support.history_writer STORE SEED [forget] [child]

Three threads make changes with `batch`, a fourth with everything else that a store takes. It
prints a line for each promise, from whichever thread it came:

    17                  change 17 survives from now on: a durable commit, a sync, or a view in a
                        read-only store showed it
    backup NAME         so does the backup beside the store

With `forget` nothing is ever synced, with `child` every table is written by a child process.
"""

from __future__ import annotations

import os
import random
import sys
import threading
from functools import partial
from pathlib import Path

import pytest
from support import history
from support.piece_sizes import set_piece_size

import blobkv
from blobkv import Store
from blobkv._engine import builder
from blobkv._engine.files import FileEnd, FileSystem, ReadableFile, WritableFile
from blobkv._engine.fs import OSFileSystem

# With the larger one, logs have room ahead.
MEMTABLE_SIZES = (8 << 10, 32 << 10)


class ForgetfulFileSystem(OSFileSystem):
    """The real file system, but what it is asked to sync it leaves to the kernel."""

    def create(self, path: str) -> WritableFile:
        return _without_sync(super().create(path))

    def open(self, path: str) -> ReadableFile:
        return _without_sync(super().open(path))

    def open_end(self, path: str) -> FileEnd:
        return _without_sync(super().open_end(path))

    def sync_directory(self, path: str) -> None:
        pass


def main(path: Path, seed: int, *flags: str) -> None:
    rng = random.Random(seed)
    set_piece_size(pytest.MonkeyPatch(), 6000)
    if "child" in flags:
        builder.CHILD_SIZE_MIN = 0
    fs: FileSystem | None = ForgetfulFileSystem() if "forget" in flags else None
    with (
        blobkv.open(path, memtable_size=rng.choice(MEMTABLE_SIZES), fs=fs) as store,
        blobkv.open(path, read_only=True, fs=fs) as reader,
    ):
        for _ in range(3):
            threading.Thread(target=write_batches, args=(store, seed), daemon=True).start()
        while True:
            act(store, reader, seed, rng)


def write_batches(store: Store, seed: int) -> None:
    while True:
        say(store.batch(partial(history.advance, seed=seed)))


def act(store: Store, reader: Store, seed: int, rng: random.Random) -> None:
    draw = rng.random()
    if draw < 0.6:
        say(write(store, seed))
    elif draw < 0.75:
        number = max(write(store, seed, durable=False) for _ in range(3))
        store.sync()
        say(number)
    elif draw < 0.9:
        with reader.view() as txn:
            say(history.reached(txn))
    elif draw < 0.95:
        store.flush()
    elif draw < 0.98:
        store.compact()
    else:
        name = f"backup-{rng.randrange(1 << 32):08x}"
        store.backup(store.path.with_name(name))
        say(f"backup {name}")


def write(store: Store, seed: int, *, durable: bool = True) -> int:
    with store.update(durable=durable) as txn:
        return history.advance(txn, seed)


def say(promise: object) -> None:
    # In one call, so that lines of two threads do not mix.
    os.write(sys.stdout.fileno(), f"{promise}\n".encode())


def _without_sync(file):  # noqa: ANN001, ANN202  # Any of the three kinds.
    file.sync = lambda: None
    return file


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
