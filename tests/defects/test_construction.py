"""D43 to D50: what is built, opened, and closed.

Method: the map over fakes and a simulated disk, and the embedded default where files matter.
"""

from __future__ import annotations

import inspect
import os
import threading
from datetime import timedelta
from pathlib import Path

import pytest
from support.fakes import FakeContentStore, FakeSnapshotter
from support.map_model import BLOBS, DATA, MapWorld, fail
from support.moments import Died, at, die, elsewhere, restart

import blobkv
import blobmap
from blobkv.testing import SimulatedDisk
from blobmap._map import schema
from blobmap.contracts import ContentStore, Info, Kind, Snapshotter
from blobmap.errors import FailedPrecondition, InvalidArgument, Unavailable
from blobmap.snapshotter import BlobSnapshotter

X, Y, Z = BLOBS[3:]


def test_d43_opening_ends_what_a_crash_left_of_every_kind(world: MapWorld) -> None:
    snapshotter = world.snapshotter
    for name, digest in (("s1", X), ("s2", Y), ("s3", None)):
        world.make(name, digest)
    world.content.hook = fail(Unavailable, "delete")
    snapshotter.remove("s2")
    work = snapshotter.work()
    work.hold(Z)
    world.content.add_blob(DATA[Z])
    work.scratch("half made")
    snapshotter.prepare("half made")
    world.inner.hook = at("after", "remove", die)
    with pytest.raises(Died):
        snapshotter.remove("s1")
    restart(world)

    assert (world.names(), world.present(), world.queue()) == (["s3"], set(), set())
    assert world.snapshotter.reconcile(dry_run=True).ok


def test_d43_reconcile_looks_in_every_direction_and_takes_only_not_found_for_gone(
    world: MapWorld,
) -> None:
    for number in range(20):
        world.make(f"s{number:02}", X)
    world.make("gone", Y)
    world.make("lost", Z)
    world.inner.remove("gone")
    world.content.delete(Z)
    for call in ("stat", "walk"):
        world.inner.hook = fail(Unavailable, call)
        with pytest.raises(Unavailable):
            world.snapshotter.reconcile()
    world.inner.hook = fail(Unavailable)
    report = world.snapshotter.reconcile()

    assert dict(report.counts) == {"snapshot gone": 1, "blob missing": 1}
    assert world.present() == {X}
    assert world.snapshotter.references(X) == 20


def test_d44_a_second_open_waits_as_long_as_it_is_told_and_names_the_holder(
    tmp_path: Path,
) -> None:
    with blobmap.open(tmp_path):
        for lock_timeout in (0.0, 0.01):
            with pytest.raises(blobkv.LockedError, match=rf"\b{os.getpid()}\b"):
                blobmap.open(tmp_path, lock_timeout=lock_timeout)
            with pytest.raises(blobkv.LockedError, match=rf"\b{os.getpid()}\b"):
                elsewhere(lambda seconds=lock_timeout: open_map(tmp_path / "map", seconds))


def open_map(root: Path, lock_timeout: float) -> BlobSnapshotter:
    return BlobSnapshotter(
        FakeSnapshotter(), FakeContentStore(), root, lock_timeout=lock_timeout
    )


def test_d45_closing_frees_all_of_it_and_may_be_repeated(tmp_path: Path) -> None:
    for _ in range(2):
        snapshotter = blobmap.open(tmp_path)
        snapshotter.lease("l", lifetime=timedelta(days=1)).release()
        snapshotter.close()
        snapshotter.close()
        with pytest.raises(FailedPrecondition):
            snapshotter.inner.stat("s1")

    assert not [t for t in threading.enumerate() if t.name == "blobmap background"]


def test_d45_the_map_is_closed_even_if_the_snapshotter_will_not_be(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = MapWorld()
    with monkeypatch.context() as patched:
        patched.setattr(world.inner, "close", die)
        with pytest.raises(Died):
            world.snapshotter.close()

    world.open().close()


def test_d46_every_method_is_here_on_purpose_and_none_by_a_fallback() -> None:
    for name, _ in inspect.getmembers(Snapshotter, inspect.isfunction):
        if name.startswith("_"):
            continue
        own, wanted = getattr(BlobSnapshotter, name), getattr(Snapshotter, name)
        assert own is not wanted
        assert own.__qualname__ == f"BlobSnapshotter.{name}"
        given = inspect.signature(own).parameters.keys()
        assert given >= inspect.signature(wanted).parameters.keys()

    assert not {"__getattr__", "__getattribute__"} & {
        name for made in BlobSnapshotter.__mro__[:-1] for name in vars(made)
    }


def test_d47_stat_walk_and_filters_know_the_blob(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", Y)
    blob = world.snapshotter.stat("s1").blob
    assert blob is not None
    assert blob.digest == X

    assert {info.name: info.blob and info.blob.digest for info in world.snapshotter.walk()} == {
        "s1": X,
        "s2": Y,
    }
    assert [info.name for info in world.snapshotter.walk(f"blob=={Y}")] == ["s2"]
    assert world.snapshotter.update(Info("s1", "", Kind.COMMITTED)).blob == blob


@pytest.mark.parametrize("missing", ["inner", "content", "root", "delete"])
def test_d48_what_is_missing_is_said_before_anything_is_made(missing: str) -> None:
    disk = SimulatedDisk()
    inner: object = FakeSnapshotter()
    content: object = FakeContentStore()
    if missing == "inner":
        inner = None
    elif missing == "content":
        content = None
    elif missing == "delete":
        content = Lacking()
    with pytest.raises(InvalidArgument, match=missing):
        BlobSnapshotter(inner, content, "" if missing == "root" else "/map", fs=disk)

    assert disk.operations == 0


class Lacking:
    """A content store that cannot delete."""

    info = FakeContentStore.info
    walk = ContentStore.walk


def test_d49_two_snapshotters_of_one_root_keep_their_records_apart() -> None:
    disk, content = SimulatedDisk(), FakeContentStore()
    inners = {name: FakeSnapshotter() for name in ("overlay", "native")}
    for namespace in ("one", "two"):
        for name, inner in inners.items():
            inner.reopen()
            with BlobSnapshotter(
                inner, content, "/map", name=name, namespace=namespace, fs=disk
            ) as snapshotter:
                key = "chain" if namespace == "one" else "chain 2"
                snapshotter.prepare("work")
                snapshotter.commit(key, "work")
                digest = content.add_blob(f"{name} {namespace}".encode())
                snapshotter.set_blob(key, digest)
                assert [blob.digest for blob in snapshotter.blobs()] == [digest]
                for other in inners:
                    held = content.add_blob(f"{other} one".encode())
                    mine = (other, "one") == (name, namespace)
                    assert list(snapshotter.snapshots_of(held)) == (["chain"] if mine else [])


def test_d50_a_map_has_a_version_and_a_newer_one_is_refused_whole(world: MapWorld) -> None:
    world.make("s1", X)
    world.snapshotter.close()
    set_version(world, schema.VERSION + 1)
    for _ in range(2):
        with pytest.raises(FailedPrecondition, match="upgrade blobmap"):
            world.open()
    set_version(world, schema.VERSION)
    world.snapshotter = world.open()

    assert world.snapshotter.references(X) == 1


def set_version(world: MapWorld, version: int) -> None:
    with blobkv.open("/map", fs=world.disk) as store, store.update() as txn:
        schema.set_version(txn, version)
