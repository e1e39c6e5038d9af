"""The feed has each link, unlink, and deletion, in order, with its cause, and is bounded.

Method: a map over fakes; what was done is compared with what the feed tells, also after a
crash, and a feed with a small bound is written over it.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from support.map_model import BLOBS, DATA, MapWorld, image_of, map_world

import blobmap
from blobkv.testing import SimulatedDisk
from blobmap import EventKind, Policy, Retention
from blobmap._map.schema import EVENT, Scope
from blobmap.errors import DataLoss, OutOfRange
from blobmap.refs import Refs

X, Y, Z = BLOBS[:3]
LINK, UNLINK, DELETE = EventKind


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world() as world:
        yield world


def told(world: MapWorld, after: int = 0) -> list[tuple[EventKind, str, str, str]]:
    return [
        (event.kind, event.digest, event.holder.name if event.holder else "", event.cause)
        for event in world.snapshotter.events(after=after)
    ]


def test_the_feed_answers_who_deleted_a_blob(world: MapWorld) -> None:
    world.make("a", X)
    world.make("b", X)
    world.snapshotter.remove("a")
    world.snapshotter.unset_blob("b")

    assert told(world) == [
        (LINK, X, "a", "set_blob"),
        (LINK, X, "b", "set_blob"),
        (UNLINK, X, "a", "remove"),
        (UNLINK, X, "b", "unset_blob"),
        (DELETE, X, "", "unset_blob"),
    ]


def test_positions_count_from_1_and_times_and_holders_are_told(world: MapWorld) -> None:
    world.make("a", X)
    world.snapshotter.set_blob("a", X, policy=Policy.KNOW, replace=True)

    events = list(world.snapshotter.events())
    assert [event.position for event in events] == [1, 2, 3, 4]
    assert [event.retains for event in events] == [True, False, True, True]
    assert events[0].holder == blobmap.Holder(
        "snapshot", blobmap.Scope("default", "default"), "a", "layer"
    )
    assert str(events[1]).endswith("as layer, merely known: set_blob")
    assert events[0].time == world.clock.now


def test_images_works_and_leases_are_told_of(world: MapWorld) -> None:
    world.make("a", X)
    world.content.add_blob(DATA[Y])
    snapshotter = world.snapshotter
    snapshotter.set_image(image_of("i", (Y,), ("a",)))
    snapshotter.remove_image("i")
    with snapshotter.pin(Z), snapshotter.lease("l") as lease:
        lease.hold(Z)

    causes = [cause for *_, cause in told(world)]
    assert causes == [
        "set_blob",
        "set_image 'i'",
        "remove_image 'i'",
        "remove_image 'i'",
        "image 'i' is gone",
        "image 'i' is gone",
        "held by work",
        "lease 'l'",
        "lease 'l' released",
        "work ended",
        "work ended",
    ]


def test_nothing_is_told_of_what_changed_nothing(world: MapWorld) -> None:
    world.make("a", X)
    before = told(world)
    world.snapshotter.set_blob("a", X)
    with pytest.raises(blobmap.AlreadyExists):
        world.snapshotter.set_blob("a", world.content.add_blob(DATA[Y]))

    assert told(world) == before


def test_a_reader_goes_on_where_it_was(world: MapWorld) -> None:
    world.make("a", X)
    world.make("b", X)

    assert told(world, after=1) == [(LINK, X, "b", "set_blob")]
    assert told(world, after=2) == []
    assert told(world, after=99) == []


def test_the_feed_of_a_map_that_lost_its_power_has_what_the_map_has() -> None:
    disk = SimulatedDisk()
    world = MapWorld(opened=False)
    world.disk = disk
    world.snapshotter = world.open()
    for number in range(40):
        world.make(f"{number}", X)
    world.disk = disk.crash(random.Random(7))
    world.snapshotter = world.open()

    linked = [name for kind, _, name, _ in told(world) if kind is LINK]
    assert sorted(linked) == sorted(world.snapshotter.snapshots_of(X))
    assert len(linked) == 40


def fed(retention: Retention, count: int, *, step: timedelta = timedelta(0)) -> Refs:
    """A map of as many events, one a step of time apart."""
    now = [datetime(2000, 1, 1, tzinfo=UTC)]

    def clock() -> datetime:
        now[0] += step
        return now[0]

    scope = Scope("default", "default")
    refs = Refs.open("/m", scope, clock=clock, retention=retention, fs=SimulatedDisk())
    with refs.update("a test") as change:
        for _ in range(count):
            blobmap._map.events.Change(change.txn, "a test", clock(), retention).tell(LINK, X)
    return refs


def test_events_past_the_bound_of_the_count_go_a_segment_at_a_time() -> None:
    refs = fed(Retention(count=2000), 5000)

    with pytest.raises(OutOfRange, match="begin after 2047"):
        list(refs.events(0))
    assert [event.position for event in refs.events(2047)] == list(range(2048, 5001))


def test_events_past_the_bound_of_the_age_go() -> None:
    retention = Retention(age=timedelta(seconds=1500))
    refs = fed(retention, 4500, step=timedelta(seconds=1))

    first = next(iter(refs.events(2047))).position
    assert first == 2048
    with pytest.raises(OutOfRange):
        list(refs.events(2046))


def test_the_newest_segment_stays_however_old() -> None:
    refs = fed(Retention(count=1, age=timedelta(seconds=1)), 1500)
    refs.trim_events()

    assert [event.position for event in refs.events(1023)] == list(range(1024, 1501))


def test_an_event_under_an_impossible_key_is_data_loss(world: MapWorld) -> None:
    with world.snapshotter._parts.refs.update("a test") as change:
        change.txn.bucket(EVENT).put(b"\xff", b"{}")
    with pytest.raises(DataLoss, match="never wrote"):
        world.make("a", X)
