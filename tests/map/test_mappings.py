"""A snapshot stands for one blob, while it lives, and never for an earlier life's.

Method: the wrapper over in-memory fakes and a simulated disk. What a call cost the map is read
off the disk's count of operations.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest
from support.fakes import FakeSnapshotter
from support.map_model import BLOBS, DATA, MapWorld, image_of, map_world

from blobmap.contracts import Blob
from blobmap.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from blobmap.snapshotter import BlobSnapshotter

X, Y, Z = BLOBS[3:]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world(X, Y) as world:
        yield world


def test_unmapped_is_none_and_absent_is_an_error(world: MapWorld) -> None:
    world.make("s")

    assert world.snapshotter.get_blob("s") is None
    with pytest.raises(NotFound):
        world.snapshotter.get_blob("absent")


def test_a_mapping_says_all_that_was_given(world: MapWorld) -> None:
    world.make("s")
    world.snapshotter.set_blob("s", X, diff_id=Y, media_type="application/x")
    blob = Blob(X, len(DATA[X]), Y, "application/x")

    assert world.snapshotter.get_blob("s") == blob
    assert world.snapshotter.stat("s").blob == blob
    assert [info.blob for info in world.snapshotter.walk()] == [blob]
    assert list(world.snapshotter.blobs()) == [blob]
    world.reopen()
    assert world.snapshotter.get_blob("s") == blob


@pytest.mark.parametrize(
    "digest",
    [
        "",
        "sha256",
        "sha256:",
        "sha256:..",
        "../x:y",
        "sha256:" + "../" * 21 + "x",
        "sha256:" + "A" * 64,
        "sha256:" + "a" * 63,
        "sha256:" + "a" * 65,
        "sha256:" + "a" * 63 + "\x00",
        X + "\n",
        X.upper(),
    ],
)
def test_a_malformed_digest_is_refused_everywhere(world: MapWorld, digest: str) -> None:
    world.make("s")
    for call in (
        lambda: world.snapshotter.set_blob("s", digest),
        lambda: world.snapshotter.set_blob("s", X, diff_id=digest),
        lambda: world.snapshotter.snapshots_of(digest),
        lambda: world.snapshotter.references(digest),
        lambda: world.snapshotter.explain(digest),
        lambda: world.snapshotter.set_image(image_of("i", (digest,), ())),
        lambda: world.snapshotter.work().hold(digest),
    ):
        with pytest.raises(InvalidArgument):
            call()


def test_only_a_committed_snapshot_can_be_mapped(world: MapWorld) -> None:
    world.snapshotter.prepare("active")
    world.snapshotter.view("view")
    for key in ("active", "view"):
        with pytest.raises(FailedPrecondition, match="commit it"):
            world.snapshotter.set_blob(key, X)
    with pytest.raises(NotFound):
        world.snapshotter.set_blob("absent", X)
    assert world.snapshotter.references(X) == 0


def test_only_a_blob_that_exists_can_be_mapped(world: MapWorld) -> None:
    world.make("s")
    with pytest.raises(NotFound):
        world.snapshotter.set_blob("s", Z)
    assert world.snapshotter.get_blob("s") is None


def test_another_blob_is_refused_and_both_are_named(world: MapWorld) -> None:
    world.make("s", X)
    with pytest.raises(AlreadyExists, match=f"{X}.*{Y}"):
        world.snapshotter.set_blob("s", Y)
    assert world.snapshotter.references(Y) == 0


def test_replacing_deletes_the_blob_that_nothing_holds_now(world: MapWorld) -> None:
    world.make("s", X)
    world.snapshotter.set_blob("s", Y, replace=True)

    assert world.present() == {Y}
    assert list(world.snapshotter.snapshots_of(X)) == []


def test_the_same_blob_again_writes_nothing(world: MapWorld) -> None:
    world.make("s")
    world.snapshotter.set_blob("s", X, diff_id=Y, media_type="application/x")
    before = world.disk.operations
    world.snapshotter.set_blob("s", X)
    world.snapshotter.set_blob("s", X, diff_id=Y)

    assert world.disk.operations == before
    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]), Y, "application/x")


def test_the_same_blob_again_adds_what_was_not_known(world: MapWorld) -> None:
    world.make("s", X)
    world.snapshotter.set_blob("s", X, media_type="application/x")
    with pytest.raises(AlreadyExists, match="media_type application/x, not application/y"):
        world.snapshotter.set_blob("s", X, media_type="application/y")
    world.snapshotter.set_blob("s", X, media_type="application/y", replace=True)

    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]), None, "application/y")


def test_the_same_blob_again_restores_the_other_direction(world: MapWorld) -> None:
    world.make("s", X)
    with world.snapshotter._parts.refs.update("a test") as change:
        change.txn.bucket("holder").clear()
        change.txn.bucket("tally").clear()
    world.snapshotter.set_blob("s", X)

    assert list(world.snapshotter.snapshots_of(X)) == ["s"]
    assert world.snapshotter.references(X) == 1


def test_unsetting_deletes_the_blob_and_is_idempotent(world: MapWorld) -> None:
    world.make("s", X)
    world.snapshotter.unset_blob("s")
    world.snapshotter.unset_blob("s")

    assert world.present() == {Y}
    assert world.snapshotter.get_blob("s") is None
    with pytest.raises(NotFound):
        world.snapshotter.unset_blob("absent")


def test_long_keys_are_mapped_and_longer_ones_refused(world: MapWorld) -> None:
    key = "k" * 32_768
    world.make(key, X)
    assert list(world.snapshotter.snapshots_of(X)) == [key]
    with pytest.raises(InvalidArgument, match="larger than the limit"):
        world.snapshotter.set_blob("k" * 60_000, X)
    with pytest.raises(InvalidArgument, match="not empty"):
        world.snapshotter.set_blob("", X)
    world.make("k" * 60_000)
    assert world.snapshotter.get_blob("k" * 60_000) is None
    world.snapshotter.remove("k" * 60_000)


@pytest.mark.parametrize("recreate", ["committed", "active", "view"])
def test_a_key_used_again_does_not_inherit_the_blob(world: MapWorld, recreate: str) -> None:
    world.make("s", X)
    world.inner.remove("s")
    if recreate == "committed":
        world.make("s")
    elif recreate == "active":
        world.snapshotter.prepare("s")
    else:
        world.snapshotter.view("s")

    assert world.snapshotter.get_blob("s") is None
    assert world.snapshotter.stat("s").blob is None
    assert [info.blob for info in world.snapshotter.walk()] == [None]
    assert world.snapshotter.usage("s").size == 0


def test_a_key_used_again_within_one_tick_of_the_clock_has_no_blob_while_active() -> None:
    world = MapWorld(opened=False)
    world.inner = FakeSnapshotter(clock=lambda: datetime(2000, 1, 1, tzinfo=UTC))
    world.content.add_blob(DATA[X])
    with world.open() as snapshotter:
        world.snapshotter = snapshotter
        world.make("s", X)
        world.inner.remove("s")
        snapshotter.prepare("s")

        assert snapshotter.get_blob("s") is None


def test_a_key_used_again_takes_another_blob_without_a_conflict(world: MapWorld) -> None:
    world.make("s", X)
    world.inner.remove("s")
    world.make("s", Y)

    assert world.snapshotter.get_blob("s") == Blob(Y, len(DATA[Y]))
    assert world.present() == {Y}


def test_committing_drops_what_the_key_was_before(world: MapWorld) -> None:
    world.make("s", X)
    world.inner.remove("s")
    world.snapshotter.prepare("s")
    world.snapshotter.commit("t", "s")

    assert world.snapshotter.get_blob("t") is None
    assert world.snapshotter.references(X) == 0
    assert world.present() == {Y}


def test_two_snapshotters_of_one_root_keep_each_others_blobs(world: MapWorld) -> None:
    world.make("s", X)
    world.snapshotter.close()
    other = FakeSnapshotter()
    with BlobSnapshotter(other, world.content, "/map", name="other", fs=world.disk) as second:
        second.prepare("a")
        second.commit("s", "a")
        assert second.get_blob("s") is None
        second.set_blob("s", X)
        assert second.references(X) == 2
        assert list(second.snapshots_of(X)) == ["s"]
        assert "snapshot default/default: s" in str(second.explain(X))
        second.remove("s")
        assert X in world.present()
    world.snapshotter = world.open()
    world.snapshotter.remove("s")
    assert X not in world.present()
