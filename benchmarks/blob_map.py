"""The blob map over a snapshotter and a content store that are dicts: what the map costs.

Two snapshots stand for each blob, so every other removal deletes one. The Go program beside it
does what the original did on bbolt: see `bbolt/blobmap.go`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from zlib import crc32

from task import Outcome, Task
from workloads import timed

import blobkv
from blobmap import BlobSnapshotter

SHARED_BY = 2
version = blobkv.__version__


def blob_map(task: Task) -> Outcome:
    """What do set_blob, get_blob and remove cost, every change durable?"""
    # The fakes are the tests' own.
    sys.path.append(str(Path(__file__).parents[1] / "tests"))
    from support.fakes import FakeContentStore, FakeSnapshotter

    inner, content = FakeSnapshotter(), FakeContentStore()
    names = [f"layer {number}" for number in range(task.keys)]
    digests = [content.add_blob(b"%d" % (i // SHARED_BY)) for i in range(task.keys)]
    for name in names:
        inner.prepare(f"{name} active")
        inner.commit(name, f"{name} active")

    with BlobSnapshotter(inner, content, task.store) as snapshotter:
        set_blob, get_blob, remove = (
            snapshotter.set_blob,
            snapshotter.get_blob,
            snapshotter.remove,
        )
        set_time, _ = timed(
            lambda: [set_blob(n, d) for n, d in zip(names, digests, strict=True)]
        )
        get_time, blobs = timed(lambda: [get_blob(name) for name in names])
        remove_time, _ = timed(lambda: [remove(name) for name in names])
        assert not list(inner.walk())
        assert not list(content.walk())

    found = "".join(blob.digest for blob in blobs if blob is not None)
    times = {"set_blob": set_time, "get_blob": get_time, "remove": remove_time}
    per_call = {name: elapsed / task.keys for name, elapsed in times.items()}
    return Outcome(per_call, crc32(found.encode()))
