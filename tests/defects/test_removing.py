"""D7 to D22: removing a snapshot.

Method: the map over fakes that die, fail, or stand still at the very moment of the defect.
"""

from __future__ import annotations

import pytest
from support.map_model import BLOBS, DATA, MapWorld, image_of
from support.moments import at, elsewhere, in_no_time

from blobmap._map import schema
from blobmap.contracts import Policy
from blobmap.deadlines import remaining
from blobmap.errors import BlobMapError, DeadlineExceeded, NotFound, Unavailable

X, Y, Z = BLOBS[3:]


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
