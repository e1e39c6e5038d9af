"""A caller waits no longer than they are willing to, and their deadline is theirs alone."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from support.map_model import BLOBS, DATA, MapWorld, map_world

import blobmap
from blobmap import deadlines
from blobmap.errors import DeadlineExceeded, InvalidArgument

X, Y = BLOBS[:2]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world() as world:
        yield world


@contextmanager
def hanging(world: MapWorld, call: str, key: str) -> Iterator[None]:
    """Let one call to the snapshotter or the content store hang until the block ends."""
    reached, released = threading.Event(), threading.Event()

    def hook(moment: str, called: str, subject: str) -> None:
        if (moment, called, subject) == ("before", call, key):
            reached.set()
            assert released.wait(30)

    world.inner.hook = world.content.hook = hook
    actions = {
        "info": lambda: world.snapshotter.set_blob("other", key),
        "remove": lambda: world.snapshotter.remove(key),
    }
    thread = threading.Thread(target=actions[call])
    thread.start()
    try:
        assert reached.wait(30)
        yield
    finally:
        released.set()
        thread.join()


def test_without_a_deadline_nothing_is_left_of_it() -> None:
    assert deadlines.remaining() is None
    with blobmap.deadline(5):
        left = deadlines.remaining()
        assert left is not None
        assert 0 < left <= 5
    assert deadlines.remaining() is None


def test_of_nested_deadlines_the_earliest_counts() -> None:
    with blobmap.deadline(0), blobmap.deadline(100):
        assert deadlines.remaining() == 0.0
    with blobmap.deadline(100), blobmap.deadline(0):
        assert deadlines.remaining() == 0.0


@pytest.mark.parametrize("seconds", [-1, float("nan")])
def test_a_deadline_that_is_no_time_is_refused(seconds: float) -> None:
    with pytest.raises(InvalidArgument, match="give 0 or more"), blobmap.deadline(seconds):
        pass


def test_a_deadline_is_no_other_thread_s() -> None:
    found: list[float | None] = []
    with blobmap.deadline(5):
        thread = threading.Thread(target=lambda: found.append(deadlines.remaining()))
        thread.start()
        thread.join()
    assert found == [None]


def test_who_needs_what_hangs_waits_until_the_deadline(world: MapWorld) -> None:
    for name in ("a", "b", "other"):
        world.make(name)
    world.content.add_blob(DATA[X])
    with hanging(world, "info", X):
        with pytest.raises(DeadlineExceeded, match="is busy"), blobmap.deadline(0.05):
            world.snapshotter.set_blob("a", X)
        with pytest.raises(DeadlineExceeded, match="'other' is busy"), blobmap.deadline(0.05):
            world.snapshotter.remove("other")
    # What was refused left nothing behind, and works afterwards.
    world.snapshotter.set_blob("a", X)
    world.check()


def test_who_needs_something_else_does_not_wait(world: MapWorld) -> None:
    world.make("other")
    world.make("a", Y)
    world.content.add_blob(DATA[X])
    with hanging(world, "info", X), blobmap.deadline(5):
        world.make("b", Y)
        assert world.snapshotter.references(Y) == 2
        world.snapshotter.remove("a")
        assert world.snapshotter.get_blob("b") is not None
        assert [info.name for info in world.snapshotter.walk()] == ["b", "other"]


def test_a_snapshot_whose_removal_hangs_holds_up_no_other(world: MapWorld) -> None:
    world.make("a", X)
    world.make("b", X)
    with hanging(world, "remove", "a"), blobmap.deadline(5):
        world.snapshotter.remove("b")
        with pytest.raises(DeadlineExceeded), blobmap.deadline(0):
            world.snapshotter.unset_blob("a")
    assert world.present() == set()
