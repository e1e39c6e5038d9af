"""D36 to D42: asking for a snapshot's blob, and what it costs.

Method: the map over fakes; what is asked for changes, is missing, or fails between two reads.
"""

from __future__ import annotations

import pytest
from support.fakes import no_hook
from support.map_model import BLOBS, DATA, MapWorld, fail
from support.moments import at, elsewhere

from blobmap._map import schema
from blobmap.contracts import LAYER, Usage
from blobmap.errors import DataLoss, NotFound, Unavailable

X, Y, Z = BLOBS[3:]


def test_d36_unmapped_is_not_absent_nor_is_an_empty_map(world: MapWorld) -> None:
    with pytest.raises(NotFound):
        world.snapshotter.get_blob("s1")
    world.make("s1")
    assert world.snapshotter.get_blob("s1") is None
    world.content.add_blob(DATA[X])
    world.snapshotter.set_blob("s1", X)
    world.inner.remove("s1")

    # The map has its row still, and that makes no snapshot.
    with pytest.raises(NotFound):
        world.snapshotter.get_blob("s1")


def test_d37_a_digest_that_rotted_in_the_map_becomes_no_path(world: MapWorld) -> None:
    world.make("s1", X)
    edge = world.snapshotter._parts.refs.scope.key("s1", LAYER)
    with world.snapshotter._parts.refs.update("an edit by hand") as change:
        rows = change.txn.bucket(schema.EDGE)
        sound = rows[edge]
        rows.put(edge, sound.replace(X.encode(), b"sha256:../../../../etc/passwd"))
    asked: list[str] = []
    world.content.hook = lambda moment, call, key: asked.append(key)
    for call in (
        lambda: world.snapshotter.get_blob("s1"),
        lambda: world.snapshotter.usage("s1"),
        lambda: list(world.snapshotter.walk()),
        lambda: world.snapshotter.unset_blob("s1"),
        lambda: world.snapshotter.remove("s1"),
    ):
        with pytest.raises(DataLoss, match="'s1'"):
            call()

    assert asked == []
    with world.snapshotter._parts.refs.update("and back") as change:
        change.txn.bucket(schema.EDGE).put(edge, sound)


def test_d38_one_blob_that_is_missing_fails_no_list(
    world: MapWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.inner.usages["make s1"] = Usage(10, 2)
    world.make("s1", X)
    world.make("s2", Y)
    world.content.delete(X)
    rows = {row.name: row for row in world.snapshotter.disk_usage()}

    assert world.snapshotter.usage("s1") == Usage(10, 2)
    assert (rows["s1"].missing, rows["s1"].total) == (True, 10)
    assert (rows["s2"].missing, rows["s2"].total) == (False, len(DATA[Y]))
    assert f"'s1' stands for {X}, which is not there" in caplog.text


def test_d39_a_shared_blob_is_counted_once(world: MapWorld) -> None:
    for number in range(40):
        world.make(f"s{number:02}", X)
    world.make("alone", Y)
    usage = world.snapshotter.disk_usage()

    assert usage.size == len(DATA[X]) + len(DATA[Y])
    assert usage.shared == {X: len(DATA[X])}
    # What goes when the snapshot goes.
    assert {row.name: row.exclusive for row in usage if row.exclusive} == {
        "alone": len(DATA[Y])
    }
    for number in range(39):
        world.snapshotter.remove(f"s{number:02}")
    assert sum(row.exclusive for row in world.snapshotter.disk_usage()) == usage.size


@pytest.mark.parametrize("part", ["inner", "content"])
def test_d40_usage_is_told_whole_or_not_at_all(world: MapWorld, part: str) -> None:
    world.make("s1", X)
    getattr(world, part).hook = fail(Unavailable, "usage", "info")
    for call in (lambda: world.snapshotter.usage("s1"), world.snapshotter.disk_usage):
        with pytest.raises(Unavailable):
            call()
    world.inner.hook = world.content.hook = no_hook

    assert world.snapshotter.usage("s1").size == len(DATA[X])


def test_d41_a_removal_between_two_reads_is_no_error(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", Y)

    def remove_it() -> None:
        elsewhere(lambda: world.snapshotter.remove("s1"))

    world.content.hook = at("before", "info", remove_it, key=X)
    assert world.snapshotter.usage("s1").size == 0
    world.make("s1", X)
    world.inner.hook = at("before", "usage", remove_it, key="s1")
    rows = world.snapshotter.disk_usage()

    assert [row.name for row in rows] == ["s2"]
    assert rows.size == len(DATA[Y])


def test_d42_a_blob_is_no_inode_of_the_snapshot(world: MapWorld) -> None:
    world.inner.usages["make s1"] = Usage(10, 2)
    world.make("s1", X)

    assert world.snapshotter.usage("s1") == Usage(10 + len(DATA[X]), 2)
