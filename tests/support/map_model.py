"""What a map should do, in sets and dicts: the model that the wrapper is compared with.

`MapModel` has the wrapper's methods and raises the same classes of errors; it knows nothing
of intents, queues on disk, or locks. `MapWorld` is a wrapper over fakes and a disk that
outlive it, and `compare` holds the two against each other.
"""

from __future__ import annotations

import itertools
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from support.fakes import FakeContentStore, FakeSnapshotter, Hook

from blobkv.testing import SimulatedDisk
from blobmap import digest as digests
from blobmap.contracts import Image, Kind
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from blobmap.snapshotter import BlobSnapshotter

if TYPE_CHECKING:
    from collections.abc import Iterator

# Chosen to collide: prefixes of one another, the separators of naive keys, the ends of order.
NAMES = ("\x00", "a", "-", "\xff", "a-", "\x00\xff")
DATA = {digests.of(data): data for data in (b"", b"a", b"b", b"cc", b"ddd", b"eeee")}
BLOBS = tuple(DATA)
IMAGES = ("i", "i\x00")


def image_of(name: str, blobs: tuple[str, ...], snapshots: tuple[str, ...]) -> Image:
    """An image with a fixed time of creation; its manifest is its first blob, or none."""
    manifest = blobs[0] if blobs else BLOBS[0]
    return Image(name, manifest, blobs, snapshots, datetime(2000, 1, 1, tzinfo=UTC))


@dataclass
class ModelSnapshot:
    parent: str
    kind: Kind
    life: int


@dataclass
class ModelWork:
    held: set[str] = field(default_factory=set)
    scratch: set[str] = field(default_factory=set)


class MapModel:
    """The map, the snapshotter, and the content store as one."""

    def __init__(self) -> None:
        self.snapshots: dict[str, ModelSnapshot] = {}
        self.edges: dict[str, tuple[str, int]] = {}
        self.images: dict[str, Image] = {}
        self.works: dict[str, ModelWork] = {}
        self.content: set[str] = set()
        self.queue: set[str] = set()
        self.foreign: set[str] = set()
        self.deletes_fail = False
        self._lives = itertools.count()

    # The snapshotter.

    def prepare(self, key: str, parent: str, kind: Kind = Kind.ACTIVE) -> None:
        if key in self.snapshots:
            raise AlreadyExists
        if parent:
            self._find(parent)
            if self.snapshots[parent].kind is not Kind.COMMITTED:
                raise InvalidArgument
        self.snapshots[key] = ModelSnapshot(parent, kind, next(self._lives))

    def view(self, key: str, parent: str) -> None:
        self.prepare(key, parent, Kind.VIEW)

    def commit(self, name: str, key: str) -> None:
        self.drop_stale(key)
        if name in self.snapshots:
            raise AlreadyExists
        if self._find(key).kind is not Kind.ACTIVE:
            raise FailedPrecondition
        parent = self.snapshots.pop(key).parent
        self.snapshots[name] = ModelSnapshot(parent, Kind.COMMITTED, next(self._lives))

    def drop_stale(self, key: str) -> None:
        """Drop what is under the key from an earlier life of it: how `commit` begins."""
        if key in self.edges:
            self._find(key)
            if not self.is_live(key):
                self._drop_edge(key)
                self._delete_queued()

    def vanish(self, key: str) -> None:
        """Somebody removes the snapshot behind the map's back."""
        self._find(key)
        if self.children(key):
            raise FailedPrecondition
        del self.snapshots[key]

    def remove(self, key: str) -> None:
        self.vanish(key)
        if key in self.edges:
            self._drop_edge(key)
            self._delete_queued()

    # The map.

    def set_blob(self, key: str, digest: str, *, replace: bool) -> None:
        if self._find(key).kind is not Kind.COMMITTED:
            raise FailedPrecondition
        if digest not in self.content:
            raise NotFound
        old = self.edges.get(key)
        if old is not None and old[0] != digest and self.is_live(key) and not replace:
            raise AlreadyExists
        self.edges[key] = digest, self.snapshots[key].life
        self._retained(digest)
        if old is not None and old[0] != digest:
            self._released(old[0])
            self._delete_queued()

    def unset_blob(self, key: str) -> None:
        if key not in self.edges:
            self._find(key)
            return
        self._drop_edge(key)
        self._delete_queued()

    def set_image(self, image: Image) -> None:
        for key in image.snapshots:
            if self._find(key).kind is not Kind.COMMITTED:
                raise FailedPrecondition
        if not set(image.blobs) <= self.content:
            raise NotFound
        old = self.images.get(image.name)
        self.images[image.name] = image
        for digest in image.blobs:
            self._retained(digest)
        if old is not None:
            self._retire(old, kept=image.snapshots)
        self._delete_queued()

    def remove_image(self, name: str) -> None:
        if name not in self.images:
            raise NotFound
        self._retire(self.images.pop(name), kept=())
        self._delete_queued()

    def hold(self, work: str, digest: str) -> None:
        unheld = not self.holders(digest) and digest not in self.queue
        if digest in self.content and unheld:
            self.foreign.add(digest)
        self.works[work].held.add(digest)
        self.queue.discard(digest)

    def scratch(self, work: str, key: str) -> None:
        if key in self.snapshots:
            raise AlreadyExists
        self.works[work].scratch.add(key)

    def end_work(self, work: str) -> None:
        ended = self.works[work]
        for key in sorted(ended.scratch & set(self.snapshots)):
            if self.snapshots[key].kind is not Kind.COMMITTED:
                self.remove(key)
        del self.works[work]
        for digest in ended.held:
            self._released(digest)
        self._delete_queued()

    def reconcile(self) -> None:
        for key in list(self.edges):
            if not self.is_live(key):
                self._drop_edge(key)
        self._delete_queued()

    def reopen(self) -> None:
        for work in list(self.works):
            self.end_work(work)
        self._delete_queued()

    def begin_work(self, work: str) -> None:
        self.works[work] = ModelWork()

    # What is true.

    def is_live(self, key: str) -> bool:
        snapshot = self.snapshots.get(key)
        edge = self.edges.get(key)
        return snapshot is not None and edge is not None and edge[1] == snapshot.life

    def children(self, key: str) -> list[str]:
        return [name for name, snapshot in self.snapshots.items() if snapshot.parent == key]

    def chain(self, key: str) -> tuple[str, ...]:
        """The snapshot and all below it, the base first."""
        chain = [key]
        while parent := self.snapshots[chain[-1]].parent:
            chain.append(parent)
        return tuple(reversed(chain))

    def holders(self, digest: str) -> int:
        snapshots = sum(held == digest for held, _ in self.edges.values())
        images = sum(digest in image.blobs for image in self.images.values())
        return snapshots + images + sum(digest in work.held for work in self.works.values())

    def kept(self) -> set[str]:
        """The blobs that snapshots and images hold."""
        kept = {digest for digest, _ in self.edges.values()}
        return kept | {digest for image in self.images.values() for digest in image.blobs}

    def broken_images(self) -> set[str]:
        """The images that list a snapshot that is not there."""
        snapshots = self.snapshots.keys()
        return {name for name, i in self.images.items() if not snapshots >= set(i.snapshots)}

    def _find(self, key: str) -> ModelSnapshot:
        if key not in self.snapshots:
            raise NotFound
        return self.snapshots[key]

    def _retire(self, image: Image, kept: tuple[str, ...]) -> None:
        for digest in image.blobs:
            self._released(digest)
        listed = {key for other in self.images.values() for key in other.snapshots}
        for key in reversed([key for key in image.snapshots if key not in kept]):
            if key in listed or self.children(key):
                break
            if key in self.snapshots:
                self.remove(key)

    def _drop_edge(self, key: str) -> None:
        digest, _ = self.edges.pop(key)
        self._released(digest)

    def _retained(self, digest: str) -> None:
        self.queue.discard(digest)
        self.foreign.discard(digest)

    def _released(self, digest: str) -> None:
        if self.holders(digest):
            return
        if digest in self.foreign:
            self.foreign.discard(digest)
        else:
            self.queue.add(digest)

    def _delete_queued(self) -> None:
        if not self.deletes_fail:
            self.content -= self.queue
            self.queue.clear()


class MapWorld:
    """A wrapper over fakes and a disk that outlive it."""

    snapshotter: BlobSnapshotter

    def __init__(self, *, opened: bool = True, background: bool = False) -> None:
        self.background = background
        self.inner = FakeSnapshotter()
        self.content = FakeContentStore()
        self.disk = SimulatedDisk()
        if opened:
            self.snapshotter = self.open()

    def open(self) -> BlobSnapshotter:
        self.inner.reopen()
        return BlobSnapshotter(
            self.inner, self.content, "/map", background=self.background, fs=self.disk
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


def state_of(world: MapWorld) -> State:
    """Everything that can be asked of a wrapper, its snapshotter, and its content store."""
    snapshotter = world.snapshotter
    infos = list(snapshotter.walk())
    return {
        "content": {info.digest for info in world.content.walk()},
        "queue": world.queue(),
        "snapshots": {info.name: (info.kind, info.parent) for info in infos},
        "mapped": {info.name: info.blob.digest for info in infos if info.blob is not None},
        "edges": {digest: set(snapshotter.snapshots_of(digest)) for digest in BLOBS},
        "counts": {digest: snapshotter.references(digest) for digest in BLOBS},
        "images": {image.name: image for image in snapshotter.images()},
        "blobs": {blob.digest for blob in snapshotter.blobs()},
    }


def state_wanted(model: MapModel) -> State:
    """What `state_of` should return."""
    edges = model.edges
    return {
        "content": set(model.content),
        "queue": set(model.queue),
        "snapshots": {key: (item.kind, item.parent) for key, item in model.snapshots.items()},
        "mapped": {key: digest for key, (digest, _) in edges.items() if model.is_live(key)},
        "edges": {
            digest: {key for key in edges if edges[key][0] == digest} for digest in BLOBS
        },
        "counts": {digest: model.holders(digest) for digest in BLOBS},
        "images": dict(model.images),
        "blobs": model.kept(),
    }


def compare(world: MapWorld, model: MapModel) -> None:
    """Assert that the wrapper and the model agree on everything that can be asked."""
    assert state_of(world) == state_wanted(model)
    world.check()


def both(*calls: object) -> Iterator[BaseException | None]:
    """Make each call; yield the class of what it raised, or None."""
    for call in calls:
        assert callable(call)
        try:
            call()
        except (AlreadyExists, FailedPrecondition, InvalidArgument, NotFound) as error:
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
