"""Blobs are deleted behind their last holder's back, and what fails is tried again.

Method: a map with its threads over fakes whose `delete` fails or hangs as it is told; who
waits, waits for an event of the fake, and no time is looked at.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from threading import Event, Thread
from time import sleep

import pytest
from support.map_model import BLOBS, DATA, MapWorld

from blobkv import LockedError
from blobmap import deadlines
from blobmap._map import background as background_module
from blobmap.contracts import Policy
from blobmap.deadlines import deadline
from blobmap.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable

X, Y, Z = BLOBS[:3]
PATIENCE_SECONDS = 30.0


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Iterator[MapWorld]:
    monkeypatch.setattr(background_module, "_backoff", lambda _: 0.001)
    world = MapWorld(background=True)
    yield world
    world.snapshotter.close()


class Store:
    """Has the deletions of a fake fail or hang, and tells when one succeeded."""

    def __init__(self, world: MapWorld, *, failures: int = 0, hangs: str = "") -> None:
        self.deleted = Event()
        self.reached, self.release = Event(), Event()
        self.failures = failures
        self._hangs = hangs
        world.content.hook = self._hook

    def _hook(self, moment: str, call: str, key: str) -> None:
        if call != "delete":
            return
        if moment == "after":
            self.deleted.set()
        elif key == self._hangs:
            self.reached.set()
            assert self.release.wait(PATIENCE_SECONDS)
        elif self.failures:
            self.failures -= 1
            raise OSError("the content store is out of order")


def wait_until_gone(world: MapWorld, store: Store) -> None:
    assert store.deleted.wait(PATIENCE_SECONDS)
    deletions = world.snapshotter._parts.background
    assert deletions is not None
    while world.queue():
        deletions.wait(["sweep the queue of deletions"], PATIENCE_SECONDS)


def test_a_blob_is_gone_when_its_last_snapshot_is(world: MapWorld) -> None:
    world.make("a", X)
    world.snapshotter.remove("a")

    assert world.present() == set()
    assert list(world.snapshotter.pending()) == []


def test_a_deletion_that_fails_is_tried_again_by_itself(world: MapWorld) -> None:
    world.make("a", X)
    store = Store(world, failures=5)
    world.snapshotter.remove("a")

    wait_until_gone(world, store)
    assert world.present() == set()
    assert world.snapshotter.failure_count == 5


def test_what_is_pending_says_why_and_what_went_wrong(world: MapWorld) -> None:
    world.make("a", X)
    store = Store(world, failures=10**9)
    world.snapshotter.remove("a")

    (pending,) = world.snapshotter.pending()
    assert (pending.digest, pending.size, pending.cause) == (X, len(DATA[X]), "remove")
    assert pending.failure == "OSError: the content store is out of order"
    assert "to be deleted" in str(world.snapshotter.explain(X))
    store.failures = 0
    wait_until_gone(world, store)


def test_at_once_means_at_once(world: MapWorld) -> None:
    world.make("a", X)
    world.make("b", Y)
    world.snapshotter.remove("a", wait=True)
    assert world.present() == {Y}

    Store(world, failures=1)
    with pytest.raises(Unavailable, match="its deletion stays queued"):
        world.snapshotter.remove("b", wait=True)
    # The snapshot is gone all the same.
    with pytest.raises(NotFound):
        world.snapshotter.stat("b")


def test_a_store_that_hangs_holds_up_neither_the_caller_nor_other_blobs(
    world: MapWorld,
) -> None:
    for name, digest in (("a", X), ("b", Y), ("c", Z)):
        world.make(name, digest)
    store = Store(world, hangs=X)
    world.snapshotter.remove("a")
    assert store.reached.wait(PATIENCE_SECONDS)
    assert [pending.digest for pending in world.snapshotter.pending()] == [X]

    world.snapshotter.remove("b", wait=True)
    world.snapshotter.unset_blob("c")
    assert Y not in world.present()
    store.release.set()
    wait_until_gone(world, store)


def test_closing_waits_for_a_deletion_under_way(world: MapWorld) -> None:
    """Were it to end after the map is opened anew, it could take a blob that is held again."""
    world.make("a", X)
    store = Store(world, hangs=X)
    world.snapshotter.remove("a")
    assert store.reached.wait(PATIENCE_SECONDS)
    with pytest.raises(DeadlineExceeded, match=f"delete blob {X}"), deadline(0.01):
        world.snapshotter.close()
    with pytest.raises(LockedError):
        world.open()
    store.release.set()
    world.snapshotter.close()

    world.snapshotter = world.open()
    assert (world.queue(), world.present()) == (set(), set())


@pytest.mark.parametrize("background", [False, True])
def test_closing_waits_for_a_deletion_that_a_caller_makes(*, background: bool) -> None:
    world = MapWorld(background=background)
    world.make("a", X)
    store = Store(world, hangs=X)
    remove = partial(world.snapshotter.remove, "a", wait=True)
    caller = Thread(target=remove, daemon=True)
    caller.start()
    assert store.reached.wait(PATIENCE_SECONDS)
    with pytest.raises(DeadlineExceeded, match=X), deadline(0.01):
        world.snapshotter.close()
    with pytest.raises(LockedError):
        world.open()
    store.release.set()
    caller.join(PATIENCE_SECONDS)
    world.snapshotter.close()

    world.snapshotter = world.open()
    assert (world.queue(), world.present()) == (set(), set())
    world.snapshotter.close()


def test_a_map_that_is_closed_in_the_middle_of_a_deletion_by_its_own_thread_is_closed() -> None:
    world = MapWorld()
    world.make("a", X)

    def close(moment: str, call: str, key: str) -> None:
        if (moment, call) == ("before", "delete"):
            world.snapshotter.close()

    world.content.hook = close
    with pytest.raises(FailedPrecondition, match="closed"):
        world.snapshotter.remove("a")
    world.content.hook = lambda *_: None
    world.snapshotter = world.open()
    assert (world.queue(), world.present()) == (set(), set())
    world.snapshotter.close()


def test_opening_does_not_wait_for_a_store_that_hangs(world: MapWorld) -> None:
    world.make("a", X)
    Store(world, failures=10**9)
    world.snapshotter.remove("a")
    world.snapshotter.close()
    store = Store(world, hangs=X)
    world.snapshotter = world.open()

    assert store.reached.wait(PATIENCE_SECONDS)
    assert world.queue() == {X}
    store.release.set()
    wait_until_gone(world, store)


def test_a_store_that_works_again_is_tried_at_once_when_asked_to(
    world: MapWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(background_module, "_backoff", lambda _: 3600.0)
    world.make("a", X)
    store = Store(world, failures=2)
    world.snapshotter.remove("a")
    background = world.snapshotter._parts.background
    assert background is not None
    while not any(task.failures for task in list(background._tasks.values())):
        store.deleted.wait(0.001)
    world.snapshotter._deletions._patience = PATIENCE_SECONDS

    assert world.snapshotter.reconcile().ok
    assert world.present() == set()


@pytest.mark.parametrize("background", [False, True])
def test_a_deletion_that_is_tried_again_has_all_the_time_it_needs(*, background: bool) -> None:
    world, times = MapWorld(background=background), []

    def hook(moment: str, call: str, key: str) -> None:
        if (moment, call) == ("before", "delete"):
            times.append(deadlines.remaining())
            if len(times) == 1:
                raise OSError("out of order")

    for name, digest in (("a", X), ("b", Y)):
        world.make(name, digest)
    world.content.hook = hook
    world.snapshotter.remove("a")
    world.snapshotter.remove("b")
    while world.queue():
        sleep(0)
    world.snapshotter.close()

    assert times == [None] * 3


def test_a_blob_held_anew_before_its_deletion_stays(world: MapWorld) -> None:
    world.make("a", X)
    world.make("b")
    store = Store(world, failures=10**9)
    world.snapshotter.remove("a")
    world.snapshotter.set_blob("b", X)
    store.failures = 0

    assert world.queue() == set()
    assert world.present() == {X}
    world.check()


# The answer before the deed.


def test_a_plan_says_what_would_go_and_changes_nothing(world: MapWorld) -> None:
    world.make("a", X)
    world.make("b", Y, parent="a")
    world.make("c", Y, parent="b")
    world.make("other", X)
    world.snapshotter.set_reference("c", "build", world.content.add_blob(DATA[Z]))
    plan = world.snapshotter.plan_removal("a", "b", "c")

    assert plan.snapshots == ("c", "b", "a")
    assert [blob.digest for blob in plan.blobs] == sorted([Y, Z])
    assert plan.blob_size == len(DATA[Y]) + len(DATA[Z])
    assert plan.size == plan.blob_size + plan.snapshot_size
    assert world.present() == {X, Y, Z}
    for key in plan.snapshots:
        world.snapshotter.remove(key)
    assert world.present() == {X}


def test_a_plan_leaves_out_what_is_held_or_merely_known(world: MapWorld) -> None:
    world.make("a", X)
    world.make("b", Y)
    world.snapshotter.set_reference(
        "a", "other", world.content.add_blob(DATA[Z]), policy=Policy.KNOW
    )
    with world.snapshotter.pin(Y):
        plan = world.snapshotter.plan_removal("a", "b")
    assert [blob.digest for blob in plan.blobs] == [X]


def test_a_plan_of_what_cannot_go_is_refused(world: MapWorld) -> None:
    world.make("a", X)
    world.make("b", Y, parent="a")
    with pytest.raises(FailedPrecondition, match="parent of 'b'"):
        world.snapshotter.plan_removal("a")
    with pytest.raises(NotFound, match="'no'"):
        world.snapshotter.plan_removal("no")
