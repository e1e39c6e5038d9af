"""The two protocols blobmap joins, and the records that cross them.

A *snapshotter* keeps file system trees: an active snapshot is prepared on a committed
parent, changed through its mounts, and committed under a name; a view is a read-only active
one. A *content store* keeps blobs by digest. Anything that honours these protocols can be
wrapped by `BlobSnapshotter`; the embedded defaults are in `blobmap.local`.

One key space holds the keys of views and active snapshots and the names of committed ones.
An empty `parent` means none. Labels are str to str; a label with an empty value is not kept.

Source: containerd's snapshots.Snapshotter and content.Store; errors are those of
`blobmap.errors` in the places containerd's conformance suites look for them.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING, Final, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from datetime import datetime
    from types import TracebackType


class Kind(Enum):
    """What a snapshot is; the value is its name in filters and on the wire."""

    VIEW = "view"
    ACTIVE = "active"
    COMMITTED = "committed"


@dataclass(frozen=True, slots=True)
class Blob:
    """What a snapshot stands for: one content blob.

    Attributes:
        digest: The blob's name, "sha256:<64 hex>".
        size: Its size in bytes.
        diff_id: The digest of the uncompressed layer, or None if the caller gave none.
        media_type: The blob's media type, or None likewise.
    """

    digest: str
    size: int
    diff_id: str | None = None
    media_type: str | None = None


LAYER: Final = "layer"
"""The role of the blob that a snapshot stands for."""


class Policy(Enum):
    """What a snapshot's reference means to the blob."""

    RETAIN = "retain"
    """The blob stays for as long as the snapshot refers to it."""

    KNOW = "know"
    """The blob is known to be related; it comes and goes by the will of others."""


@dataclass(frozen=True, slots=True)
class Reference:
    """What one blob is to a snapshot.

    Attributes:
        role: What it is: "layer" (the blob that the snapshot stands for), or whatever the
            caller keeps beside it, such as "layer+zstd" or "build". One blob a role.
        blob: The blob.
        policy: Whether the snapshot keeps the blob.
        annotations: What the caller noted about it.
    """

    role: str
    blob: Blob
    policy: Policy = Policy.RETAIN
    annotations: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Info:
    """One snapshot. `blob` is filled by `BlobSnapshotter` only."""

    name: str
    parent: str
    kind: Kind
    labels: Mapping[str, str] = field(default_factory=dict)
    created: datetime | None = None
    updated: datetime | None = None
    blob: Blob | None = None


@dataclass(frozen=True, slots=True)
class Usage:
    """Resources of one snapshot, its parents excluded: bytes and inodes."""

    size: int
    inodes: int

    def __add__(self, other: Usage) -> Usage:
        return Usage(self.size + other.size, self.inodes + other.inodes)


@dataclass(frozen=True, slots=True)
class Mount:
    """How to mount a snapshot; the caller mounts, the snapshotter never does."""

    type: str
    source: str
    target: str = ""
    options: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ContentInfo:
    """One committed blob."""

    digest: str
    size: int
    created: datetime | None = None
    updated: datetime | None = None
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class IngestStatus:
    """One unfinished ingest; `total` is 0 and `expected` is None when unknown."""

    ref: str
    offset: int
    total: int
    expected: str | None
    started: datetime
    updated: datetime


@dataclass(frozen=True, slots=True)
class Image:
    """One imported image: a name for a stack of committed snapshots.

    Attributes:
        name: The image's name, unique under one root and namespace.
        digest: The digest of its manifest.
        blobs: The blobs the image itself holds: its manifest and its config. Its layers'
            blobs are held by its snapshots.
        snapshots: The names (chain IDs) of its committed snapshots, the base first.
        created: When it was recorded.
    """

    name: str
    digest: str
    blobs: tuple[str, ...]
    snapshots: tuple[str, ...]
    created: datetime


class Snapshotter(Protocol):
    """Keeps snapshots. Safe to call from many threads.

    Every method raises `NotFound` for a key that does not exist.
    """

    def stat(self, key: str) -> Info:
        """Return the snapshot of any kind."""

    def update(self, info: Info, *fieldpaths: str) -> Info:
        """Change labels: all, or those at `labels` and `labels.<key>` paths only.

        Raises:
            InvalidArgument: Another path, or a label too large.
        """

    def usage(self, key: str) -> Usage:
        """Return the snapshot's own bytes and inodes."""

    def mounts(self, key: str) -> list[Mount]:
        """Return the mounts of an active snapshot or a view.

        Raises:
            FailedPrecondition: The snapshot is committed.
        """

    def prepare(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        """Make an active snapshot on `parent` and return its mounts.

        Raises:
            AlreadyExists: The key exists, whatever its kind.
            NotFound: The parent does not exist.
            InvalidArgument: The parent is not committed, or a label is too large.
        """

    def view(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        """Make a read-only snapshot of `parent`; otherwise as `prepare`."""

    def commit(self, name: str, key: str, *, labels: Mapping[str, str] | None = None) -> None:
        """Turn the active snapshot `key` into the committed snapshot `name`.

        Labels are those given here; the active's are not inherited. The key is free again.

        Raises:
            AlreadyExists: The name exists.
            FailedPrecondition: The snapshot is not active.
        """

    def remove(self, key: str) -> None:
        """Remove the snapshot; its key is free at once.

        Raises:
            FailedPrecondition: Another snapshot has it as its parent.
        """

    def walk(self, *filters: str) -> Iterator[Info]:
        """Yield each snapshot that some filter matches, in key order; no filter means all.

        Other methods may be called between two steps; what is removed meanwhile may be missed.

        Raises:
            InvalidArgument: A filter does not parse.
        """

    def cleanup(self) -> None:
        """Reclaim what removes left for later.

        Raises:
            NotImplementedHere: There is nothing of the kind.
        """

    def close(self) -> None:
        """Release everything held. Idempotent."""


class ContentReader(Protocol):
    """Random access to one blob; stays readable when the blob is deleted."""

    @property
    def size(self) -> int:
        """The blob's size in bytes."""

    def read_at(self, offset: int, size: int) -> bytes:
        """Return up to `size` bytes from `offset`; fewer only at the end."""

    def close(self) -> None:
        """Release the blob. Idempotent."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ContentWriter(Protocol):
    """One open ingest. Leaving the with-block closes it and keeps its progress."""

    def write(self, data: bytes) -> int:
        """Append `data`; return its size."""

    def commit(
        self,
        size: int = 0,
        digest: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        """Verify, sync, and publish the blob. Always closes the writer, even on error.

        Args:
            size: The expected size in bytes, or 0 for unknown.
            digest: The expected digest, or None for unknown.
            labels: The blob's labels.

        Raises:
            FailedPrecondition: Size or digest differ (the ingest is kept), or it is closed.
            AlreadyExists: The blob is there already (the ingest is dropped).
        """

    def status(self) -> IngestStatus:
        """Return how far the ingest is."""

    def digest(self) -> str:
        """Return the digest of the bytes written so far."""

    def truncate(self, size: int) -> None:
        """Drop all bytes written.

        Raises:
            InvalidArgument: `size` is not 0.
        """

    def close(self) -> None:
        """Keep the progress and free the ref. Idempotent."""

    def __enter__(self) -> Self: ...
    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None: ...


class ContentStore(Protocol):
    """Keeps blobs by digest. Safe to call from many threads.

    Raises `InvalidArgument` for a malformed digest and `NotFound` for an absent blob or ref.
    """

    def info(self, digest: str) -> ContentInfo:
        """Return the committed blob's record."""

    def update(self, info: ContentInfo, *fieldpaths: str) -> ContentInfo:
        """Change labels, by the same rules as `Snapshotter.update`."""

    def walk(self, *filters: str) -> Iterator[ContentInfo]:
        """Yield each committed blob that some filter matches, in digest order."""

    def delete(self, digest: str) -> None:
        """Remove the blob and return its space."""

    def reader_at(self, digest: str) -> ContentReader:
        """Open the blob for reading."""

    def writer(self, ref: str, *, size: int = 0, digest: str | None = None) -> ContentWriter:
        """Open or resume the ingest named `ref`.

        Raises:
            Unavailable: Another writer holds the ref.
            AlreadyExists: `digest` is given and there already.
            InvalidArgument: The ref is empty.
        """

    def status(self, ref: str) -> IngestStatus:
        """Return the ingest's status."""

    def list_statuses(self, *filters: str) -> list[IngestStatus]:
        """Return the unfinished ingests that some filter matches, by ref."""

    def abort(self, ref: str) -> None:
        """Drop the ingest and its bytes."""

    def close(self) -> None:
        """Release everything held. Idempotent."""
