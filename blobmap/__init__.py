"""Snapshots and the content blobs they stand for: who holds what, and what may go.

`BlobSnapshotter` wraps any snapshotter and any content store that honour the protocols in
`blobmap.contracts`. `blobmap.open` makes one from the embedded defaults, all in one directory.

    >>> import tempfile
    >>> import blobmap
    >>> directory = tempfile.TemporaryDirectory()
    >>> snapshotter = blobmap.open(directory.name)

A blob comes in through the content store, and a snapshot through prepare and commit; then
one stands for the other:

    >>> with snapshotter.content.writer("first-layer") as writer:
    ...     size = writer.write(b"a layer")
    ...     digest = writer.digest()
    ...     writer.commit()
    >>> mounts = snapshotter.prepare("work in progress")
    >>> snapshotter.commit("layer", "work in progress")
    >>> snapshotter.set_blob("layer", digest)
    >>> snapshotter.get_blob("layer").size
    7
    >>> list(snapshotter.snapshots_of(digest)), snapshotter.references(digest)
    (['layer'], 1)

The blob goes with the last snapshot that stands for it:

    >>> snapshotter.remove("layer")
    >>> [info.digest for info in snapshotter.content.walk()]
    []

Everything is durable when a call returns, and nothing needs repair after a crash:

    >>> snapshotter.close()
    >>> directory.cleanup()
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from blobmap import local, oci
from blobmap._map.deletions import Pending
from blobmap._map.events import Event, EventKind, Retention
from blobmap._map.holding import Explanation, Holding
from blobmap._map.leases import Lease, LeaseInfo
from blobmap._map.plan import RemovalPlan
from blobmap._map.schema import Holder, Scope
from blobmap._map.usage import DiskUsage, UsageRow
from blobmap._map.work import Work
from blobmap.contracts import (
    LAYER,
    Blob,
    ContentInfo,
    ContentStore,
    Image,
    Info,
    IngestStatus,
    Kind,
    Mount,
    Policy,
    Reference,
    Snapshotter,
    Usage,
)
from blobmap.deadlines import deadline
from blobmap.errors import (
    AlreadyExists,
    BlobMapError,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
    OutOfRange,
    Unavailable,
)
from blobmap.findings import Evidence, Finding, Report
from blobmap.local import LocalContent, NativeSnapshotter, OverlaySnapshotter, mounted
from blobmap.local.choice import SNAPSHOTTERS, choose
from blobmap.local.durable import make_directory, resolved
from blobmap.snapshotter import BlobSnapshotter

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "LAYER",
    "AlreadyExists",
    "Blob",
    "BlobMapError",
    "BlobSnapshotter",
    "ContentInfo",
    "ContentStore",
    "DataLoss",
    "DeadlineExceeded",
    "DiskUsage",
    "Event",
    "EventKind",
    "Evidence",
    "Explanation",
    "FailedPrecondition",
    "Finding",
    "Holder",
    "Holding",
    "Image",
    "Info",
    "IngestStatus",
    "InvalidArgument",
    "Kind",
    "Lease",
    "LeaseInfo",
    "LocalContent",
    "Mount",
    "NativeSnapshotter",
    "NotFound",
    "NotImplementedHere",
    "OutOfRange",
    "OverlaySnapshotter",
    "Pending",
    "Policy",
    "Reference",
    "RemovalPlan",
    "Report",
    "Retention",
    "Scope",
    "Snapshotter",
    "Unavailable",
    "Usage",
    "UsageRow",
    "Work",
    "deadline",
    "local",
    "mounted",
    "oci",
    "open",
]


def open(  # noqa: A001  # As in `blobkv.open`.
    root: str | Path, *, lock_timeout: float = 0.0, snapshotter: str | None = None
) -> BlobSnapshotter:
    """Open the embedded default in the directory `root`, and make it if it does not exist.

    Content is in `root`/content, snapshots in `root`/native or `root`/overlay, the map in
    `root`/map. Closing the snapshotter closes all three.

    A native snapshotter copies trees, and the source of its one mount is a directory to read
    and to change. An overlay snapshotter copies nothing, and what its mounts show is seen
    once they are mounted: `mounted` does that.

    Args:
        root: The directory.
        lock_timeout: How long to wait for another who has it open, in seconds.
        snapshotter: "native", "overlay", or "auto". In a new root, "auto" makes overlay where
            this process can mount overlays there, and else native; None makes native. What
            is there already must be the one that is named; "auto" and None take any.

    Raises:
        blobkv.LockedError: It is open already, here or in another process.
        InvalidArgument: `root` is empty, or it or what it is in is no directory; or no
            snapshotter has that name.
        FailedPrecondition: A newer blobmap wrote it; or its snapshotter is another.
        NotImplementedHere: A new root is to be overlay, and that cannot be mounted there.
    """
    if not str(root):
        raise InvalidArgument("root is empty: give a directory")
    directory = resolved(root)
    try:
        make_directory(directory)
    except (FileExistsError, NotADirectoryError) as error:
        raise InvalidArgument(f"{directory}: not a directory; give another root") from error
    content = LocalContent(directory / "content", lock_timeout=lock_timeout)
    try:
        name = choose(directory, snapshotter)
        inner = SNAPSHOTTERS[name](directory / name, lock_timeout=lock_timeout)
        try:
            return BlobSnapshotter(
                inner,
                content,
                directory / "map",
                close_content=True,
                lock_timeout=lock_timeout,
            )
        except BaseException:
            inner.close()
            raise
    except BaseException:
        content.close()
        raise
