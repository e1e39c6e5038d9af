"""A blob goes with its last snapshot, whatever fails on the way.

Method: the wrapper over in-memory fakes and a simulated disk; failures come from the fakes'
hooks. For crashes at every moment see `test_map_crash`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest
from support.map_model import BLOBS, DATA, MapWorld, fail, map_world

from blobmap._map.schema import Intent, incarnation
from blobmap.contracts import Blob, Kind
from blobmap.errors import (
    FailedPrecondition,
    NotFound,
    Unavailable,
)

X, Y, Z = BLOBS[3:]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world(X, Y) as world:
        yield world


def test_a_blob_goes_with_its_last_snapshot(world: MapWorld) -> None:
    for name in ("s", "s-", "\xff"):
        world.make(name, X)
    for name in ("s", "\xff"):
        world.snapshotter.remove(name)
        assert X in world.present()
    world.snapshotter.remove("s-")

    assert X not in world.present()


def test_removing_what_is_not_mapped_costs_the_map_nothing(world: MapWorld) -> None:
    world.snapshotter.view("v")
    before = world.disk.operations
    world.snapshotter.remove("v")
    with pytest.raises(NotFound):
        world.snapshotter.remove("v")

    assert world.disk.operations == before


def test_a_snapshot_with_children_keeps_its_blob(world: MapWorld) -> None:
    world.make("s", X)
    world.make("t", parent="s")
    with pytest.raises(FailedPrecondition, match="remove"):
        world.snapshotter.remove("s")

    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]))
    world.reopen()
    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]))


def test_a_snapshot_that_vanished_is_not_found_and_left_to_reconcile(world: MapWorld) -> None:
    world.make("s", X)
    world.inner.remove("s")
    with pytest.raises(NotFound):
        world.snapshotter.remove("s")

    assert X in world.present()


def test_a_deletion_that_fails_is_logged_counted_and_tried_at_open(
    world: MapWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.make("s", X)
    world.content.hook = fail(RuntimeError, "delete")
    with caplog.at_level(logging.ERROR, "blobmap"):
        world.snapshotter.remove("s")

    assert f"could not delete blob {X}" in caplog.text
    assert world.snapshotter.failure_count == 1
    assert world.queue() == {X}
    assert "to be deleted" in str(world.snapshotter.explain(X))
    world.content.hook = fail(RuntimeError)
    world.reopen()
    assert X not in world.present()
    assert world.queue() == set()


def test_a_deletion_that_failed_is_tried_with_the_next(world: MapWorld) -> None:
    world.make("s", X)
    world.make("t", Y)
    world.content.hook = fail(Unavailable, "delete", times=1)
    world.snapshotter.remove("s")
    assert X in world.present()
    world.snapshotter.remove("t")

    assert world.present() == set()


def test_mapping_a_blob_whose_deletion_failed_keeps_it(world: MapWorld) -> None:
    world.make("s", X)
    world.make("t")
    world.content.hook = fail(Unavailable, "delete", times=1)
    world.snapshotter.remove("s")
    world.snapshotter.set_blob("t", X)
    world.reopen()

    assert X in world.present()


def test_a_removal_that_failed_but_happened_is_a_success(world: MapWorld) -> None:
    world.make("s", X)
    world.inner.hook = fail(Unavailable, "remove", moment="after")
    world.snapshotter.remove("s")

    assert X not in world.present()


def test_a_removal_that_failed_is_not_repeated_behind_the_callers_back(
    world: MapWorld,
) -> None:
    world.make("s", X)
    world.inner.hook = fail(Unavailable, "remove")
    with pytest.raises(Unavailable):
        world.snapshotter.remove("s")
    world.inner.hook = fail(Unavailable)
    world.reopen()

    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_removal_of_unknown_outcome_is_looked_up_at_open(
    world: MapWorld, moment: str
) -> None:
    world.make("s", X)
    failing = [False]

    def hook(at: str, call: str, key: str) -> None:
        if (at, call) == (moment, "remove"):
            failing[0] = True
        if failing[0]:
            raise Unavailable("out of order")

    world.inner.hook = hook
    with pytest.raises(Unavailable):
        world.snapshotter.remove("s")
    world.inner.hook = fail(Unavailable)
    world.reopen()

    if moment == "before":
        assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]))
    else:
        assert X not in world.present()
    assert list(world.snapshotter._parts.refs.intents()) == []


def test_opening_does_not_remove_what_lives_under_the_key_now(world: MapWorld) -> None:
    world.make("s", X)
    life = incarnation(world.inner.stat("s"))
    world.snapshotter._parts.refs.put_intent("s", Intent(life))
    world.inner.remove("s")
    world.inner.prepare("s")
    world.reopen()

    assert world.snapshotter.stat("s").kind is Kind.ACTIVE
    assert world.present() == {Y}


def test_opening_keeps_a_snapshot_that_has_children_by_now(world: MapWorld) -> None:
    world.make("s", X)
    life = incarnation(world.inner.stat("s"))
    world.snapshotter._parts.refs.put_intent("s", Intent(life))
    world.inner.prepare("child", "s")
    world.reopen()

    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]))
    assert world.snapshotter.failure_count == 0
    assert world.snapshotter.reconcile().ok


def test_removing_again_after_an_unknown_outcome_succeeds(world: MapWorld) -> None:
    world.make("s", X)
    answers = iter([None, Unavailable("the answer is lost"), Unavailable("so is this one")])

    def hook(at: str, call: str, key: str) -> None:
        if (at, call) in {("before", "stat"), ("after", "remove")}:
            answer = next(answers)
            if answer is not None:
                raise answer

    world.inner.hook = hook
    with pytest.raises(Unavailable):
        world.snapshotter.remove("s")
    world.inner.hook = fail(Unavailable)
    world.snapshotter.remove("s")

    assert X not in world.present()


def test_ending_a_removal_leaves_what_lives_under_the_key_now_its_metadata(
    world: MapWorld,
) -> None:
    world.make("s", X)

    def lose_all_answers(moment: str, call: str, key: str) -> None:
        # Once the removal has begun; it is done, but its caller cannot tell.
        if (moment, call) == ("after", "remove"):
            world.inner.hook = fail(OSError, "stat", moment="before")
            raise OSError("out of order")

    world.inner.hook = lose_all_answers
    with pytest.raises(OSError, match="out of order"):
        world.snapshotter.remove("s")
    world.inner.hook = fail(OSError)
    world.snapshotter.prepare("s")
    world.snapshotter.set_metadata("s", "n", 1)
    world.snapshotter.reconcile(force=True)

    assert world.snapshotter.metadata("s") == {"n": 1}
    assert X not in world.present()
