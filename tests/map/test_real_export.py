"""What is exported, other tools take: umoci unpacks the same tree, skopeo and buildah copy it.

Method: snapshots with everything that a layer can hold are made by hand, two on one another,
exported, and unpacked by umoci; the tree is compared path by path with the snapshot's own.
skopeo copies the layout, and buildah pulls it, with nothing of this machine's stores and no
network. An image that umoci made is imported, exported, and has the digests that it had.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.image_tools import comparable, fill, hide, link_below, replace_kinds, run, tool

import blobmap
from blobmap import BlobSnapshotter
from blobmap.oci import export_layout, export_snapshot, import_layout

pytestmark = [pytest.mark.image, pytest.mark.slow]


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BlobSnapshotter]:
    """Snapshots "fill", "replace", "hide", "link", each on the one before."""
    tool("umoci")
    with blobmap.open(tmp_path_factory.mktemp("export") / "root") as target:
        parent = ""
        for name, step in (
            ("fill", fill),
            ("replace", replace_kinds),
            ("hide", hide),
            ("link", link_below),
        ):
            (mount,) = target.prepare("making", parent)
            step(Path(mount.source))
            target.commit(name, "making")
            parent = name
        yield target
        assert target.reconcile(dry_run=True).ok


@pytest.fixture(scope="module", params=["gzip", "none"])
def layout(
    request: pytest.FixtureRequest,
    target: BlobSnapshotter,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    for name in ("fill", "replace", "hide", "link"):
        if target.get_blob(name) is not None:
            target.unset_blob(name)
    path = tmp_path_factory.mktemp("out") / "layout"
    export_snapshot(target, "link", path, name="latest", compression=request.param)
    return path


def test_umoci_unpacks_the_snapshots_tree(
    target: BlobSnapshotter, layout: Path, tmp_path: Path
) -> None:
    run(tool("umoci"), "unpack", "--image", f"{layout}:latest", tmp_path / "bundle")

    (mount,) = target.view("look", "link")
    ours, theirs = comparable(mount.source), comparable(tmp_path / "bundle/rootfs")
    target.remove("look")
    print(f"\n{len(ours)} paths compared")
    assert ours == theirs
    assert len(ours) > 100


def test_skopeo_copies_it(layout: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"

    run(tool("skopeo"), "copy", "-q", f"oci:{layout}:latest", f"oci:{copy}:latest")

    # It compresses what is not.
    assert config(copy) == config(layout)


def test_skopeo_takes_the_tar(target: BlobSnapshotter, layout: Path, tmp_path: Path) -> None:
    skopeo = tool("skopeo")
    export_snapshot(target, "link", tmp_path / "out.tar", name="latest")

    run(skopeo, "copy", "-q", f"oci-archive:{tmp_path}/out.tar:latest", f"oci:{tmp_path}/c:l")

    assert config(tmp_path / "c") == config(layout)


def test_buildah_pulls_it(layout: Path, tmp_path: Path) -> None:
    buildah = tool("buildah")
    store = (
        *("--root", str(tmp_path / "storage"), "--runroot", str(tmp_path / "run")),
        *("--storage-driver", "vfs"),
    )

    run(buildah, *store, "pull", "-q", f"oci:{layout}:latest")

    listed = subprocess.run(
        [buildah, *store, "images", "--json"], check=True, capture_output=True
    )
    shutil.rmtree(tmp_path / "storage")
    assert len(json.loads(listed.stdout)) == 1


def test_umocis_own_image_goes_out_with_its_digests(layout: Path, tmp_path: Path) -> None:
    umoci = tool("umoci")
    image = tmp_path / "image"
    run(umoci, "init", "--layout", image)
    run(umoci, "new", "--image", f"{image}:latest")
    (tmp_path / "file").write_bytes(os.urandom(1000))
    for number in range(2):
        run(umoci, "insert", "--image", f"{image}:latest", tmp_path / "file", f"/f{number}")
    with blobmap.open(tmp_path / "root") as target:
        import_layout(target, image)
        export_layout(target, "latest", tmp_path / "out")
        # Beside the one that was exported from snapshots.
        export_layout(target, "latest", layout, ref="umoci")

    (ours,), (theirs,) = index(tmp_path / "out"), index(image)
    assert ours["digest"] == theirs["digest"]
    for blob in (tmp_path / "out/blobs/sha256").iterdir():
        assert blob.read_bytes() == (image / "blobs/sha256" / blob.name).read_bytes()
    run(umoci, "unpack", "--image", f"{layout}:umoci", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/f1").read_bytes() == (tmp_path / "file").read_bytes()


def index(layout: Path) -> list[dict[str, object]]:
    found: list[dict[str, object]] = json.loads((layout / "index.json").read_bytes())[
        "manifests"
    ]
    return found


def config(layout: Path) -> object:
    """The config's descriptor; it has the digest of each layer's plain bytes."""
    digest = str(index(layout)[0]["digest"])
    manifest = (layout / "blobs" / digest.replace(":", "/")).read_bytes()
    return json.loads(manifest)["config"]
