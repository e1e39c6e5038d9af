"""What a store tells in numbers adds up to what was done to it."""

from __future__ import annotations

import blobkv
from blobkv.testing import SimulatedDisk


def test_writing_is_amplified_by_what_flushes_and_merges_write() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        new = store.stats()
        for value in (b"old", b"new"):
            with store.update() as txn:
                txn.put(b"key", value)
            store.flush()
        store.compact()
        stats = store.stats()

    assert new.write_amplification == 1.0
    assert (stats.commits, stats.flushes, stats.compactions) == (2, 2, 1)
    assert stats.table_written == stats.table_size * 3
    assert stats.write_amplification == 1 + stats.table_written / stats.log_written
