"""Leases keep blobs across processes until their time, and pins as long as their block.

Method: a map over fakes with a clock that is set by hand; with the background, whether it wakes
up by itself is seen by a blob that goes without any call.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta
from threading import Event

import pytest
from support.fakes import FakeSnapshotter
from support.map_model import BLOBS, DATA, HOUR, MapWorld

from blobmap import BlobSnapshotter
from blobmap._map import leases as module
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

X, Y, Z = BLOBS[:3]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    world = MapWorld()
    yield world
    world.check()
    world.snapshotter.close()


def put(world: MapWorld, digest: str) -> str:
    return world.content.add_blob(DATA[digest])


def test_a_lease_keeps_a_blob_that_its_last_snapshot_let_go(world: MapWorld) -> None:
    world.make("a", X)
    lease = world.snapshotter.lease("export")
    lease.hold(X)
    world.snapshotter.remove("a")
    assert world.present() == {X}
    assert world.snapshotter.references(X) == 1
    assert "lease export" in str(world.snapshotter.explain(X))

    lease.release()
    assert world.present() == set()
    lease.release()


def test_a_lease_may_hold_what_is_not_there_yet(world: MapWorld) -> None:
    with world.snapshotter.lease("import") as lease:
        lease.hold(X)
        put(world, X)
        world.make("a", X)
    assert world.present() == {X}


def test_a_blob_that_was_there_before_and_nobody_s_outlives_the_lease(world: MapWorld) -> None:
    put(world, X)
    with world.snapshotter.lease("look") as lease:
        lease.hold(X)
    assert world.present() == {X}


def test_a_lease_survives_a_crash_and_ends_at_its_time(world: MapWorld) -> None:
    world.make("a", X)
    world.snapshotter.lease("export", lifetime=HOUR, labels={"for": "registry"}).hold(X)
    world.snapshotter.remove("a")
    world.disk = world.disk.crash(random.Random(1))
    world.snapshotter = world.open()

    (info,) = world.snapshotter.leases()
    assert (info.name, info.labels) == ("export", {"for": "registry"})
    assert info.expires - info.created == HOUR
    assert list(world.snapshotter.open_lease("export").digests()) == [X]
    assert world.present() == {X}
    world.clock.now += HOUR
    world.reopen()
    assert world.present() == set()
    assert list(world.snapshotter.leases()) == []


def test_a_lease_that_is_renewed_lasts_on(world: MapWorld) -> None:
    world.make("a", X)
    lease = world.snapshotter.lease("export", lifetime=HOUR)
    lease.hold(X)
    world.snapshotter.remove("a")
    world.clock.now += HOUR / 2
    lease.renew(HOUR)
    world.clock.now += HOUR * 0.9
    world.reopen()

    assert world.present() == {X}
    assert world.snapshotter.open_lease("export").info.expires > world.clock.now


def test_expiry_wakes_up_by_time_and_not_by_luck(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS_MAX", 0.001)
    world, deleted = MapWorld(background=True), Event()
    world.make("a", X)
    world.snapshotter.lease("export", lifetime=HOUR).hold(X)
    world.snapshotter.remove("a")

    def hook(moment: str, call: str, key: str) -> None:
        if (moment, call) == ("after", "delete"):
            deleted.set()

    world.content.hook = hook
    assert not deleted.wait(0.05)
    world.clock.now += HOUR
    assert deleted.wait(30)
    world.snapshotter.close()
    assert world.present() == set()


def test_a_lease_that_has_ended_holds_nothing_more(world: MapWorld) -> None:
    lease = world.snapshotter.lease("export", lifetime=HOUR)
    world.clock.now += HOUR
    world.snapshotter.reconcile()
    for use in (lambda: lease.hold(X), lambda: lease.renew(HOUR), lambda: lease.info):
        with pytest.raises(NotFound, match="released, or has expired"):
            use()
    with pytest.raises(NotFound):
        world.snapshotter.open_lease("export")


def test_a_lease_that_has_ended_does_not_touch_a_later_one_of_its_name(world: MapWorld) -> None:
    world.make("a", X)
    old = world.snapshotter.lease("export", lifetime=HOUR)
    world.clock.now += HOUR
    new = world.snapshotter.lease("export", lifetime=HOUR)
    new.hold(X)
    world.snapshotter.remove("a")
    old.release()
    old.drop(X)
    for use in (lambda: old.hold(Y), lambda: old.renew(HOUR), lambda: old.info):
        with pytest.raises(NotFound):
            use()

    assert list(new.digests()) == [X]
    assert world.present() == {X}


def test_a_lease_lets_go_of_single_blobs(world: MapWorld) -> None:
    world.make("a", X)
    lease = world.snapshotter.lease("export")
    lease.hold(X)
    lease.hold(X)
    world.snapshotter.remove("a")
    lease.drop(Y)
    lease.drop(X)

    assert world.present() == set()
    assert list(lease.digests()) == []


def test_names_of_leases_are_their_own(world: MapWorld) -> None:
    world.snapshotter.lease("a")
    world.snapshotter.lease("a\x00")
    with pytest.raises(AlreadyExists, match="open_lease"):
        world.snapshotter.lease("a")
    assert [info.name for info in world.snapshotter.leases()] == ["a", "a\x00"]


@pytest.mark.parametrize(
    ("name", "lifetime"),
    [("", HOUR), ("n" * 2000, HOUR), ("a", timedelta(0)), ("a", -HOUR), ("a", timedelta.max)],
)
def test_leases_that_cannot_be_are_refused(
    world: MapWorld, name: str, lifetime: timedelta
) -> None:
    with pytest.raises(InvalidArgument):
        world.snapshotter.lease(name, lifetime=lifetime)


@pytest.mark.parametrize("background", [False, True])
def test_a_lease_ends_at_its_time_though_its_own_snapshotter_is_never_opened_again(
    monkeypatch: pytest.MonkeyPatch, *, background: bool
) -> None:
    monkeypatch.setattr(module, "_LOOK_SECONDS_MAX", 0.001)
    world = MapWorld(background=background)
    world.make("a", X)
    world.snapshotter.lease("export", lifetime=HOUR).hold(X)
    world.snapshotter.remove("a")
    world.snapshotter.close()
    with BlobSnapshotter(
        FakeSnapshotter(),
        world.content,
        "/map",
        name="other",
        background=background,
        clock=world.clock,
        fs=world.disk,
    ) as other:
        other.lease("export", lifetime=2 * HOUR).hold(X)
        assert [info.name for info in other.leases()] == ["export"]
        world.clock.now += HOUR
        other.reconcile()
        assert other.references(X) == 1
        world.clock.now += HOUR
        while world.present():
            other.reconcile()
        assert list(other.leases()) == []


@pytest.mark.parametrize("force", [False, True])
def test_a_blob_that_was_never_the_map_s_outlives_the_loss_of_who_held_it(
    world: MapWorld, *, force: bool
) -> None:
    for number in range(20):
        world.make(f"{number}", Y)
    put(world, X)
    world.snapshotter.lease("look").hold(X)
    refs = world.snapshotter._parts.refs
    with refs.update("a test") as change:
        change.txn.bucket("leased").clear()
        change.txn.bucket("holder").delete(refs.holder("lease", "look").key(X))
    assert world.snapshotter.reconcile(force=force).ok
    for info in list(world.snapshotter.leases()):
        world.snapshotter.open_lease(info.name).release()

    assert world.present() == {X, Y}


# Pins.


def test_a_pinned_blob_stays_while_its_last_snapshot_goes(world: MapWorld) -> None:
    world.make("a", X)
    with world.snapshotter.pin(X):
        world.snapshotter.remove("a")
        assert world.present() == {X}
    assert world.present() == set()


def test_a_blob_that_was_there_when_it_is_written_again_is_pinned_all_the_same(
    world: MapWorld,
) -> None:
    """Its last snapshot goes between the writer that says so and the mapping that follows."""
    world.make("a", X)
    world.make("b")
    with world.snapshotter.pin(X):
        with pytest.raises(AlreadyExists), world.content.writer("r", digest=X):
            pass
        world.snapshotter.remove("a")
        world.snapshotter.set_blob("b", X)
    assert world.present() == {X}


def test_pins_end_with_their_process(world: MapWorld) -> None:
    world.make("a", X)
    pin = world.snapshotter.pin(X, Y)
    pin.__enter__()
    put(world, Y)
    world.snapshotter.remove("a")
    world.disk = world.disk.crash(random.Random(2))
    world.snapshotter = world.open()

    assert world.present() == set()


def test_a_pin_that_has_ended_pins_nothing_more(world: MapWorld) -> None:
    with world.snapshotter.pin(X) as pin:
        pin.hold(Y)
    with pytest.raises(FailedPrecondition):
        pin.hold(Z)
    with pytest.raises(InvalidArgument), world.snapshotter.pin("sha256:.."):
        pass
