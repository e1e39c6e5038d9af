"""D51 to D60: what is asked, told, damaged, full, and shared while a map runs.

Method: the map over fakes and a simulated disk, and the embedded default where files matter.
"""

from __future__ import annotations

import logging
import os
import random
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from support.blobs import add
from support.map_model import BLOBS, DATA, MapWorld, image_of
from support.moments import at, commit_count, elsewhere, has_to_wait

import blobkv
import blobmap
from blobmap._map.events import EventKind
from blobmap.errors import AlreadyExists, DataLoss, NotFound

X, Y, Z = BLOBS[3:]
PAIRS = (("s1", X), ("s2", Y))


def test_d51_who_holds_a_blob_can_be_asked(world: MapWorld) -> None:
    snapshotter = world.snapshotter
    world.make("s1", X)
    world.make("s2", X, "s1")
    snapshotter.set_image(image_of("i", (X,), ("s1", "s2")))

    assert list(snapshotter.snapshots_of(X)) == ["s1", "s2"]
    assert snapshotter.references(X) == 3
    assert [blob.digest for blob in snapshotter.blobs()] == [X]
    assert [info.name for info in snapshotter.walk(f"blob.digest=={X}")] == ["s1", "s2"]
    holders = [(held.kind, held.name) for held in snapshotter.explain(X).holders]
    assert holders == [("image", "i"), ("snapshot", "s1"), ("snapshot", "s2")]


def test_d52_a_snapshot_may_have_its_layer_in_two_compressions(world: MapWorld) -> None:
    snapshotter = world.snapshotter
    world.make("s1")
    for digest in (X, Y):
        world.content.add_blob(DATA[digest])
    snapshotter.set_blob("s1", X, diff_id=Z, media_type="layer/gzip")
    notes = {"level": "19"}
    snapshotter.set_reference(
        "s1", "layer+zstd", Y, diff_id=Z, media_type="layer/zstd", annotations=notes
    )

    blobs = {found.role: found.blob for found in snapshotter.references_of("s1")}
    assert {role: blob.digest for role, blob in blobs.items()} == {"layer": X, "layer+zstd": Y}
    assert {blob.diff_id for blob in blobs.values()} == {Z}
    assert snapshotter.references_of("s1")[1].annotations == notes
    with pytest.raises(AlreadyExists):
        snapshotter.set_reference("s1", "layer+zstd", X)
    snapshotter.remove("s1")
    assert world.present() == set()


def test_d53_it_is_told_who_let_a_blob_go_and_why(
    world: MapWorld, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "blobmap")
    world.make("s1", X)
    world.snapshotter.remove("s1")

    link, unlink, delete = world.snapshotter.events()
    assert (link.kind, link.cause) == (EventKind.LINK, "set_blob")
    assert (unlink.kind, unlink.cause) == (EventKind.UNLINK, "remove")
    assert unlink.holder is not None
    assert unlink.holder.name == "s1"
    assert (delete.kind, delete.digest, delete.cause) == (EventKind.DELETE, X, "remove")
    assert delete.time <= datetime.now(UTC)
    for line in (f"removed snapshot 's1', which held {X}", f"deleted blob {X}"):
        assert line in caplog.text


def test_d54_who_has_no_time_does_not_wait_for_a_lock(world: MapWorld) -> None:
    world.make("s1", X)
    world.content.add_blob(DATA[Y])

    def others() -> None:
        has_to_wait(lambda: world.snapshotter.set_blob("s1", Y, replace=True))
        has_to_wait(lambda: world.snapshotter.unset_blob("s1"))
        has_to_wait(lambda: world.snapshotter.remove("s1"))

    world.inner.hook = at("before", "remove", others)
    world.snapshotter.remove("s1")

    assert (world.names(), world.present()) == ([], {Y})


@pytest.mark.slow
def test_d55_a_damaged_file_is_an_error_or_the_truth(world: MapWorld) -> None:
    for name, digest in (("s1", X), ("s2", Y)):
        world.make(name, digest)
    world.reopen()
    world.snapshotter.close()
    sound, refused = world.disk, 0
    for file in sound.names("/map"):
        data = sound.contents(f"/map/{file}")
        for place in range(0, min(len(data), 2048), 5):
            world.disk = sound.crash(random.Random(0), keep="all")
            flipped = data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
            world.disk.set_contents(f"/map/{file}", flipped)
            refused += not tells_the_truth(world)
    world.disk = sound
    world.snapshotter = world.open()

    assert refused
    assert world.present() == {X, Y}


def tells_the_truth(world: MapWorld) -> bool:
    """Whether the map opens and reads; if so, it says what was written."""
    try:
        world.snapshotter = world.open()
    except (blobkv.BlobKVError, DataLoss):
        return False
    try:
        found = {name: list(world.snapshotter.snapshots_of(digest)) for name, digest in PAIRS}
    except (blobkv.BlobKVError, DataLoss):
        return False
    finally:
        world.snapshotter.close()
    assert found == {name: [name] for name, _ in PAIRS}
    return True


@pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="names files by /proc: Linux only"
)
def test_d56_a_blob_is_durable_before_the_mapping_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable: list[Path] = []

    def listen(sync: Callable[[int], None]) -> Callable[[int], None]:
        def heard(descriptor: int) -> None:
            sync(descriptor)
            durable.append(Path(f"/proc/self/fd/{descriptor}").readlink())

        return heard

    with blobmap.open(tmp_path) as snapshotter:
        snapshotter.prepare("work")
        snapshotter.commit("s1", "work")
        for name in ("fsync", "fdatasync"):
            monkeypatch.setattr(os, name, listen(getattr(os, name)))
        add(snapshotter.content, DATA[X])
        written = list(durable)
        snapshotter.set_blob("s1", X)
        mapped = durable[len(written) :]

    # The bytes, then the name, then the record; and nothing of it is left to the mapping.
    parts = [path.relative_to(tmp_path).parts for path in written]
    order = [
        max(i for i, found in enumerate(parts) if found[:2] == ("content", part))
        for part in ("ingest", "blobs", "meta")
    ]
    assert order == sorted(order)
    assert mapped
    assert {path.parent for path in mapped} == {tmp_path / "map"}


def test_d57_a_full_disk_is_no_obstacle_to_removing(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", X)
    world.make("s3", Y)
    world.content.add_blob(DATA[Z])
    world.snapshotter.set_image(image_of("i", (Z,), ("s3",)))
    world.disk.capacity = world.disk.used_size
    world.snapshotter.remove("s1")
    assert world.present() == {X, Y, Z}
    world.snapshotter.remove("s2")
    assert world.present() == {Y, Z}
    world.snapshotter.remove_image("i")

    assert (world.names(), world.present(), world.queue()) == ([], set(), set())


def test_d58_views_that_come_and_go_do_not_grow_the_map(world: MapWorld) -> None:
    world.make("s1", X)
    before = commit_count(world)
    for number in range(500):
        world.snapshotter.view(f"view {number}", "s1")
        world.snapshotter.remove(f"view {number}")

    assert commit_count(world) == before


def test_d59_who_maps_one_snapshot_holds_up_nobody_who_maps_another(world: MapWorld) -> None:
    for name in ("s1", "s2"):
        world.make(name)
    for digest in (X, Y):
        world.content.add_blob(DATA[digest])

    def map_the_other() -> None:
        elsewhere(lambda: world.snapshotter.set_blob("s2", Y))
        assert world.snapshotter.references(Y) == 1

    world.content.hook = at("before", "info", map_the_other, key=X)
    world.snapshotter.set_blob("s1", X)

    assert world.snapshotter.references(X) == 1


def test_d60_a_blob_is_removed_scanned_for_refused_and_found_again(world: MapWorld) -> None:
    for name in ("s1", "s2"):
        world.make(name, X)
    world.content.add_blob(DATA[Y])
    with pytest.raises(AlreadyExists):
        world.snapshotter.set_blob("s1", Y)
    world.reopen()
    world.snapshotter.remove("s1")
    world.reopen()
    with pytest.raises(NotFound):
        world.snapshotter.remove("s1")

    assert list(world.snapshotter.snapshots_of(X)) == ["s2"]
    world.snapshotter.remove("s2")
    assert world.present() == {Y}
