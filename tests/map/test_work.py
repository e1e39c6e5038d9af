"""Work in flight keeps the blobs it holds, and leaves nothing half-made behind.

Method: the wrapper over in-memory fakes and a simulated disk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from support.map_model import BLOBS, DATA, MapWorld, map_world

from blobmap._map.work import Work
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, Unavailable

X, Y, Z = BLOBS[:3]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world() as world:
        yield world


def crash(world: MapWorld) -> None:
    """Open anew as after a crash: the works that were going on have no end."""
    world.snapshotter._parts.refs.close()
    world.snapshotter = world.open()


def test_a_held_blob_that_nothing_maps_goes_with_the_work(world: MapWorld) -> None:
    with world.snapshotter.work() as work:
        work.hold(X)
        world.content.add_blob(DATA[X])

    assert world.present() == set()


def test_a_held_blob_that_is_mapped_by_then_stays(world: MapWorld) -> None:
    with world.snapshotter.work() as work:
        work.hold(X)
        world.make("s", X)

    assert world.present() == {X}
    assert world.snapshotter.references(X) == 1


def test_a_held_blob_outlives_its_last_snapshot(world: MapWorld) -> None:
    world.make("s", X)
    with world.snapshotter.work() as work:
        work.hold(X)
        world.snapshotter.remove("s")
        assert world.present() == {X}
        world.make("t")
        world.snapshotter.set_blob("t", X)

    assert world.present() == {X}


def test_a_blob_that_was_there_before_is_not_the_works_to_delete(world: MapWorld) -> None:
    world.content.add_blob(DATA[X])
    with world.snapshotter.work() as first, world.snapshotter.work() as second:
        first.hold(X)
        second.hold(X)

    assert world.present() == {X}


def test_a_blob_whose_deletion_failed_is_the_maps_even_if_held_then(world: MapWorld) -> None:
    world.make("s", X)
    world.content.hook = out_of_order
    world.snapshotter.remove("s")
    world.content.hook = in_order
    with world.snapshotter.work() as work:
        work.hold(X)
        assert world.queue() == set()

    assert world.present() == set()


def test_work_that_fails_drops_its_claims_and_raises(world: MapWorld) -> None:
    with pytest.raises(ZeroDivisionError), world.snapshotter.work() as work:
        work.hold(X)
        world.content.add_blob(DATA[X])
        work.scratch("a")
        world.snapshotter.prepare("a")
        _ = 1 / 0

    assert world.names() == []
    assert world.present() == set()


def interrupt(world: MapWorld) -> None:
    """Begin a work that makes a blob and a snapshot, and is then interrupted."""
    with pytest.raises(KeyboardInterrupt), world.snapshotter.work() as work:
        work.hold(X)
        world.content.add_blob(DATA[X])
        work.scratch("a")
        world.snapshotter.prepare("a")
        raise KeyboardInterrupt


def begin_another(world: MapWorld) -> None:
    world.snapshotter.work().close()


def reconcile(world: MapWorld) -> None:
    world.snapshotter.reconcile()


@pytest.mark.parametrize("act", [begin_another, reconcile, crash])
def test_an_interrupt_ends_work_at_once_and_leaves_its_claims_for_later(
    world: MapWorld, act: Callable[[MapWorld], None]
) -> None:
    interrupt(world)
    assert world.names() == ["a"]
    assert world.present() == {X}

    act(world)
    assert world.names() == []
    assert world.present() == set()


def test_work_that_dies_drops_its_claims_at_the_next_open(world: MapWorld) -> None:
    work = world.snapshotter.work()
    work.hold(X)
    world.content.add_blob(DATA[X])
    work.scratch("a")
    world.snapshotter.prepare("a")
    crash(world)

    assert world.names() == []
    assert world.present() == set()
    assert world.snapshotter.references(X) == 0


def test_scratch_that_was_committed_stays(world: MapWorld) -> None:
    with world.snapshotter.work() as work:
        work.scratch("a")
        world.snapshotter.prepare("a")
        world.snapshotter.commit("s", "a")
        work.scratch("b")

    assert world.names() == ["s"]


def test_a_committed_snapshot_of_the_scratch_key_stays(world: MapWorld) -> None:
    with world.snapshotter.work() as work:
        work.scratch("a")
        world.make("a")

    assert world.names() == ["a"]


def test_a_key_that_is_taken_cannot_be_claimed(world: MapWorld) -> None:
    world.snapshotter.prepare("a")
    with world.snapshotter.work() as work, pytest.raises(AlreadyExists):
        work.scratch("a")

    assert world.names() == ["a"]


def test_scratch_that_cannot_be_removed_is_tried_again(world: MapWorld) -> None:
    world.inner.hook = out_of_order
    with world.snapshotter.work() as work:
        work.scratch("a")
        world.snapshotter.prepare("a")
        work.hold(X)
        world.content.add_blob(DATA[X])
    assert world.names() == ["a"]
    assert world.present() == set()
    assert world.snapshotter.failure_count == 1
    world.inner.hook = in_order
    report = world.snapshotter.reconcile()

    assert report.counts["work open"] == 1
    assert report.ok
    assert world.names() == []


def test_reconcile_leaves_work_that_goes_on_alone(world: MapWorld) -> None:
    with world.snapshotter.work() as work:
        work.hold(X)
        world.content.add_blob(DATA[X])
        assert world.snapshotter.reconcile().ok
        assert world.snapshotter.references(X) == 1


def test_work_that_has_ended_claims_nothing(world: MapWorld) -> None:
    with world.snapshotter.work() as work:
        pass
    for claim in (lambda: work.hold(X), lambda: work.scratch("a")):
        with pytest.raises(FailedPrecondition, match="begin another"):
            claim()
    work.close()


def test_what_cannot_be_recorded_cannot_be_claimed(world: MapWorld) -> None:
    work: Work
    with world.snapshotter.work() as work:
        with pytest.raises(InvalidArgument):
            work.hold("sha256:..")
        with pytest.raises(InvalidArgument):
            work.scratch("")


def out_of_order(moment: str, call: str, key: str) -> None:
    if moment == "before" and call in {"remove", "delete"}:
        raise Unavailable("out of order")


def in_order(moment: str, call: str, key: str) -> None:
    pass
