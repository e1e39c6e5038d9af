"""D7 to D14: removing a snapshot, when something fails or hangs on the way.

Method: the map over fakes that die, fail, or stand still at the very moment of the defect.
"""

from __future__ import annotations

import errno
import logging
import random
from collections.abc import Iterator
from threading import Event, Thread

import pytest
from support.fakes import no_hook
from support.map_model import BLOBS, DATA, MapWorld, fail
from support.moments import (
    LIMIT_SECONDS,
    Died,
    at,
    die,
    elsewhere,
    has_to_wait,
    in_no_time,
    restart,
)

from blobkv import BlobKVError
from blobmap._map import edges
from blobmap.deadlines import remaining
from blobmap.errors import (
    DeadlineExceeded,
    NotFound,
    Unavailable,
)
from blobmap.refs import Refs

X, Y, Z = BLOBS[3:]


@pytest.fixture
def hanging() -> Iterator[Event]:
    """What a content store that hangs waits for."""
    release = Event()
    yield release
    release.set()


def test_d07_a_removal_that_was_killed_half_way_is_ended_by_the_next_open(
    world: MapWorld,
) -> None:
    world.make("s1", X)
    world.inner.hook = at("after", "remove", die)
    with pytest.raises(Died):
        world.snapshotter.remove("s1")
    assert world.names() == []
    restart(world)

    assert world.snapshotter.references(X) == 0
    assert (world.present(), world.queue()) == (set(), set())
    with pytest.raises(NotFound):
        world.snapshotter.remove("s1")


def test_d08_a_key_used_again_after_a_crash_inherits_no_blob(world: MapWorld) -> None:
    world.make("s1", X)
    world.content.add_blob(DATA[Y])
    world.inner.hook = at("after", "remove", die)
    with pytest.raises(Died):
        world.snapshotter.remove("s1")
    # BuildKit's keys are chain IDs: the same layer comes back under the same key.
    world.inner.hook = no_hook
    world.inner.prepare("work")
    world.inner.commit("s1", "work")
    restart(world)

    assert world.names() == ["s1"]
    assert world.snapshotter.get_blob("s1") is None
    world.snapshotter.set_blob("s1", Y)
    assert world.present() == {Y}


def test_d08_a_key_used_again_behind_the_map_s_back_inherits_no_blob(world: MapWorld) -> None:
    world.make("s1", X)
    world.content.add_blob(DATA[Y])
    world.inner.remove("s1")
    world.make("s1")
    assert world.snapshotter.get_blob("s1") is None
    world.snapshotter.set_blob("s1", Y)

    assert world.present() == {Y}


def test_d09_a_mapping_cannot_slip_into_a_removal(world: MapWorld) -> None:
    world.make("s1", Y)
    world.content.add_blob(DATA[X])

    def map_it() -> None:
        world.snapshotter.set_blob("s1", X, replace=True)

    for moment in ("before", "after"):
        world.inner.hook = at(moment, "remove", lambda: has_to_wait(map_it))
        world.snapshotter.remove("s1")
        with pytest.raises(NotFound):
            map_it()
        assert world.snapshotter.references(X) == 0
        world.make("s1")

    # Nothing held X, so it is nobody's to delete.
    assert world.present() == {X}


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
def test_d10_a_blob_goes_after_the_commit_that_lets_it_go_is_durable(code: int) -> None:
    world = MapWorld()
    world.make("s1", X)
    durable: list[tuple[object, bool]] = []
    world.content.hook = at("before", "delete", lambda: durable.append(recorded(world)))
    world.snapshotter.remove("s1")
    assert durable == [(None, True)]
    count = 0
    for operation in range(1, 100):
        world.snapshotter.close()
        world = MapWorld()
        world.make("s1", X)
        begun = world.disk.operations
        world.disk.fail(code, at=begun + operation)
        try:
            world.snapshotter.remove("s1")
        except (BlobKVError, OSError):
            count += 1
        world.disk.heal()
        if world.disk.operations < begun + operation:
            break
        # Whatever failed: a snapshot that stands for it has it, and the next open ends it all.
        mapped, _ = recorded(world)
        assert mapped is None or X in world.present()
        restart(world)
        assert (X in world.present()) == ("s1" in world.names())
        world.check()
    world.snapshotter.close()
    assert count


def recorded(world: MapWorld) -> tuple[object, bool]:
    """What the next boot would find: the mapping of s1, and whether X is to be deleted."""
    disk = world.disk.crash(random.Random(0), keep="none")
    refs = Refs.open("/map", world.snapshotter._parts.refs.scope, fs=disk)
    found = refs.edge("s1"), refs.queued(X)
    refs.close()
    return found


def test_d11_a_deletion_that_fails_is_logged_stays_recorded_and_is_tried_again(
    world: MapWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.make("s1", X)
    world.content.hook = fail(Unavailable, "delete")
    world.snapshotter.remove("s1")

    assert f"could not delete blob {X}" in caplog.text
    (pending,) = world.snapshotter.pending()
    assert pending.failure == "Unavailable: delete is out of order"
    assert world.snapshotter.reconcile(dry_run=True).counts["deletion open"] == 1
    caplog.clear()
    restart(world)
    assert (world.present(), world.queue()) == (set(), set())
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_d12_a_content_store_that_hangs_holds_up_no_other_call(
    world: MapWorld, hanging: Event
) -> None:
    for name, digest in (("s1", X), ("s2", Y), ("s3", None)):
        world.make(name, digest)
    world.content.add_blob(DATA[Z])
    reached = Event()

    def hang() -> None:
        reached.set()
        assert hanging.wait(LIMIT_SECONDS)

    def others() -> None:
        assert reached.wait(LIMIT_SECONDS)
        world.snapshotter.set_blob("s3", Z)
        world.snapshotter.remove("s2")
        hanging.set()

    world.content.hook = at("before", "delete", hang)
    removal = Thread(target=world.snapshotter.remove, args=("s1",))
    removal.start()
    elsewhere(others)
    removal.join(LIMIT_SECONDS)

    assert world.present() == {Z}


def test_d12_a_content_store_may_call_the_map(world: MapWorld) -> None:
    for name, digest in (("s1", X), ("s2", Y), ("s3", None)):
        world.make(name, digest)
    world.content.add_blob(DATA[Z])

    def call_back() -> None:
        world.snapshotter.set_blob("s3", Z)
        world.snapshotter.remove("s2")
        assert world.snapshotter.references(X) == 0

    world.content.hook = at("before", "delete", call_back, key=X)
    elsewhere(lambda: world.snapshotter.remove("s1"))

    assert world.present() == {Z}


def test_d13_a_caller_who_is_gone_by_then_leaks_no_blob(world: MapWorld) -> None:
    """The store is told of the time that is left, and will not do what takes longer."""

    def cancelled(moment: str, call: str, key: str) -> None:
        left = remaining()
        if (moment, call) == ("before", "delete") and left is not None and left < 1.0:
            raise DeadlineExceeded("a deletion takes a second")

    world.make("s1", X)
    world.content.hook = cancelled
    in_no_time(lambda: world.snapshotter.remove("s1"))
    assert world.names() == []
    assert world.queue() == {X}

    world.make("s2", Y)
    world.snapshotter.remove("s2")
    assert (world.present(), world.queue()) == (set(), set())


def test_d14_an_error_on_either_side_undoes_both(
    world: MapWorld, monkeypatch: pytest.MonkeyPatch
) -> None:
    world.make("s1", X)

    def refuse(*_: object) -> None:
        raise OSError("the index cannot be written")

    with monkeypatch.context() as patched:
        patched.setattr(edges, "unlink", refuse)
        with pytest.raises(OSError, match="index"):
            world.snapshotter.unset_blob("s1")
        world.check()
        assert (world.snapshotter.references(X), world.queue()) == (1, set())
        with pytest.raises(OSError, match="index"):
            world.snapshotter.remove("s1")
    world.reopen()

    assert (world.present(), world.queue()) == (set(), set())
