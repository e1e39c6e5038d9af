"""One fixed run of a store that does a little of everything, and what must survive of it.

The run is the same every time, so that its file operations can be counted once and the
power cut, or an error injected, at each of them. `Trace` follows along outside the disk.

The oracle is RocksDB's: the survivors are the state after some commit, with no hole, and
that commit is at or past the last one acknowledged as durable.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support import buckets

import blobkv

if TYPE_CHECKING:
    from collections.abc import Callable

    from support.buckets import Contents

    from blobkv import Store, Transaction
    from blobkv.testing import SimulatedDisk

ROOT = "/of/the/db"


@dataclass
class Trace:
    """What the run tried and what it was promised.

    Attributes:
        states: The contents after each commit, the one in flight included.
        durable: The last state that was acknowledged as durable, by its index.
    """

    states: list[Contents] = field(default_factory=lambda: [{}])
    durable: int = 0

    def commit(
        self, store: Store, fill: Callable[[Transaction], object], *, durable: bool = True
    ) -> None:
        with store.update(durable=durable) as txn:
            fill(txn)
            txn.put(b"commit", b"%d" % len(self.states))
            # From here on it may survive, though nobody was told yet.
            self.states.append(buckets.dump(txn))
        if durable:
            self.settle()

    def settle(self) -> None:
        """Everything committed so far was acknowledged as durable."""
        self.durable = len(self.states) - 1

    def accepts(self, survivors: Contents) -> bool:
        return survivors in self.states[self.durable :]


def run(disk: SimulatedDisk, trace: Trace, memtable_size: int = 1 << 16) -> None:
    """Run the whole workload; leave it to the caller what to do when it breaks off.

    With a `memtable_size` of a few thousand bytes, logs are rotated all the time and a thread
    flushes and compacts beside the commits: then the order of operations is not fixed.
    """
    with open_store(disk, memtable_size) as store:
        for i in range(4):
            trace.commit(store, lambda txn, i=i: _mixed(txn, i))
        trace.commit(store, lambda txn: txn.put(b"quick", b"1"), durable=False)
        trace.commit(store, lambda txn: txn.put(b"quick", b"2"), durable=False)
        store.sync()
        trace.settle()
        store.flush()
        trace.commit(store, _overwrite)
        trace.commit(store, lambda txn: txn.bucket("many").clear(b"k"))
        store.flush()
        store.compact()
        trace.commit(store, lambda txn: txn.put(b"quick", b"3"), durable=False)
    trace.settle()
    with open_store(disk, memtable_size) as store:
        trace.commit(store, lambda txn: txn.delete_bucket("inner"))
        store.compact()
        trace.commit(store, lambda txn: _mixed(txn, 9))


def open_store(disk: SimulatedDisk, memtable_size: int = 1 << 16) -> Store:
    return blobkv.open(ROOT, fs=disk, memtable_size=memtable_size)


def _mixed(txn: Transaction, i: int) -> None:
    txn.put(b"key/%d" % i, b"%d" % i * 300)
    txn.delete(b"key/%d" % (i - 2))
    txn.bucket("inner", b"\x00\xff").put(b"%d" % i, b"nested")
    # So many that clearing them is one range tombstone.
    for j in range(80):
        txn.bucket("many").put(b"k%d" % j, b"%d.%d" % (i, j))


def _overwrite(txn: Transaction) -> None:
    for j in range(0, 80, 2):
        txn.bucket("many").put(b"k%d" % j, b"over")
        txn.bucket("many").put(b"z%d" % j, b"over")
