"""The surface of `BlobSnapshotter`: what is passed on, listed, opened, and closed.

Method: the wrapper over in-memory fakes and a simulated disk; at the end, over the embedded
default in a directory.
"""

from __future__ import annotations

import inspect
import stat
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.fakes import FakeContentStore, FakeSnapshotter
from support.map_model import BLOBS, DATA, MapWorld, fail, map_world

import blobkv
import blobmap
from blobmap import digest as digests
from blobmap.contracts import Blob, Image, Info, Kind, Snapshotter
from blobmap.errors import (
    FailedPrecondition,
    InvalidArgument,
    Unavailable,
)
from blobmap.snapshotter import BlobSnapshotter

X, Y, Z = BLOBS[3:]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world(X, Y) as world:
        yield world


# The surface.


def test_every_method_of_a_snapshotter_is_here_on_purpose() -> None:
    wanted = {name for name in vars(Snapshotter) if not name.startswith("_")}

    assert wanted <= vars(BlobSnapshotter).keys()
    for name in wanted:
        ours = inspect.signature(getattr(BlobSnapshotter, name)).parameters
        theirs = inspect.signature(getattr(Snapshotter, name)).parameters
        assert list(ours.values())[: len(theirs)] == list(theirs.values())
        assert list(ours)[len(theirs) :] == (["wait"] if name == "remove" else [])


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
    world.make("s", X)
    info = world.snapshotter.stat("s")
    updated = world.snapshotter.update(Info("s", "", info.kind, {"l": "1"}), "labels.l")

    assert updated.labels == {"l": "1"}
    assert updated.blob == info.blob == Blob(X, len(DATA[X]))


def test_cleanup_deletes_what_failed_before_and_is_passed_on(world: MapWorld) -> None:
    world.make("s", X)
    world.content.hook = fail(Unavailable, "delete", times=1)
    world.snapshotter.remove("s")
    calls: list[str] = []
    world.inner.hook = lambda moment, call, key: calls.append(call)
    world.snapshotter.cleanup()

    assert X not in world.present()
    assert "cleanup" in calls


def test_closing_closes_the_snapshotter_but_not_the_content_store(world: MapWorld) -> None:
    world.snapshotter.close()
    world.snapshotter.close()

    assert world.inner.closed
    assert not world.content.closed
    world.reopen()


def test_a_closed_one_speaks_of_one_error_only(world: MapWorld) -> None:
    world.make("s", X)
    image = Image("i", X, (X,), ("s",), datetime.now(UTC))
    closed = world.snapshotter
    closed.close()

    for call in (
        lambda: closed.stat("s"),
        lambda: closed.get_blob("s"),
        lambda: closed.set_blob("s", X),
        lambda: closed.unset_blob("s"),
        lambda: closed.remove("s"),
        lambda: closed.references(X),
        lambda: list(closed.snapshots_of(X)),
        lambda: list(closed.blobs()),
        lambda: list(closed.walk()),
        lambda: closed.explain(X),
        closed.disk_usage,
        lambda: closed.set_image(image),
        lambda: closed.get_image("i"),
        lambda: list(closed.images()),
        lambda: closed.remove_image("i"),
        closed.cleanup,
        closed.reconcile,
        closed.work,
    ):
        with pytest.raises(FailedPrecondition):
            call()
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


# Listing.


def test_filters_may_speak_of_the_blob(world: MapWorld) -> None:
    world.make("s", X)
    world.make("t", Y)
    world.make("u")
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
        world.make(name, X)
    seen = []
    for info in world.snapshotter.walk():
        seen.append(info.name)
        world.snapshotter.stat(info.name)
        if info.name == "s":
            world.snapshotter.remove("t")

    assert seen == ["s", "u"]


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
