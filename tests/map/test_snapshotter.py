"""What `BlobSnapshotter` promises, one fact at a time.

Method: the wrapper over in-memory fakes and a simulated disk. Failures come from the fakes'
hooks; what a call cost the map is read off the disk's count of operations.
"""

from __future__ import annotations

import inspect
import logging
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.fakes import FakeContentStore, FakeSnapshotter
from support.map_model import BLOBS, DATA, MapWorld, image_of

import blobkv
import blobmap
from blobmap import digest as digests
from blobmap.contracts import Blob, Info, Kind, Snapshotter, Usage
from blobmap.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from blobmap.schema import Intent, incarnation
from blobmap.snapshotter import BlobSnapshotter

X, Y, Z = BLOBS[3:]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    world = MapWorld()
    for digest in (X, Y):
        world.content.add_blob(DATA[digest])
    yield world
    world.check()
    world.snapshotter.close()


def make(world: MapWorld, name: str, digest: str | None = None, parent: str = "") -> None:
    world.snapshotter.prepare(f"make {name}", parent)
    world.snapshotter.commit(name, f"make {name}")
    if digest is not None:
        world.snapshotter.set_blob(name, digest)


def present(world: MapWorld) -> set[str]:
    return {info.digest for info in world.content.walk()}


def fail(
    error: type[Exception], *calls: str, moment: str = "before", times: int = 99
) -> object:
    """A hook that makes some calls fail, a number of times."""
    left = [times]

    def hook(at: str, call: str, key: str) -> None:
        if at == moment and call in calls and left[0]:
            left[0] -= 1
            raise error(f"{call} is out of order")

    return hook


# The surface.


def test_every_method_of_a_snapshotter_is_here_on_purpose() -> None:
    wanted = {name for name in vars(Snapshotter) if not name.startswith("_")}

    assert wanted <= vars(BlobSnapshotter).keys()
    for name in wanted:
        ours = inspect.signature(getattr(BlobSnapshotter, name))
        assert list(ours.parameters.values()) == list(
            inspect.signature(getattr(Snapshotter, name)).parameters.values()
        )


def test_what_is_no_snapshotter_or_content_store_is_refused_at_once() -> None:
    with pytest.raises(InvalidArgument, match="inner is a NoneType"):
        BlobSnapshotter(None, FakeContentStore(), "/map")
    with pytest.raises(InvalidArgument, match="content is a FakeSnapshotter, which has no"):
        BlobSnapshotter(FakeSnapshotter(), FakeSnapshotter(), "/map")
    with pytest.raises(InvalidArgument, match="root is empty"):
        BlobSnapshotter(FakeSnapshotter(), FakeContentStore(), "")
    with pytest.raises(InvalidArgument, match="name 'a b'"):
        BlobSnapshotter(FakeSnapshotter(), FakeContentStore(), "/map", name="a b")


def test_what_is_passed_on_arrives(world: MapWorld) -> None:
    mounts = world.snapshotter.prepare("a", labels={"l": "1"})
    assert world.snapshotter.mounts("a") == mounts == world.inner.mounts("a")
    assert world.inner.stat("a").labels == {"l": "1"}
    world.snapshotter.commit("s", "a", labels={"l": "2"})
    assert world.inner.stat("s").labels == {"l": "2"}
    world.snapshotter.view("v", "s", labels={"l": "3"})
    assert world.inner.stat("v") == Info(
        "v", "s", Kind.VIEW, {"l": "3"}, *[world.inner.stat("v").created] * 2
    )
    assert [info.name for info in world.snapshotter.walk("kind==view")] == ["v"]
    with pytest.raises(FailedPrecondition):
        world.snapshotter.mounts("s")


def test_updating_labels_keeps_the_blob(world: MapWorld) -> None:
    make(world, "s", X)
    info = world.snapshotter.stat("s")
    updated = world.snapshotter.update(Info("s", "", info.kind, {"l": "1"}), "labels.l")

    assert updated.labels == {"l": "1"}
    assert updated.blob == info.blob == Blob(X, len(DATA[X]))


def test_cleanup_deletes_what_failed_before_and_is_passed_on(world: MapWorld) -> None:
    make(world, "s", X)
    world.content.hook = fail(Unavailable, "delete", times=1)
    world.snapshotter.remove("s")
    calls: list[str] = []
    world.inner.hook = lambda moment, call, key: calls.append(call)
    world.snapshotter.cleanup()

    assert X not in present(world)
    assert "cleanup" in calls


def test_closing_closes_the_snapshotter_but_not_the_content_store(world: MapWorld) -> None:
    world.snapshotter.close()
    world.snapshotter.close()

    assert world.inner.closed
    assert not world.content.closed
    with pytest.raises(blobkv.ClosedError):
        world.snapshotter.references(X)
    world.reopen()


def test_the_content_store_is_closed_if_asked_to() -> None:
    content = FakeContentStore()
    with BlobSnapshotter(
        FakeSnapshotter(), content, "/map", close_content=True, fs=MapWorld(opened=False).disk
    ):
        assert not content.closed
    assert content.closed


def test_a_map_is_open_once(world: MapWorld) -> None:
    with pytest.raises(blobkv.LockedError):
        BlobSnapshotter(FakeSnapshotter(), world.content, "/map", fs=world.disk)


# Mapping.


def test_unmapped_is_none_and_absent_is_an_error(world: MapWorld) -> None:
    make(world, "s")

    assert world.snapshotter.get_blob("s") is None
    with pytest.raises(NotFound):
        world.snapshotter.get_blob("absent")


def test_a_mapping_says_all_that_was_given(world: MapWorld) -> None:
    make(world, "s")
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
    make(world, "s")
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
    make(world, "s")
    with pytest.raises(NotFound):
        world.snapshotter.set_blob("s", Z)
    assert world.snapshotter.get_blob("s") is None


def test_another_blob_is_refused_and_both_are_named(world: MapWorld) -> None:
    make(world, "s", X)
    with pytest.raises(AlreadyExists, match=f"{X}.*{Y}"):
        world.snapshotter.set_blob("s", Y)
    assert world.snapshotter.references(Y) == 0


def test_replacing_deletes_the_blob_that_nothing_holds_now(world: MapWorld) -> None:
    make(world, "s", X)
    world.snapshotter.set_blob("s", Y, replace=True)

    assert present(world) == {Y}
    assert list(world.snapshotter.snapshots_of(X)) == []


def test_the_same_blob_again_writes_nothing(world: MapWorld) -> None:
    make(world, "s")
    world.snapshotter.set_blob("s", X, diff_id=Y, media_type="application/x")
    before = world.disk.operations
    world.snapshotter.set_blob("s", X)
    world.snapshotter.set_blob("s", X, diff_id=Y)

    assert world.disk.operations == before
    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]), Y, "application/x")


def test_the_same_blob_again_adds_what_was_not_known(world: MapWorld) -> None:
    make(world, "s", X)
    world.snapshotter.set_blob("s", X, media_type="application/x")
    with pytest.raises(AlreadyExists, match="media_type application/x, not application/y"):
        world.snapshotter.set_blob("s", X, media_type="application/y")
    world.snapshotter.set_blob("s", X, media_type="application/y", replace=True)

    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]), None, "application/y")


def test_the_same_blob_again_restores_the_other_direction(world: MapWorld) -> None:
    make(world, "s", X)
    with world.snapshotter._parts.refs.update() as txn:
        txn.bucket("holder").clear()
        txn.bucket("tally").clear()
    world.snapshotter.set_blob("s", X)

    assert list(world.snapshotter.snapshots_of(X)) == ["s"]
    assert world.snapshotter.references(X) == 1


def test_unsetting_deletes_the_blob_and_is_idempotent(world: MapWorld) -> None:
    make(world, "s", X)
    world.snapshotter.unset_blob("s")
    world.snapshotter.unset_blob("s")

    assert present(world) == {Y}
    assert world.snapshotter.get_blob("s") is None
    with pytest.raises(NotFound):
        world.snapshotter.unset_blob("absent")


def test_long_keys_are_mapped_and_longer_ones_refused(world: MapWorld) -> None:
    key = "k" * 32_768
    make(world, key, X)
    assert list(world.snapshotter.snapshots_of(X)) == [key]
    with pytest.raises(InvalidArgument, match="larger than the limit"):
        world.snapshotter.set_blob("k" * 60_000, X)
    with pytest.raises(InvalidArgument, match="not empty"):
        world.snapshotter.set_blob("", X)
    make(world, "k" * 60_000)
    assert world.snapshotter.get_blob("k" * 60_000) is None
    world.snapshotter.remove("k" * 60_000)


@pytest.mark.parametrize("recreate", ["committed", "active", "view"])
def test_a_key_used_again_does_not_inherit_the_blob(world: MapWorld, recreate: str) -> None:
    make(world, "s", X)
    world.inner.remove("s")
    if recreate == "committed":
        make(world, "s")
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
        make(world, "s", X)
        world.inner.remove("s")
        snapshotter.prepare("s")

        assert snapshotter.get_blob("s") is None


def test_a_key_used_again_takes_another_blob_without_a_conflict(world: MapWorld) -> None:
    make(world, "s", X)
    world.inner.remove("s")
    make(world, "s", Y)

    assert world.snapshotter.get_blob("s") == Blob(Y, len(DATA[Y]))
    assert present(world) == {Y}


def test_committing_drops_what_the_key_was_before(world: MapWorld) -> None:
    make(world, "s", X)
    world.inner.remove("s")
    world.snapshotter.prepare("s")
    world.snapshotter.commit("t", "s")

    assert world.snapshotter.get_blob("t") is None
    assert world.snapshotter.references(X) == 0
    assert present(world) == {Y}


def test_two_snapshotters_of_one_root_keep_each_others_blobs(world: MapWorld) -> None:
    make(world, "s", X)
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
        assert X in present(world)
    world.snapshotter = world.open()
    world.snapshotter.remove("s")
    assert X not in present(world)


# Removal.


def test_a_blob_goes_with_its_last_snapshot(world: MapWorld) -> None:
    for name in ("s", "s-", "\xff"):
        make(world, name, X)
    for name in ("s", "\xff"):
        world.snapshotter.remove(name)
        assert X in present(world)
    world.snapshotter.remove("s-")

    assert X not in present(world)


def test_removing_what_is_not_mapped_costs_the_map_nothing(world: MapWorld) -> None:
    world.snapshotter.view("v")
    before = world.disk.operations
    world.snapshotter.remove("v")
    with pytest.raises(NotFound):
        world.snapshotter.remove("v")

    assert world.disk.operations == before


def test_a_snapshot_with_children_keeps_its_blob(world: MapWorld) -> None:
    make(world, "s", X)
    make(world, "t", parent="s")
    with pytest.raises(FailedPrecondition, match="remove"):
        world.snapshotter.remove("s")

    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]))
    world.reopen()
    assert world.snapshotter.get_blob("s") == Blob(X, len(DATA[X]))


def test_a_snapshot_that_vanished_is_not_found_and_left_to_reconcile(world: MapWorld) -> None:
    make(world, "s", X)
    world.inner.remove("s")
    with pytest.raises(NotFound):
        world.snapshotter.remove("s")

    assert X in present(world)


def test_a_deletion_that_fails_is_logged_counted_and_tried_at_open(
    world: MapWorld, caplog: pytest.LogCaptureFixture
) -> None:
    make(world, "s", X)
    world.content.hook = fail(RuntimeError, "delete")
    with caplog.at_level(logging.ERROR, "blobmap"):
        world.snapshotter.remove("s")

    assert f"could not delete blob {X}" in caplog.text
    assert world.snapshotter.failure_count == 1
    assert world.queue() == {X}
    assert "to be deleted" in str(world.snapshotter.explain(X))
    world.content.hook = fail(RuntimeError)
    world.reopen()
    assert X not in present(world)
    assert world.queue() == set()


def test_a_deletion_that_failed_is_tried_with_the_next(world: MapWorld) -> None:
    make(world, "s", X)
    make(world, "t", Y)
    world.content.hook = fail(Unavailable, "delete", times=1)
    world.snapshotter.remove("s")
    assert X in present(world)
    world.snapshotter.remove("t")

    assert present(world) == set()


def test_mapping_a_blob_whose_deletion_failed_keeps_it(world: MapWorld) -> None:
    make(world, "s", X)
    make(world, "t")
    world.content.hook = fail(Unavailable, "delete", times=1)
    world.snapshotter.remove("s")
    world.snapshotter.set_blob("t", X)
    world.reopen()

    assert X in present(world)


def test_a_removal_that_failed_but_happened_is_a_success(world: MapWorld) -> None:
    make(world, "s", X)
    world.inner.hook = fail(Unavailable, "remove", moment="after")
    world.snapshotter.remove("s")

    assert X not in present(world)


def test_a_removal_that_failed_is_not_repeated_behind_the_callers_back(
    world: MapWorld,
) -> None:
    make(world, "s", X)
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
    make(world, "s", X)
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
        assert X not in present(world)
    assert list(world.snapshotter._parts.refs.intents()) == []


def test_opening_does_not_remove_what_lives_under_the_key_now(world: MapWorld) -> None:
    make(world, "s", X)
    life = incarnation(world.inner.stat("s"))
    world.snapshotter._parts.refs.put_intent("s", Intent(life))
    world.inner.remove("s")
    world.inner.prepare("s")
    world.reopen()

    assert world.snapshotter.stat("s").kind is Kind.ACTIVE
    assert present(world) == {Y}


def test_removing_again_after_an_unknown_outcome_succeeds(world: MapWorld) -> None:
    make(world, "s", X)
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

    assert X not in present(world)


# Usage.


def test_usage_adds_the_blobs_bytes_and_keeps_the_inodes(world: MapWorld) -> None:
    world.snapshotter.prepare("a")
    world.inner.usages["a"] = Usage(100, 5)
    world.snapshotter.commit("s", "a")
    world.snapshotter.set_blob("s", X)

    assert world.snapshotter.usage("s") == Usage(100 + len(DATA[X]), 5)


def test_a_missing_blob_is_logged_and_counts_nothing(
    world: MapWorld, caplog: pytest.LogCaptureFixture
) -> None:
    make(world, "s", X)
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


def test_a_snapshot_removed_during_the_walk_has_no_row(world: MapWorld) -> None:
    make(world, "s")
    make(world, "t")

    def hook(at: str, call: str, key: str) -> None:
        if (at, call, key) == ("before", "usage", "s"):
            world.inner.remove("s")

    world.inner.hook = hook

    assert [row.name for row in world.snapshotter.disk_usage()] == ["t"]


# Listing.


def test_filters_may_speak_of_the_blob(world: MapWorld) -> None:
    make(world, "s", X)
    make(world, "t", Y)
    make(world, "u")
    world.snapshotter.set_blob("t", Y, media_type="application/x", diff_id=X)

    def names(*filters: str) -> list[str]:
        return [info.name for info in world.snapshotter.walk(*filters)]

    assert names(f'blob=="{X}"') == ["s"]
    assert names(f'blob.digest=="{Y}",kind==committed') == ["t"]
    assert names("blob") == ["s", "t"]
    assert names('blob.media_type=="application/x"', "name==u") == ["t", "u"]
    assert names(f'blob.diff_id=="{X}"') == ["t"]
    assert names("blob.other") == []
    with pytest.raises(InvalidArgument):
        names("blob==")


def test_other_calls_work_during_a_walk(world: MapWorld) -> None:
    for name in ("s", "t", "u"):
        make(world, name, X)
    seen = []
    for info in world.snapshotter.walk():
        seen.append(info.name)
        world.snapshotter.stat(info.name)
        if info.name == "s":
            world.snapshotter.remove("t")

    assert seen == ["s", "u"]


def test_explaining_shows_who_holds_the_holders(world: MapWorld) -> None:
    make(world, "s", X)
    make(world, "t", parent="s")
    world.snapshotter.view("v", "t")
    world.snapshotter.set_image(image_of("i", (X,), ("s",)))
    with world.snapshotter.work() as work:
        work.hold(X)
        lines = str(world.snapshotter.explain(X)).split("\n")

    assert lines[:-1] == [
        f"{X}  {len(DATA[X])} bytes",
        "├── image i",
        "├── snapshot s",
        "│   ├── image i",
        "│   └── snapshot t",
        "│       └── snapshot v",
    ]
    assert lines[-1].startswith("└── work ")


def test_explaining_what_nothing_holds(world: MapWorld) -> None:
    assert "held by nothing" in str(world.snapshotter.explain(X))
    with pytest.raises(NotFound, match="neither"):
        world.snapshotter.explain(Z)


def test_explaining_a_chain_deeper_than_python_recurses(world: MapWorld) -> None:
    make(world, "0", X)
    for number in range(1, 1500):
        make(world, str(number), parent=str(number - 1))

    assert len(str(world.snapshotter.explain(X)).split("\n")) == 1501


# The embedded default.


def test_the_embedded_default_survives_a_restart(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with blobmap.open(root) as snapshotter:
        digest = ingest(snapshotter, b"layer")
        (mount,) = snapshotter.prepare("a")
        (Path(mount.source) / "file").write_bytes(b"12345")
        snapshotter.commit("s", "a")
        snapshotter.set_blob("s", digest)
    with blobmap.open(root) as snapshotter:
        assert snapshotter.get_blob("s") == Blob(digest, 5)
        assert snapshotter.usage("s").size >= 10
        assert snapshotter.reconcile().ok
        snapshotter.remove("s")
        assert list(snapshotter.content.walk()) == []
        assert list(snapshotter.walk()) == []
    with pytest.raises(FailedPrecondition):
        snapshotter.content.info(digest)


def test_nobody_else_can_read_the_root(tmp_path: Path) -> None:
    root = tmp_path / "deep" / "root"
    blobmap.open(root).close()

    for directory in (root, root / "map", root / "content", root / "native"):
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700


def test_opening_twice_names_the_holder_and_leaves_nothing_open(tmp_path: Path) -> None:
    with blobmap.open(tmp_path), pytest.raises(blobkv.LockedError, match="process"):
        blobmap.open(tmp_path)
    blobmap.open(tmp_path).close()


def ingest(snapshotter: BlobSnapshotter, data: bytes) -> str:
    with snapshotter.content.writer("ref") as writer:
        writer.write(data)
        writer.commit()
    return digests.of(data)
