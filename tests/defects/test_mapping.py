"""D23 to D35: setting a snapshot's blob.

Method: the map over fakes; races stand still between the check and the act.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.fakes import FakeContentStore, FakeSnapshotter
from support.map_model import BLOBS, DATA, MapWorld
from support.moments import at, commit_count, elsewhere, in_no_time

from blobkv.testing import SimulatedDisk
from blobmap._map import schema
from blobmap.contracts import Policy
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from blobmap.snapshotter import BlobSnapshotter

X, Y, Z = BLOBS[3:]
MALFORMED = [
    "",
    "sha256:",
    "sha256:..",
    "../x:y",
    "sha256:../../../../etc/passwd",
    "no-colon",
    X.upper(),
    "sha256:" + X.removeprefix("sha256:").upper(),
    X + "\x00",
    X[:-1],
    "md5:" + "0" * 32,
]


def test_d23_a_blob_that_was_seen_is_there_when_it_is_recorded(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2")

    def remove_the_last_other() -> None:
        world.snapshotter.remove("s1")

    # Its snapshot may go meanwhile, but not the blob: for that, the removal comes too late.
    world.content.hook = at(
        "after", "info", lambda: elsewhere(lambda: in_no_time(remove_the_last_other)), key=X
    )
    world.snapshotter.set_blob("s2", X)

    assert world.names() == ["s2"]
    assert world.present() == {X}
    assert list(world.snapshotter.snapshots_of(X)) == ["s2"]


def test_d24_a_key_of_no_snapshot_maps_nothing(world: MapWorld) -> None:
    world.content.add_blob(DATA[X])
    before = commit_count(world)
    with pytest.raises(NotFound, match="typo"):
        world.snapshotter.set_blob("typo", X)

    assert commit_count(world) == before
    assert world.snapshotter.references(X) == 0


def test_d25_only_what_cannot_change_any_more_stands_for_a_blob(world: MapWorld) -> None:
    world.content.add_blob(DATA[X])
    world.snapshotter.prepare("active")
    world.snapshotter.view("view")
    for key in ("active", "view"):
        with pytest.raises(FailedPrecondition, match="commit it"):
            world.snapshotter.set_blob(key, X)

    assert world.snapshotter.references(X) == 0


def test_d26_a_commit_leaves_no_mapping_under_the_old_key(world: MapWorld) -> None:
    world.make("a", X)
    # Behind the map's back the key begins a new life.
    world.inner.remove("a")
    world.snapshotter.prepare("a")
    world.snapshotter.commit("c", "a")
    assert world.snapshotter.get_blob("c") is None
    assert world.snapshotter.references(X) == 0
    world.content.add_blob(DATA[Y])
    world.snapshotter.set_blob("c", Y)

    world.make("a")
    assert world.snapshotter.get_blob("a") is None
    assert world.present() == {Y}


@pytest.mark.parametrize("digest", MALFORMED)
def test_d27_a_malformed_digest_gets_nowhere(world: MapWorld, digest: str) -> None:
    world.make("s1")
    asked: list[str] = []
    world.content.hook = lambda moment, call, key: asked.append(key)
    with pytest.raises(InvalidArgument):
        world.snapshotter.set_blob("s1", digest)
    with pytest.raises(InvalidArgument):
        world.snapshotter.references(digest)
    with pytest.raises(InvalidArgument):
        world.snapshotter.set_blob("s1", X, diff_id=digest)

    assert asked == []


def test_d28_an_empty_digest_is_no_mapping(world: MapWorld) -> None:
    world.make("s1")
    world.content.add_blob(DATA[X])
    before = commit_count(world)
    with pytest.raises(InvalidArgument):
        world.snapshotter.set_blob("s1", "")
    with pytest.raises(InvalidArgument):
        world.snapshotter.set_reference("s1", "build", "", policy=Policy.KNOW)
    assert commit_count(world) == before
    assert world.snapshotter.get_blob("s1") is None
    world.snapshotter.set_blob("s1", X)

    assert world.snapshotter.references(X) == 1


@pytest.mark.parametrize("table", [schema.EDGE, schema.HOLDER, schema.TALLY])
def test_d29_the_same_blob_again_restores_what_is_missing(world: MapWorld, table: str) -> None:
    world.make("s1", X)
    with world.snapshotter._parts.refs.update("a lost row") as change:
        change.txn.bucket(table).clear()
    world.snapshotter.set_blob("s1", X)

    world.check()
    assert world.snapshotter.references(X) == 1
    assert list(world.snapshotter.snapshots_of(X)) == ["s1"]
    world.snapshotter.remove("s1")
    assert world.present() == set()


def test_d30_a_conflict_has_a_class_and_names_both(world: MapWorld) -> None:
    world.make("s1", X)
    world.content.add_blob(DATA[Y])
    with pytest.raises(AlreadyExists) as raised:
        world.snapshotter.set_blob("s1", Y)

    assert X in str(raised.value)
    assert Y in str(raised.value)
    assert world.snapshotter.references(Y) == 0


def test_d31_a_wrong_mapping_can_be_replaced_and_cleared(world: MapWorld) -> None:
    world.make("s1", X)
    world.content.add_blob(DATA[Y])
    world.snapshotter.set_blob("s1", Y, replace=True)
    assert world.present() == {Y}
    world.snapshotter.unset_blob("s1")

    assert world.snapshotter.get_blob("s1") is None
    assert world.present() == set()


def test_d32_a_blob_that_is_mapped_stays_when_all_else_lets_it_go(world: MapWorld) -> None:
    world.make("s1")
    with world.snapshotter.lease("pull") as lease, world.snapshotter.work() as work:
        lease.hold(X)
        work.hold(X)
        world.content.add_blob(DATA[X])
        world.snapshotter.set_blob("s1", X)
    world.snapshotter.cleanup()
    world.snapshotter.reconcile()

    assert world.present() == {X}


@pytest.mark.parametrize("key", ["", "k" * 60_000, "\x00" * 30_000])
def test_d33_a_key_that_cannot_be_recorded_is_refused_before_anything_is_written(
    world: MapWorld, key: str
) -> None:
    world.content.add_blob(DATA[X])
    before = commit_count(world)
    with pytest.raises(InvalidArgument, match="snapshot"):
        world.snapshotter.set_blob(key, X)

    assert commit_count(world) == before


def test_d33_a_key_as_long_as_they_may_be_is_recorded(world: MapWorld) -> None:
    world.make("k" * schema.SNAPSHOT_SIZE_MAX, X)

    assert world.snapshotter.references(X) == 1


def test_d34_what_a_blob_is_of_is_recorded_and_held_against_what_comes_later(
    world: MapWorld,
) -> None:
    for name, digest, diff_id in (("a", X, Y), ("b", Z, Z)):
        world.make(name)
        world.content.add_blob(DATA[digest])
        world.snapshotter.set_blob(name, digest, diff_id=diff_id, media_type="layer/gzip")
    blob = world.snapshotter.get_blob("a")
    assert blob is not None
    assert (blob.diff_id, blob.media_type, blob.size) == (Y, "layer/gzip", len(DATA[X]))

    # The layer of a for b; another layer, or another kind of it, under the same digest.
    for digest, more in ((X, {}), (Z, {"diff_id": Y}), (Z, {"media_type": "layer/zstd"})):
        with pytest.raises(AlreadyExists):
            world.snapshotter.set_blob("b", digest, **more)
    shown = world.content._blobs[X]
    shown.info = replace(shown.info, size=shown.info.size + 1)
    assert world.snapshotter.reconcile(dry_run=True).counts["blob size"] == 1
    shown.info = replace(shown.info, size=shown.info.size - 1)


def test_d35_a_digest_is_no_claim_to_what_the_tenant_s_store_does_not_show() -> None:
    theirs, ours = FakeContentStore(), FakeContentStore()
    theirs.add_blob(DATA[X])
    disk = SimulatedDisk()
    with BlobSnapshotter(
        FakeSnapshotter(), ours, "/map", namespace="ours", fs=disk
    ) as snapshotter:
        snapshotter.prepare("work")
        snapshotter.commit("s1", "work")
        with pytest.raises(NotFound):
            snapshotter.set_blob("s1", X)
        assert snapshotter.references(X) == 0
