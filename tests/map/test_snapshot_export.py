"""A snapshot that is no image goes out as one, with all that it is made on.

Method: a snapshot is made by hand on one of an imported image, exported, and what is written
is read, and imported again elsewhere.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.exporting import blob, import_two
from support.images import digest_of
from support.importing import BASE, SECOND, checked, names

from blobmap import BlobSnapshotter
from blobmap.oci import export_snapshot, import_layout


@pytest.fixture
def target(tmp_path: Path) -> Iterator[BlobSnapshotter]:
    """A target with two images."""
    with checked(tmp_path / "root") as target:
        import_two(target, tmp_path / "in")
        yield target


def change(target: BlobSnapshotter, name: str, parent: str) -> None:
    (mount,) = target.prepare("making", parent)
    Path(mount.source, "etc/new").write_text("new")
    Path(mount.source, "etc/b").unlink()
    for path in ("etc/new", "etc"):
        os.utime(Path(mount.source, path), (1, 1))
    target.commit(name, "making")


def test_a_snapshot_goes_out_with_all_it_is_made_on(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    top = target.get_image("one").snapshots[-1]
    change(target, "mine", top)

    exported = export_snapshot(
        target,
        "mine",
        tmp_path / "out",
        name="mine:1",
        config={"config": {"Cmd": ["/bin/sh"]}, "architecture": "amd64"},
        created="2020-01-01T00:00:00Z",
    )

    manifest = json.loads(blob(tmp_path / "out", exported.digest))
    config = json.loads(blob(tmp_path / "out", manifest["config"]["digest"]))
    assert (config["os"], config["architecture"]) == ("linux", "amd64")
    assert config["config"] == {"Cmd": ["/bin/sh"]}
    assert config["created"] == "2020-01-01T00:00:00Z"
    assert config["rootfs"]["diff_ids"][:2] == [digest_of(BASE), digest_of(SECOND)]
    assert [item["mediaType"][-5:] for item in manifest["layers"]] == [
        "+gzip",
        "+zstd",
        "+gzip",
    ]
    assert target.get_blob("mine") is not None
    with checked(tmp_path / "again") as again:
        (imported,) = import_layout(again, tmp_path / "out")
        assert imported.name == "mine:1"
        assert names(again, imported.snapshots[-1]) == names(target, "mine")


def test_the_same_snapshot_gives_the_same_image(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    change(target, "mine", target.get_image("one").snapshots[-1])
    with checked(tmp_path / "other") as other:
        import_layout(other, tmp_path / "in", ref="one")
        change(other, "mine", other.get_image("one").snapshots[-1])

        for number, root in enumerate((target, target, other)):
            export_snapshot(root, "mine", tmp_path / f"{number}.tar", name="mine")

    first, *more = ((tmp_path / f"{number}.tar").read_bytes() for number in range(3))
    assert all(data == first for data in more)


def test_a_blob_of_which_nothing_was_said_is_looked_into(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    base = target.get_image("one").snapshots[0]
    found = target.get_blob(base)
    assert found is not None
    target.set_blob(base, found.digest, replace=True)

    exported = export_snapshot(target, base, tmp_path / "out", name="base")

    manifest = json.loads(blob(tmp_path / "out", exported.digest))
    config = json.loads(blob(tmp_path / "out", manifest["config"]["digest"]))
    assert config["rootfs"]["diff_ids"] == [digest_of(BASE)]
    assert "created" not in config
