"""A store with layers of tables, deletes, cleared ranges, and logs, to be damaged."""

from __future__ import annotations

import random
from collections.abc import Callable

import blobkv
from blobkv.testing import SimulatedDisk

Pairs = dict[bytes, bytes]
KEYS = [b"key %03d" % number for number in range(400)]


def make() -> tuple[SimulatedDisk, list[Pairs]]:
    """A store in /db that was killed, and its contents after each commit."""
    disk = SimulatedDisk()
    rng = random.Random(5)
    states: list[Pairs] = [{}]
    store = blobkv.open("/db", fs=disk)

    def commit(change: Callable[[blobkv.Transaction], None]) -> None:
        with store.update() as txn:
            change(txn)
            states.append(dict(txn))

    def layer(txn: blobkv.Transaction) -> None:
        prefix = rng.choice(KEYS)[:-1]
        txn.clear(prefix)
        for key in rng.sample(KEYS, 120):
            if rng.random() < 0.3:
                txn.delete(key)
            else:
                txn.put(key, b"%06d" % rng.randrange(10**6) * 12)

    for _ in range(3):
        commit(layer)
        store._freeze().maintenance.flush()
    for i in range(3):
        commit(lambda txn, i=i: txn.put(KEYS[i], b"in a log"))
        store._freeze()
    for i in range(4):
        commit(lambda txn, i=i: txn.put(b"last", b"%d" % i * 40))
    killed = disk.crash(random.Random(0), keep="all")
    store.close()
    return killed, states


def shown(disk: SimulatedDisk, path: str) -> Pairs:
    with blobkv.open(path, fs=disk, create=False) as store:
        assert store.verify().ok
        with store.view() as txn:
            return dict(txn)
