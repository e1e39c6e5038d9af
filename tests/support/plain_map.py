"""What a map should do, in sets and dicts: the model that the wrapper is compared with.

`MapModel` has the wrapper's methods and raises the same classes of errors; it knows nothing
of intents, queues on disk, or locks. `compare` holds a wrapper of `map_model` against it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from support.map_model import BLOBS, EPOCH, HOUR, check_feed, state_of

from blobmap.contracts import LAYER, Image, Kind, Policy
from blobmap.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from support.map_model import MapWorld, State


@dataclass
class ModelSnapshot:
    parent: str
    kind: Kind
    life: int


@dataclass
class ModelEdge:
    digest: str
    life: int
    policy: Policy


@dataclass
class ModelWork:
    held: set[str] = field(default_factory=set)
    scratch: set[str] = field(default_factory=set)


@dataclass
class ModelLease:
    expires: int
    held: set[str] = field(default_factory=set)


class MapModel:
    """The map, the snapshotter, and the content store as one; `now` is in hours."""

    def __init__(self) -> None:
        self.snapshots: dict[str, ModelSnapshot] = {}
        self.edges: dict[tuple[str, str], ModelEdge] = {}
        self.notes: dict[tuple[str, str], tuple[object, int]] = {}
        self.images: dict[str, Image] = {}
        self.works: dict[str, ModelWork] = {}
        self.leases: dict[str, ModelLease] = {}
        self.content: set[str] = set()
        self.queue: set[str] = set()
        self.foreign: set[str] = set()
        self.deletes_fail = False
        self.now = 0
        self._lives = 0

    def _life(self) -> int:
        self._lives += 1
        return self._lives

    # The snapshotter.

    def prepare(self, key: str, parent: str, kind: Kind = Kind.ACTIVE) -> None:
        if key in self.snapshots:
            raise AlreadyExists
        if parent:
            self._find(parent)
            if self.snapshots[parent].kind is not Kind.COMMITTED:
                raise InvalidArgument
        self.snapshots[key] = ModelSnapshot(parent, kind, self._life())

    def view(self, key: str, parent: str) -> None:
        self.prepare(key, parent, Kind.VIEW)

    def commit(self, name: str, key: str) -> None:
        self.drop_stale(key)
        if name in self.snapshots:
            raise AlreadyExists
        if self._find(key).kind is not Kind.ACTIVE:
            raise FailedPrecondition
        parent = self.snapshots.pop(key).parent
        self.snapshots[name] = ModelSnapshot(parent, Kind.COMMITTED, self._life())

    def drop_stale(self, key: str) -> None:
        """Drop what is under the key from an earlier life of it: how `commit` begins."""
        roles = self.roles(key)
        if roles:
            self._find(key)
            self._drop_edges(key, [role for role in roles if not self.is_live(key, role)])

    def vanish(self, key: str) -> None:
        """Somebody removes the snapshot behind the map's back."""
        self._find(key)
        if self.children(key):
            raise FailedPrecondition
        del self.snapshots[key]

    def remove(self, key: str, *, wait: bool = False) -> None:
        self.vanish(key)
        for note in [note for note in self.notes if note[0] == key]:
            del self.notes[note]
        released = self._drop_edges(key, self.roles(key))
        if wait and released & self.queue:
            raise Unavailable

    # The map.

    def set_blob(self, key: str, digest: str, *, replace: bool) -> None:
        self.set_reference(key, LAYER, digest, policy=Policy.RETAIN, replace=replace)

    def unset_blob(self, key: str) -> None:
        self.unset_reference(key, LAYER)

    def set_reference(
        self, key: str, role: str, digest: str, *, policy: Policy, replace: bool
    ) -> None:
        if self._find(key).kind is not Kind.COMMITTED:
            raise FailedPrecondition
        if digest not in self.content:
            raise NotFound
        old = self.edges.get((key, role))
        edge = ModelEdge(digest, self.snapshots[key].life, policy)
        if old not in (None, edge) and self.is_live(key, role) and not replace:
            raise AlreadyExists
        self.edges[key, role] = edge
        if policy is Policy.RETAIN:
            self._retained(digest)
        if old is not None and (old.digest, old.policy) != (digest, policy):
            self._let_go({old.digest} if old.policy is Policy.RETAIN else ())

    def unset_reference(self, key: str, role: str) -> None:
        if (key, role) not in self.edges:
            self._find(key)
            return
        self._drop_edges(key, [role])

    def set_metadata(self, key: str, name: str, value: object) -> None:
        life = self._find(key).life
        if value is None:
            self.notes.pop((key, name), None)
        else:
            self.notes[key, name] = value, life

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
            self._retire(old, image)

    def remove_image(self, name: str) -> None:
        if name not in self.images:
            raise NotFound
        self._retire(self.images.pop(name), None)

    def begin_work(self, work: str) -> None:
        self.works[work] = ModelWork()

    def hold(self, work: str, digest: str) -> None:
        self._held_for_a_time(digest)
        self.works[work].held.add(digest)

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
        self._let_go(ended.held)

    def lease(self, name: str, hours: int) -> None:
        self.end_expired()
        if name in self.leases:
            raise AlreadyExists
        self.leases[name] = ModelLease(self.now + hours)

    def lease_hold(self, name: str, digest: str) -> None:
        if name not in self.leases:
            raise NotFound
        self._held_for_a_time(digest)
        self.leases[name].held.add(digest)

    def lease_drop(self, name: str, digest: str) -> None:
        if name in self.leases and digest in self.leases[name].held:
            self.leases[name].held.remove(digest)
            self._let_go({digest})

    def lease_renew(self, name: str, hours: int) -> None:
        if name not in self.leases:
            raise NotFound
        self.leases[name].expires = self.now + hours

    def lease_release(self, name: str) -> None:
        if name in self.leases:
            self._let_go(self.leases.pop(name).held)

    def end_expired(self) -> None:
        for name in [name for name, item in self.leases.items() if item.expires <= self.now]:
            self.lease_release(name)

    def tick(self) -> None:
        """An hour passes."""
        self.now += 1

    def cleanup(self) -> None:
        self.end_expired()
        self._delete_queued()

    def reconcile(self) -> None:
        for key, role in list(self.edges):
            if not self.is_live(key, role):
                self._drop_edges(key, [role])
        self.cleanup()

    def reopen(self) -> None:
        for work in list(self.works):
            self.end_work(work)
        self.cleanup()

    # What is true.

    def is_live(self, key: str, role: str) -> bool:
        snapshot = self.snapshots.get(key)
        edge = self.edges.get((key, role))
        return snapshot is not None and edge is not None and edge.life == snapshot.life

    def roles(self, key: str) -> list[str]:
        """The roles in which the snapshot, of whichever life, has a blob."""
        return [role for name, role in self.edges if name == key]

    def children(self, key: str) -> list[str]:
        return [name for name, snapshot in self.snapshots.items() if snapshot.parent == key]

    def chain(self, key: str) -> tuple[str, ...]:
        """The snapshot and all below it, the base first."""
        chain = [key]
        while parent := self.snapshots[chain[-1]].parent:
            chain.append(parent)
        return tuple(reversed(chain))

    def retained(self) -> list[str]:
        """The blobs that snapshots keep, once for each reference."""
        edges = self.edges.values()
        return [edge.digest for edge in edges if edge.policy is Policy.RETAIN]

    def holders(self, digest: str) -> int:
        images = sum(digest in image.blobs for image in self.images.values())
        others = (*self.works.values(), *self.leases.values())
        return self.retained().count(digest) + images + sum(digest in o.held for o in others)

    def kept(self) -> set[str]:
        """The blobs that snapshots and images hold."""
        images = {digest for image in self.images.values() for digest in image.blobs}
        return images.union(self.retained())

    def broken_images(self) -> set[str]:
        """The images that list a snapshot that is not there."""
        snapshots = self.snapshots.keys()
        return {name for name, i in self.images.items() if not snapshots >= set(i.snapshots)}

    def _find(self, key: str) -> ModelSnapshot:
        if key not in self.snapshots:
            raise NotFound
        return self.snapshots[key]

    def _retire(self, image: Image, successor: Image | None) -> None:
        kept = () if successor is None else successor.snapshots
        held = () if successor is None else successor.blobs
        self._let_go(set(image.blobs) - set(held))
        listed = {key for other in self.images.values() for key in other.snapshots}
        for key in reversed([key for key in image.snapshots if key not in kept]):
            if key in listed or self.children(key):
                break
            if key in self.snapshots:
                self.remove(key)

    def _drop_edges(self, key: str, roles: Iterable[str]) -> set[str]:
        """Drop these references; return the blobs that they kept."""
        dropped = [self.edges.pop((key, role)) for role in roles]
        released = {edge.digest for edge in dropped if edge.policy is Policy.RETAIN}
        self._let_go(released)
        return released

    def _held_for_a_time(self, digest: str) -> None:
        unheld = not self.holders(digest) and digest not in self.queue
        if digest in self.content and unheld:
            self.foreign.add(digest)
        self.queue.discard(digest)

    def _retained(self, digest: str) -> None:
        self.queue.discard(digest)
        self.foreign.discard(digest)

    def _let_go(self, digests: Iterable[str]) -> None:
        """Queue what nothing holds now; whoever let go of anything tries the whole queue."""
        released = set(digests)
        free = {digest for digest in released if not self.holders(digest)}
        self.queue |= free - self.foreign
        self.foreign -= free
        if released:
            self._delete_queued()

    def _delete_queued(self) -> None:
        if not self.deletes_fail:
            self.content -= self.queue
            self.queue.clear()


def state_wanted(model: MapModel) -> State:
    """What `state_of` should return."""
    layers = {key: edge for (key, role), edge in model.edges.items() if role == LAYER}
    live = {pair: edge for pair, edge in model.edges.items() if model.is_live(*pair)}
    snapshots = model.snapshots
    return {
        "content": set(model.content),
        "queue": set(model.queue),
        "snapshots": {key: (item.kind, item.parent) for key, item in snapshots.items()},
        "mapped": {key: edge.digest for (key, role), edge in live.items() if role == LAYER},
        "edges": {d: {key for key, edge in layers.items() if edge.digest == d} for d in BLOBS},
        "counts": {digest: model.holders(digest) for digest in BLOBS},
        "images": dict(model.images),
        "blobs": model.kept(),
        "references": {
            name: {
                role: (edge.digest, edge.policy)
                for (key, role), edge in live.items()
                if key == name
            }
            for name in snapshots
        },
        "metadata": {
            name: {
                note: value
                for (key, note), (value, life) in model.notes.items()
                if (key, life) == (name, item.life)
            }
            for name, item in snapshots.items()
        },
        "leases": {
            name: (EPOCH + item.expires * HOUR, tuple(sorted(item.held)))
            for name, item in model.leases.items()
        },
    }


def compare(world: MapWorld, model: MapModel) -> None:
    """Assert that the wrapper and the model agree on everything that can be asked."""
    assert state_of(world.snapshotter) == state_wanted(model)
    world.check()
    check_feed(world.snapshotter)
