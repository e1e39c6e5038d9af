"""D15 to D22: removing a snapshot whose blob, or key, others have too; and what it costs.

Method: the map over fakes that die, fail, or stand still at the very moment of the defect.
"""

from __future__ import annotations

import errno
import random

import pytest
from support.fakes import FakeSnapshotter
from support.map_model import BLOBS, DATA, MapWorld, image_of
from support.moments import (
    at,
    commit_count,
    elsewhere,
    has_to_wait,
    in_no_time,
    restart,
)

from blobkv import BlobKVError, PoisonedError
from blobkv.testing import SimulatedDisk
from blobmap._map import schema
from blobmap.contracts import Policy
from blobmap.errors import (
    AlreadyExists,
    BlobMapError,
    FailedPrecondition,
    NotFound,
    Unavailable,
)
from blobmap.snapshotter import BlobSnapshotter

X, Y, Z = BLOBS[3:]


def test_d15_an_index_that_is_gone_is_made_anew_from_the_table(world: MapWorld) -> None:
    for name in ("s1", "s2"):
        world.make(name, X)
    world.content.add_blob(DATA[Y])
    world.snapshotter.set_image(image_of("i", (Y,), ("s1",)))
    with world.snapshotter._parts.refs.update("a copy of a part") as change:
        for table in (schema.HOLDER, schema.TALLY, schema.LISTING):
            change.txn.bucket(table).clear()
    world.reopen()
    assert world.snapshotter.references(X) == 2
    assert list(world.snapshotter.snapshots_of(X)) == ["s1", "s2"]
    world.snapshotter.remove("s1")
    assert world.present() == {X, Y}
    world.snapshotter.remove("s2")

    assert world.present() == {Y}


def test_d15_an_open_leaves_an_index_alone_that_is_there(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2")
    world.snapshotter.set_blob("s2", X, policy=Policy.KNOW)
    world.reopen()
    world.snapshotter.unset_blob("s1")
    world.reopen()

    assert list(world.snapshotter.leases()) == []


def test_d16_a_map_that_was_replaced_by_an_empty_one_is_noticed(world: MapWorld) -> None:
    """An empty directory is a new map: then it is `reconcile` that tells of the blobs."""
    world.make("s1", X)
    world.snapshotter.close()
    world.disk = SimulatedDisk()
    world.snapshotter = world.open()
    world.snapshotter.remove("s1")
    assert world.snapshotter.reconcile(dry_run=True).unowned_count == 1

    assert world.present() == {X}


def test_d16_a_file_that_was_replaced_by_an_empty_one_is_damage(world: MapWorld) -> None:
    world.make("s1", X)
    # A second table, and a log with something in it.
    world.reopen()
    world.make("s2", X)
    world.snapshotter.close()
    sound = world.disk
    names = [name for name in sound.names("/map") if name[0] in "M0"]
    assert len(names) > 2
    for name in names:
        world.disk = sound.crash(random.Random(0), keep="all")
        world.disk.set_contents(f"/map/{name}", b"")
        with pytest.raises(BlobKVError):
            world.open()
    world.disk = sound
    world.snapshotter = world.open()


def test_d17_whatever_else_holds_a_blob_keeps_it(world: MapWorld) -> None:
    snapshotter = world.snapshotter
    world.make("s1", X)
    snapshotter.set_image(image_of("i", (X,), ()))
    with snapshotter.lease("l") as lease, snapshotter.work() as work:
        lease.hold(X)
        work.hold(X)
        snapshotter.remove("s1")
        assert world.present() == {X}
        snapshotter.remove_image("i")
        assert world.present() == {X}
    assert world.present() == set()


def test_d17_a_blob_of_others_is_merely_known_or_held_by_another_snapshotter(
    world: MapWorld,
) -> None:
    world.make("s1")
    world.content.add_blob(DATA[X])
    world.snapshotter.set_blob("s1", X, policy=Policy.KNOW)
    world.make("s2", Y)
    world.snapshotter.close()
    with BlobSnapshotter(
        FakeSnapshotter(), world.content, "/map", name="overlay", fs=world.disk
    ) as overlay:
        overlay.prepare("work")
        overlay.commit("s2", "work")
        overlay.set_blob("s2", Y)
    world.snapshotter = world.open()
    world.snapshotter.remove("s1")
    world.snapshotter.remove("s2")

    assert world.present() == {X, Y}


def test_d18_a_push_under_way_keeps_its_blob(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", Y)
    with world.snapshotter.pin(X), world.content.reader_at(Y) as reader:
        world.snapshotter.remove("s1")
        world.snapshotter.remove("s2")
        with world.content.reader_at(X) as pinned:
            assert pinned.read_at(0, pinned.size) == DATA[X]
        assert reader.read_at(0, reader.size) == DATA[Y]

    assert world.present() == set()


def test_d19_of_two_removals_of_one_key_one_finds_nothing(world: MapWorld) -> None:
    world.make("s1", X)

    def remove_it() -> None:
        world.snapshotter.remove("s1")

    world.inner.hook = at("before", "remove", lambda: has_to_wait(remove_it))
    remove_it()
    with pytest.raises(NotFound):
        remove_it()
    assert world.present() == set()


def test_d19_a_key_prepared_within_its_removal_begins_anew(world: MapWorld) -> None:
    world.make("s1", X)
    world.content.add_blob(DATA[Y])

    def make_it_anew() -> None:
        world.snapshotter.prepare("s1")
        assert world.snapshotter.get_blob("s1") is None

    world.inner.hook = at("after", "remove", lambda: elsewhere(make_it_anew))
    world.snapshotter.remove("s1")
    world.snapshotter.prepare("work")
    with pytest.raises(AlreadyExists):
        world.snapshotter.commit("s1", "work")

    assert world.snapshotter.get_blob("s1") is None
    assert world.present() == {Y}


def test_d20_removing_a_view_costs_the_map_no_commit(world: MapWorld) -> None:
    world.make("s1", X)
    before = commit_count(world)
    for _ in range(100):
        world.snapshotter.view("view", "s1")
        world.snapshotter.remove("view")

    assert commit_count(world) == before


def test_d21_a_removal_whose_record_failed_is_ended_by_the_next_open(world: MapWorld) -> None:
    world.make("s1", X)

    def break_the_disk() -> None:
        world.disk.fail(errno.EIO, times=None)

    world.inner.hook = at("after", "remove", break_the_disk)
    with pytest.raises(PoisonedError):
        world.snapshotter.remove("s1")
    world.disk.heal()
    restart(world)

    with pytest.raises(NotFound):
        world.snapshotter.remove("s1")
    assert (world.present(), world.queue()) == (set(), set())


@pytest.mark.parametrize("wait", [False, True])
def test_d21_a_removal_that_is_not_done_with_the_blob_is_told_from_one_that_failed(
    world: MapWorld, *, wait: bool
) -> None:
    world.make("s1", X)
    told: list[Exception] = []

    def remove_it() -> None:
        try:
            in_no_time(lambda: world.snapshotter.remove("s1", wait=wait))
        except BlobMapError as error:
            told.append(error)

    # Whoever holds a blob anew looks at it under its lock.
    world.content.hook = at("after", "info", lambda: elsewhere(remove_it))
    with world.snapshotter.work() as work:
        work.hold(X)

    assert [type(error) for error in told] == ([Unavailable] if wait else [])
    with pytest.raises(NotFound):
        world.snapshotter.remove("s1")
    assert (world.present(), world.queue()) == (set(), set())


def test_d22_the_snapshot_goes_before_the_blob_and_cleanup_is_passed_on(
    world: MapWorld,
) -> None:
    world.make("s1", X)
    order: list[str] = []

    def note(moment: str, call: str, key: str) -> None:
        if call in {"remove", "delete", "cleanup"}:
            order.append(f"{moment} {call}")

    world.inner.hook = world.content.hook = note
    world.snapshotter.remove("s1")
    world.snapshotter.cleanup()

    calls = ("remove", "delete", "cleanup")
    assert order == [f"{moment} {call}" for call in calls for moment in ("before", "after")]


def test_d22_a_snapshot_that_stays_keeps_its_blob(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", None, "s1")
    with pytest.raises(FailedPrecondition):
        world.snapshotter.remove("s1")

    assert (world.present(), world.snapshotter.references(X)) == ({X}, 1)
