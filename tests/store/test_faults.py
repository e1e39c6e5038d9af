"""An error at any single file operation breaks that call, never the store.

Method: the fixed workload of `support.workload`, with one error injected at each of its file
operations: EIO once, ENOSPC once with half of the data written, and EIO from there on. The
run stops at the first error. Then the power is cut, and the survivors must be the state
after some commit that is not older than the last acknowledged one.
"""

from __future__ import annotations

import errno
import random
from functools import partial

import pytest
from support import buckets
from support.workload import Trace, open_store, run

from blobkv.errors import PoisonedError
from blobkv.testing import SimulatedDisk

pytestmark = [
    pytest.mark.slow,
    # A background thread that met the error says so; the workload goes on without it.
    pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning"),
]


@pytest.mark.parametrize(
    ("code", "times"), [(errno.EIO, 1), (errno.ENOSPC, 1), (errno.EIO, None)]
)
def test_an_error_at_every_operation(code: int, times: int | None) -> None:
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


def reached(disk: SimulatedDisk, number: int, _operation: str, _path: str) -> bool:
    return disk.operations >= number
