"""However a root keeps its trees, the same trees are exported as the same bytes.

Method: the same two snapshots are made by hand over each snapshotter that is local, with all
times set alike: the second changes a file, adds a link, and removes a directory, which for an
overlay are a copy up and a whiteout. The layer of the second is exported, and an image of both.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from support.local_kinds import KINDS, kind_of, seen

import blobmap
from blobmap import BlobSnapshotter, oci

pytestmark = pytest.mark.slow


def settle(root: Path) -> None:
    """Set all times below a directory, and its own, alike."""
    for path in (root, *root.rglob("*")):
        os.utime(path, (5, 5), follow_symlinks=False)


def fill(target: BlobSnapshotter) -> None:
    target.prepare("first")
    with seen(target, "first") as root:
        (root / "file").write_text("before")
        (root / "kept").mkdir()
        (root / "kept/file").write_text("kept")
        (root / "gone").mkdir()
        (root / "gone/file").write_text("gone")
        settle(root)
    target.commit("base", "first")
    target.prepare("second", "base")
    with seen(target, "second") as root:
        (root / "file").write_text("after")
        (root / "link").symlink_to("file")
        shutil.rmtree(root / "gone")
        settle(root)
    target.commit("top", "second")


def test_the_same_trees_are_the_same_layers(tmp_path: Path) -> None:
    exported = {}
    for name in KINDS:
        kind_of(name, tmp_path)
        with blobmap.open(tmp_path / name, snapshotter=name) as target:
            fill(target)
            blob = oci.export_layer(target, "top", compression="none")
            image = oci.export_snapshot(target, "top", tmp_path / f"{name}.layout", name="i")
            exported[name] = (blob.digest, image.layer_count)
            assert [info.name for info in target.walk()] == ["base", "top"]
            assert target.reconcile(dry_run=True).ok
        with blobmap.open(tmp_path / f"{name} again", snapshotter=name) as target:
            (again,) = oci.import_layout(target, tmp_path / f"{name}.layout")
            assert again.digest == image.digest
            target.view("look", again.snapshots[-1])
            with seen(target, "look") as root:
                names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
                assert names == ["file", "kept", "kept/file", "link"]
                assert (root / "link").read_text() == "after"

    assert exported["native"] == exported["overlay"]
