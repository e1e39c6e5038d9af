"""A root has the snapshotter that is there, or else the one that is asked for.

Method: each wish for a new root and for one of each kind; then the same in processes that may
not mount, which are made by taking the capability from root.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support import machine
from support.blobmap_command import error, run
from support.images import layout, member, tar
from support.local_kinds import require_overlays

import blobmap
from blobmap import (
    BlobSnapshotter,
    FailedPrecondition,
    InvalidArgument,
    NativeSnapshotter,
    OverlaySnapshotter,
)


def kind(target: BlobSnapshotter) -> type:
    with target:
        return type(target.inner)


@pytest.fixture
def overlay(tmp_path: Path) -> Path:
    """A root of overlays."""
    require_overlays(tmp_path)
    blobmap.open(tmp_path / "root", snapshotter="overlay").close()
    return tmp_path / "root"


def test_a_new_root_is_native_unless_something_else_is_asked_for(tmp_path: Path) -> None:
    assert kind(blobmap.open(tmp_path / "any")) is NativeSnapshotter
    assert kind(blobmap.open(tmp_path / "native", snapshotter="native")) is NativeSnapshotter
    assert not (tmp_path / "any" / "overlay").exists()


def test_a_new_root_is_overlay_where_that_is_asked_for_and_can_be(tmp_path: Path) -> None:
    require_overlays(tmp_path)
    for wish in ("overlay", "auto"):
        target = blobmap.open(tmp_path / wish, snapshotter=wish)
        assert kind(target) is OverlaySnapshotter
        # What was tried has left nothing.
        found = sorted(path.name for path in (tmp_path / wish).iterdir())
        assert found == ["content", "map", "overlay"]


def test_what_is_there_decides(tmp_path: Path, overlay: Path) -> None:
    native = tmp_path / "native"
    blobmap.open(native).close()
    for wish in (None, "auto"):
        assert kind(blobmap.open(native, snapshotter=wish)) is NativeSnapshotter
        assert kind(blobmap.open(overlay, snapshotter=wish)) is OverlaySnapshotter
    with pytest.raises(FailedPrecondition, match="its snapshots are native, not overlay"):
        blobmap.open(native, snapshotter="overlay")
    with pytest.raises(FailedPrecondition, match="its snapshots are overlay, not native"):
        blobmap.open(overlay, snapshotter="native")
    # Nothing was left open.
    blobmap.open(overlay, snapshotter="overlay").close()


def test_a_root_with_both_is_refused(tmp_path: Path) -> None:
    for name in ("native", "overlay"):
        (tmp_path / name).mkdir()
    with pytest.raises(FailedPrecondition, match="of native and of overlay"):
        blobmap.open(tmp_path)


def test_another_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="'btrfs'; there are: auto, native, overlay"):
        blobmap.open(tmp_path, snapshotter="btrfs")


@pytest.mark.slow
def test_the_command_makes_the_one_it_is_told(tmp_path: Path, overlay: Path) -> None:
    source = layout(tmp_path / "layout", tar(member("a")), tar(member("b"), member(".wh.a")))
    run("--root", tmp_path / "auto", "import", "--snapshotter", "auto", source)
    run("--root", tmp_path / "any", "import", source)
    run("--root", overlay, "import", source)
    said = error("--root", overlay, "import", "--snapshotter", "native", source)

    assert (tmp_path / "auto" / "overlay").is_dir()
    assert (tmp_path / "any" / "native").is_dir()
    assert "its snapshots are overlay, not native" in said
    assert "'btrfs' is not one of" in error(
        "--root", tmp_path / "new", "import", "--snapshotter", "btrfs", source, code=2
    )


# What is printed: the kind that "auto" makes, and what is said of the others.
UNPRIVILEGED = """
import json, sys
import blobmap
from blobmap.oci import import_layout

root, overlay, source = sys.argv[1:]
said = {}
with blobmap.open(root + "/auto", snapshotter="auto") as target:
    said["auto"] = type(target.inner).__name__
    import_layout(target, source)
try:
    blobmap.open(root + "/overlay", snapshotter="overlay")
except blobmap.NotImplementedHere as error:
    said["overlay"] = str(error)
with blobmap.open(overlay) as target:
    try:
        import_layout(target, source)
    except blobmap.NotImplementedHere as error:
        said["import"] = str(error)
    (mount,) = target.view("view", "on")
    said["mount"] = mount.type
    try:
        with blobmap.mounted([mount]):
            pass
    except blobmap.NotImplementedHere as error:
        said["mounted"] = str(error)
    said["left"] = [info.name for info in target.walk()]
print(json.dumps(said))
"""


@pytest.mark.slow
def test_where_nothing_can_be_mounted_auto_is_native_and_the_rest_is_told(
    tmp_path: Path, overlay: Path
) -> None:
    machine.require("setpriv")
    source = layout(tmp_path / "layout", tar(member("a")), tar(member("b")))
    with blobmap.open(overlay) as target:
        target.prepare("making")
        target.commit("below", "making")
        target.prepare("making", "below")
        target.commit("on", "making")

    done = subprocess.run(
        machine.command(
            "setpriv",
            "--bounding-set=-sys_admin",
            "--inh-caps=-sys_admin",
            *(sys.executable, "-c", UNPRIVILEGED, tmp_path, overlay, source),
        ),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)

    assert said["auto"] == "NativeSnapshotter"
    assert "no overlay can be mounted here: this process cannot mount" in said["overlay"]
    for name in ("import", "mounted"):
        assert "be root, or use the copying snapshotter" in said[name]
    assert said["mount"] == "overlay"
    # The lowest layer is a bind and came in; of what failed nothing is left.
    (lowest,) = set(said["left"]) - {"below", "on", "view"}
    assert lowest.startswith("sha256:")
    assert not (tmp_path / "overlay" / "overlay").exists()
