"""What snapshots cost: shared bytes are counted once, and a missing blob fails nothing.

Method: the wrapper over in-memory fakes that are told what snapshots use.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.map_model import BLOBS, DATA, MapWorld, map_world

from blobmap.contracts import Policy, Usage

X, Y, Z = BLOBS[3:]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world(X, Y) as world:
        yield world


def test_usage_adds_the_blobs_bytes_and_keeps_the_inodes(world: MapWorld) -> None:
    world.snapshotter.prepare("a")
    world.inner.usages["a"] = Usage(100, 5)
    world.snapshotter.commit("s", "a")
    world.snapshotter.set_blob("s", X)

    assert world.snapshotter.usage("s") == Usage(100 + len(DATA[X]), 5)


def test_a_missing_blob_is_logged_and_counts_nothing(
    world: MapWorld, caplog: pytest.LogCaptureFixture
) -> None:
    world.make("s", X)
    world.content.delete(X)

    assert world.snapshotter.usage("s").size == 0
    assert f"'s' stands for {X}, which is not there" in caplog.text
    (row,) = world.snapshotter.disk_usage()
    assert (row.missing, row.total) == (True, 0)


def test_disk_usage_counts_shared_bytes_once(world: MapWorld) -> None:
    for name, digest, size in (("s", X, 10), ("t", X, 20), ("u", Y, 30), ("v", None, 40)):
        world.snapshotter.prepare("a")
        world.inner.usages["a"] = Usage(size, 1)
        world.snapshotter.commit(name, "a")
        if digest is not None:
            world.snapshotter.set_blob(name, digest)
    rows = world.snapshotter.disk_usage()
    x, y = len(DATA[X]), len(DATA[Y])

    assert [(row.name, row.exclusive, row.shared, row.total) for row in rows] == [
        ("s", 10, x, 10 + x),
        ("t", 20, x, 20 + x),
        ("u", 30 + y, 0, 30 + y),
        ("v", 40, 0, 40),
    ]
    assert rows.shared == {X: x}
    assert rows.size == 10 + 20 + 30 + 40 + x + y

    del rows[:2]
    assert rows.shared == {}
    assert rows.size == 30 + 40 + y


def test_a_snapshot_removed_during_the_walk_has_no_row(world: MapWorld) -> None:
    world.make("s")
    world.make("t")

    def hook(at: str, call: str, key: str) -> None:
        if (at, call, key) == ("before", "usage", "s"):
            world.inner.remove("s")

    world.inner.hook = hook

    assert [row.name for row in world.snapshotter.disk_usage()] == ["t"]


def test_a_blob_that_one_has_and_another_merely_knows_is_counted_once(world: MapWorld) -> None:
    world.make("knows")
    world.make("has", Y)
    world.snapshotter.set_blob("knows", Y, policy=Policy.KNOW)
    rows = world.snapshotter.disk_usage()
    size = len(DATA[Y])

    assert [(row.name, row.exclusive, row.shared) for row in rows] == [
        ("has", size, 0),
        ("knows", 0, size),
    ]
    assert (rows.size, rows.shared) == (size, {})
    world.snapshotter.set_blob("has", X, replace=True)
    world.content.add_blob(DATA[Y])
    rows = world.snapshotter.disk_usage()
    assert (rows.size, rows.shared) == (size + len(DATA[X]), {Y: size})
