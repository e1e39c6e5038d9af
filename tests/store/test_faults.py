"""An error at any single file operation breaks that call, never the store.

Method: the fixed workload of `support.workload`, with one error injected at each of its file
operations: EIO once, ENOSPC once with half of the data written, and EIO from there on. The
run stops at the first error. Then the power is cut, and the survivors must be the state
after some commit that is not older than the last acknowledged one.

And: one call, with one error at any of its operations, reads included. There the store goes on,
and is held to what it acknowledges afterwards.
"""

from __future__ import annotations

import errno
import random
from contextlib import suppress
from functools import partial
from itertools import count

import pytest
from support import buckets
from support.actions import ACTIONS, DURABLE, go_on, keys, put
from support.actions import open_store as open_filled
from support.fault_table import Note
from support.workload import Trace, open_store, run

import blobkv
from blobkv.errors import PoisonedError
from blobkv.testing import SimulatedDisk

pytestmark = [
    pytest.mark.slow,
    pytest.mark.usefixtures("small_pieces"),
    # A background thread that met the error says so; the workload goes on without it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.mark.parametrize(
    ("code", "times"), [(errno.EIO, 1), (errno.ENOSPC, 1), (errno.EIO, None)]
)
def test_an_error_at_every_operation(code: int, times: int | None, tried: Note) -> None:
    rehearsal = SimulatedDisk()
    run(rehearsal, Trace())
    met = 0
    for number in range(1, rehearsal.operations + 1):
        disk, trace = SimulatedDisk(), Trace()
        disk.fail(code, when=partial(reached, disk, number), times=times, kept_size=100)
        try:
            run(disk, trace)
        except (OSError, PoisonedError):
            met += 1
        disk.heal()
        for seed in range(2):
            after = disk.crash(random.Random(seed))
            with open_store(after) as store:
                assert store.verify().ok
                with store.view() as txn:
                    assert trace.accepts(buckets.dump(txn)), f"operation {number}"
    assert met > rehearsal.operations // 2
    tried("EIO or ENOSPC at every operation of a run", rehearsal.operations)


def reached(disk: SimulatedDisk, number: int, _operation: str, _path: str) -> bool:
    return disk.operations >= number


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("action", ACTIONS)
def test_a_store_that_goes_on_after_an_error_loses_no_acknowledged_commit(
    action: str, code: int, tried: Note
) -> None:
    for operation in count(1):
        disk = SimulatedDisk()
        store = open_filled(disk, action)
        reader = blobkv.open("/db", fs=disk, read_only=True)
        asked = count(1)
        disk.fail(code, when=lambda *_: next(asked) == operation, kept_size=40)  # noqa: B023
        with suppress(OSError, PoisonedError):
            ACTIONS[action](store)
        reached = next(asked) > operation
        disk.heal()

        acknowledged = DURABLE | go_on(store)
        after = disk.crash(random.Random(operation), keep="none")
        with blobkv.open("/db", fs=after) as survivor:
            assert survivor.verify().ok
            assert acknowledged <= keys(survivor)
        with suppress(OSError, PoisonedError):
            store.close()
        with blobkv.open("/db", fs=disk) as store:
            assert store.verify().ok
            assert acknowledged <= keys(store)
            put(store, b"last")
            assert keys(reader) == keys(store)
            after = disk.crash(random.Random(operation), keep="none")
            with blobkv.open("/db", fs=after) as survivor:
                assert keys(survivor) == keys(store), "shown before, and lost after all"
        reader.close()
        if not reached:
            break
    tried("EIO or ENOSPC at every operation of one call, which goes on", operation)
