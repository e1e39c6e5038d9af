"""An image that another tool made comes out as that tool itself unpacks it, path by path.

Method: umoci builds an image of five layers from a directory tree with everything a layer can
hold: many files, hard links, symlinks, a setuid file, a fifo, odd names, extended attributes,
whiteouts, an opaque directory, a directory in a file's place and the reverse. The image is
imported, and the tree of its top snapshot is compared with `umoci unpack`'s: type, mode,
owner, link count, content, link target, times of all but directories, attributes. Then the
same again from the tars that skopeo makes of it. Over the overlay snapshotter the tree is that
of the mounted view, whose whiteouts and opaque directories the kernel made.
"""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from support.image_tools import comparable, fill, hide, link_below, replace_kinds, run, tool
from support.local_kinds import seen

from blobmap import BlobSnapshotter
from blobmap.oci import import_layout

pytestmark = [pytest.mark.image, pytest.mark.slow]


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The layout that umoci made."""
    umoci = tool("umoci")
    base = tmp_path_factory.mktemp("real")
    layout, bundle = base / "layout", base / "bundle"
    run(umoci, "init", "--layout", layout)
    run(umoci, "new", "--image", f"{layout}:latest")
    for step in (fill, replace_kinds, hide, link_below):
        run(umoci, "unpack", "--image", f"{layout}:latest", bundle)
        step(bundle / "rootfs")
        run(umoci, "repack", "--image", f"{layout}:latest", bundle)
        shutil.rmtree(bundle)
    extra = base / "extra"
    (extra / "deep").mkdir(parents=True)
    (extra / "deep/file").write_text("inserted")
    run(umoci, "insert", "--opaque", "--image", f"{layout}:latest", extra, "/opaque")
    return layout


@pytest.fixture(scope="module")
def reference(image: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tree as umoci unpacks it."""
    bundle = tmp_path_factory.mktemp("reference") / "bundle"
    run(tool("umoci"), "unpack", "--image", f"{image}:latest", bundle)
    return bundle / "rootfs"


def test_the_tree_is_the_one_that_umoci_unpacks(
    target: BlobSnapshotter, image: Path, reference: Path
) -> None:
    (imported,) = import_layout(target, image)

    target.view("look", imported.snapshots[-1])
    with seen(target, "look") as root:
        ours, theirs = comparable(root), comparable(reference)
    print(f"\n{len(imported.snapshots)} layers, {len(theirs)} paths compared")
    assert ours == theirs
    assert len(theirs) > 100
    assert "opaque/deep/file" in ours
    assert "opaque/old" not in ours


@pytest.mark.parametrize("form", ["oci", "oci-archive"])
def test_what_skopeo_makes_of_it_gives_the_same_snapshots(
    target: BlobSnapshotter, image: Path, tmp_path: Path, form: str
) -> None:
    skopeo = tool("skopeo", required=False)
    copy = tmp_path / "copy"
    run(skopeo, "copy", "-q", f"oci:{image}:latest", f"{form}:{copy}:latest")

    (direct,) = import_layout(target, image)
    (copied,) = import_layout(target, copy)

    assert copied.snapshots == direct.snapshots
    assert len(list(target.walk())) == len(direct.snapshots)
