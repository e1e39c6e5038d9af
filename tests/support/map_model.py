"""A wrapper over fakes and a disk that outlive it, and all that can be asked of it.

`state_of` is what `plain_map` has a model of; the names and blobs are few, and collide.
"""

from __future__ import annotations

from collections import Counter
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from support.fakes import FakeContentStore, FakeSnapshotter, Hook

from blobkv.testing import SimulatedDisk
from blobmap import digest as digests
from blobmap._map import schema
from blobmap._map.edges import holder_of, mention_of
from blobmap._map.events import EventKind
from blobmap.contracts import Image
from blobmap.errors import (
    BlobMapError,
)
from blobmap.snapshotter import BlobSnapshotter

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap._map.schema import Holder

# Chosen to collide: prefixes of one another, the separators of naive keys, the ends of order.
NAMES = ("\x00", "a", "-", "\xff", "a-", "\x00\xff")
DATA = {digests.of(data): data for data in (b"", b"a", b"b", b"cc", b"ddd", b"eeee")}
BLOBS = tuple(DATA)
IMAGES = ("i", "i\x00")
EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


def image_of(name: str, blobs: tuple[str, ...], snapshots: tuple[str, ...]) -> Image:
    """An image with a fixed time of creation; its manifest is its first blob, or none."""
    manifest = blobs[0] if blobs else BLOBS[0]
    return Image(name, manifest, blobs, snapshots, EPOCH)


class Clock:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now = EPOCH

    def __call__(self) -> datetime:
        return self.now


class MapWorld:
    """A wrapper over fakes and a disk that outlive it."""

    snapshotter: BlobSnapshotter

    def __init__(self, *, opened: bool = True, background: bool = False) -> None:
        self.background = background
        self.clock = Clock()
        self.inner = FakeSnapshotter()
        self.content = FakeContentStore()
        self.disk = SimulatedDisk()
        if opened:
            self.snapshotter = self.open()

    def open(self) -> BlobSnapshotter:
        self.inner.reopen()
        return BlobSnapshotter(
            self.inner,
            self.content,
            "/map",
            background=self.background,
            clock=self.clock,
            fs=self.disk,
        )

    def reopen(self) -> None:
        self.snapshotter.close()
        self.snapshotter = self.open()

    def make(self, name: str, digest: str | None = None, parent: str = "") -> None:
        """Make a committed snapshot, and let it stand for the blob if one is named."""
        self.snapshotter.prepare(f"make {name}", parent)
        self.snapshotter.commit(name, f"make {name}")
        if digest is not None:
            self.content.add_blob(DATA[digest])
            self.snapshotter.set_blob(name, digest)

    def present(self) -> set[str]:
        """The blobs in the content store."""
        return {info.digest for info in self.content.walk()}

    def names(self) -> list[str]:
        """The snapshots."""
        return [info.name for info in self.inner.walk()]

    def queue(self) -> set[str]:
        """The blobs that are queued for deletion."""
        return {pending.digest for pending in self.snapshotter.pending()}

    def rows(self) -> list[tuple[object, ...]]:
        """All that the map has recorded."""
        with self.snapshotter._parts.refs.view() as txn:
            tables = list(txn.buckets())
            return [(name, *row) for name in tables for row in txn.bucket(name).items()]

    def check(self) -> None:
        """Assert what must be true of every map, whatever happened to it."""
        snapshotter = self.snapshotter
        refs = snapshotter._parts.refs
        refs.check()
        present = self.present()
        for digest in BLOBS:
            for key in snapshotter.snapshots_of(digest):
                edge = refs.edge(key)
                assert edge is not None
                assert edge.blob.digest == digest
            if snapshotter.references(digest):
                assert digest not in self.queue()
        for info in snapshotter.walk():
            assert info.blob == snapshotter.get_blob(info.name)
            if info.blob is not None:
                assert info.name in snapshotter.snapshots_of(info.blob.digest)
        rows = snapshotter.disk_usage()
        on_disk = {row.blob.digest for row in rows if row.blob is not None} & present
        own = sum(self.inner.usage(info.name).size for info in self.inner.walk())
        assert rows.size == own + sum(len(DATA[digest]) for digest in on_disk)


State = dict[str, object]


def state_of(snapshotter: BlobSnapshotter) -> State:
    """Everything that can be asked of a wrapper, its snapshotter, and its content store."""
    infos = list(snapshotter.walk())
    references = {info.name: snapshotter.references_of(info.name) for info in infos}
    return {
        "content": {info.digest for info in snapshotter.content.walk()},
        "queue": {pending.digest for pending in snapshotter.pending()},
        "snapshots": {info.name: (info.kind, info.parent) for info in infos},
        "mapped": {info.name: info.blob.digest for info in infos if info.blob is not None},
        "edges": {digest: set(snapshotter.snapshots_of(digest)) for digest in BLOBS},
        "counts": {digest: snapshotter.references(digest) for digest in BLOBS},
        "images": {image.name: image for image in snapshotter.images()},
        "blobs": {blob.digest for blob in snapshotter.blobs()},
        "references": {
            name: {item.role: (item.blob.digest, item.policy) for item in found}
            for name, found in references.items()
        },
        "metadata": {info.name: snapshotter.metadata(info.name) for info in infos},
        "leases": {
            info.name: (info.expires, tuple(snapshotter._leases.digests(info.name)))
            for info in snapshotter.leases()
        },
    }


def check_feed(snapshotter: BlobSnapshotter) -> None:
    """Assert that the feed, replayed from its start, gives just the links that the map has.

    Nothing is linked twice, or unlinked that was not linked, and no blob is deleted while
    something keeps it.
    """
    linked: set[tuple[str, Holder, bool]] = set()
    kept: Counter[str] = Counter()
    for event in snapshotter.events():
        if event.kind is EventKind.DELETE:
            assert not kept[event.digest], event
            continue
        assert event.holder is not None
        link = event.digest, event.holder, event.retains
        assert (link in linked) == (event.kind is EventKind.UNLINK), event
        linked ^= {link}
        kept[event.digest] += event.retains * (1 if link in linked else -1)
    refs = snapshotter._parts.refs
    with refs.view() as txn:
        held = {(*holder_of(key), True) for key in txn.bucket(schema.HOLDER)}
        known = {(*mention_of(key), False) for key in txn.bucket(schema.MENTION)}
    assert linked == held | known


def both(*calls: object) -> Iterator[BaseException | None]:
    """Make each call; yield the class of what it raised, or None."""
    for call in calls:
        assert callable(call)
        try:
            call()
        except BlobMapError as error:
            yield error
        else:
            yield None


@contextmanager
def map_world(*blobs: str) -> Iterator[MapWorld]:
    """A world whose content store has the blobs; it is checked when the test is done."""
    world = MapWorld()
    for digest in blobs:
        world.content.add_blob(DATA[digest])
    yield world
    world.check()
    world.snapshotter.close()


def fail(error: type[Exception], *calls: str, moment: str = "before", times: int = 99) -> Hook:
    """A hook that makes some calls fail, a number of times; with no calls, none."""
    left = [times]

    def hook(at: str, call: str, key: str) -> None:
        if at == moment and call in calls and left[0]:
            left[0] -= 1
            raise error(f"{call} is out of order")

    return hook
