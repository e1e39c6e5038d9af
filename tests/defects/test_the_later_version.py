"""L1 to L7: what the original's successor did wrong.

Method: the map over fakes; the moments at which it had done one half.
"""

from __future__ import annotations

import threading

import pytest
from support.map_model import BLOBS, DATA, MapWorld
from support.moments import LIMIT_SECONDS, at, elsewhere, restart

from blobkv.testing import PowerCut
from blobmap._map import schema
from blobmap.contracts import Info, Kind, Usage
from blobmap.errors import DataLoss, FailedPrecondition

X, Y, Z = BLOBS[3:]


def test_l1_replacing_a_blob_lets_the_old_one_go(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", X)
    world.content.add_blob(DATA[Y])
    world.snapshotter.set_blob("s1", Y, replace=True)
    assert list(world.snapshotter.snapshots_of(X)) == ["s2"]
    world.snapshotter.remove("s2")

    assert world.present() == {Y}


def test_l2_two_removals_that_both_look_first_delete_the_blob(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", X)
    both = threading.Barrier(2)
    # Each has looked at what it holds, and neither has let it go.
    world.inner.hook = lambda moment, call, key: (
        both.wait(LIMIT_SECONDS) if (moment, call) == ("after", "remove") else None
    )
    other = threading.Thread(target=world.snapshotter.remove, args=("s1",))
    other.start()
    elsewhere(lambda: world.snapshotter.remove("s2"))
    other.join(LIMIT_SECONDS)

    assert world.present() == set()


def test_l2_a_removal_that_looked_first_deletes_no_blob_that_is_mapped_since(
    world: MapWorld,
) -> None:
    world.make("s1", X)
    world.make("s2")
    world.inner.hook = at(
        "after",
        "remove",
        lambda: elsewhere(lambda: world.snapshotter.set_blob("s2", X)),
    )
    world.snapshotter.remove("s1")

    assert world.present() == {X}
    assert list(world.snapshotter.snapshots_of(X)) == ["s2"]


def test_l3_no_record_outlives_its_blob(world: MapWorld) -> None:
    world.make("s1", X)
    found: list[object] = []

    def look() -> None:
        refs = world.snapshotter._parts.refs
        found.append((refs.edge("s1"), list(refs.snapshots_of(X)), refs.recorded("s1")))

    world.content.hook = at("before", "delete", look)
    world.snapshotter.remove("s1")

    assert found == [(None, [], False)]


@pytest.mark.parametrize("call", ["set", "replace", "unset"])
def test_l4_a_mapping_is_made_in_one_step(call: str) -> None:
    cuts = 0
    for operation in range(1, 100):
        world = MapWorld()
        world.make("s1", None if call == "set" else X)
        for digest in (X, Y):
            world.content.add_blob(DATA[digest])
        begun = world.disk.operations
        world.disk.cut_at = begun + operation
        try:
            if call == "unset":
                world.snapshotter.unset_blob("s1")
            else:
                world.snapshotter.set_blob("s1", Y, replace=call == "replace")
            done = True
        except PowerCut:
            done = False
            cuts += 1
        restart(world, seed=operation)
        # Whatever holds a blob is a mapping that can be seen, and nothing is held besides.
        blob = world.snapshotter.get_blob("s1")
        for digest in (X, Y):
            held = world.snapshotter.references(digest)
            assert held == (blob is not None and blob.digest == digest)
        world.check()
        world.snapshotter.close()
        if done:
            break
    assert cuts


def test_l5_a_map_that_cannot_be_read_is_not_unmapped() -> None:
    world = MapWorld()
    world.make("s1", X)
    with world.snapshotter._parts.refs.update("rot") as change:
        rows = change.txn.bucket(schema.EDGE)
        for key in list(rows):
            rows.put(key, b"")
    with pytest.raises(DataLoss):
        world.snapshotter.get_blob("s1")
    world.snapshotter.close()
    world.inner.reopen()

    with pytest.raises(FailedPrecondition):
        world.snapshotter.get_blob("s1")


def test_l6_usage_is_a_number_whatever_is_missing(world: MapWorld) -> None:
    for name in ("s1", "s2"):
        world.make(name, X)
    size = len(DATA[X])
    assert world.snapshotter.usage("s1") == Usage(size, 1)
    assert world.snapshotter.disk_usage().size == size
    world.content.delete(X)

    assert world.snapshotter.usage("s1") == Usage(0, 1)
    assert world.snapshotter.disk_usage().size == 0


def test_l7_a_value_of_nothing_takes_the_row_away(world: MapWorld) -> None:
    world.make("s1")
    world.snapshotter.set_metadata("s1", "description", "a layer")
    world.snapshotter.set_metadata("s1", "description", None)
    assert world.snapshotter.metadata("s1") == {}
    with world.snapshotter._parts.refs.view() as txn:
        assert list(txn.bucket(schema.NOTE)) == []
    info = Info("s1", "", Kind.COMMITTED, labels={"a": "b"})
    world.snapshotter.update(info)
    world.snapshotter.update(Info("s1", "", Kind.COMMITTED), "labels.a")

    assert world.snapshotter.stat("s1").labels == {}
