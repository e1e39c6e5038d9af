"""The overlay snapshotter returns what containerd's does, and keeps what the kernel left.

Method: first the mounts themselves, which need no privileges to be looked at; then, really
mounted, what the kernel leaves in an upper directory: whiteouts, opaque directories, moved
directories, attributes of the root; then full disks, and many parents.
"""

from __future__ import annotations

import errno
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import machine, volumes
from support.local_kinds import can_mount, require_overlays, seen
from support.trees import without_times

import blobkv
from blobmap.contracts import Kind, Mount, Usage
from blobmap.errors import FailedPrecondition, InvalidArgument
from blobmap.local import NativeSnapshotter, OverlaySnapshotter

linux_only = pytest.mark.skipif(sys.platform != "linux", reason="overlays are Linux's")


@pytest.fixture
def overlay(tmp_path: Path) -> Iterator[OverlaySnapshotter]:
    with OverlaySnapshotter(tmp_path / "overlay") as snapshotter:
        yield snapshotter


def layers(snapshotter: OverlaySnapshotter, count: int) -> None:
    """Commit "1" on nothing, "2" on it, and so on, each with a file of its name."""
    for number in range(1, count + 1):
        key = f"making {number}"
        snapshotter.prepare(key, str(number - 1) if number > 1 else "")
        (directory(snapshotter, number) / f"file-{number}").write_text("x")
        snapshotter.commit(str(number), key)


def directory(snapshotter: OverlaySnapshotter, id_: int) -> Path:
    """Return the upper directory of the snapshot that was made as the `id_`th."""
    (mount,) = snapshotter.mounts(f"making {id_}")
    upper = [option for option in mount.options if option.startswith("upperdir=")]
    return Path(upper[0].removeprefix("upperdir=") if upper else mount.source)


def split(mount: Mount) -> dict[str, str]:
    """Return the options of a mount by name."""
    return dict(option.partition("=")[::2] for option in mount.options)


def test_what_needs_no_overlay_is_a_bind(overlay: OverlaySnapshotter, tmp_path: Path) -> None:
    trees = tmp_path / "overlay" / "snapshots"
    layers(overlay, 1)

    assert overlay.prepare("active") == [
        Mount("bind", str(trees / "2" / "fs"), options=("rbind", "rw"))
    ]
    assert overlay.view("empty view") == [
        Mount("bind", str(trees / "3" / "fs"), options=("rbind", "ro"))
    ]
    assert overlay.view("view", "1") == [
        Mount("bind", str(trees / "1" / "fs"), options=("rbind", "ro"))
    ]
    assert not (trees / "3" / "work").exists()
    assert not (trees / "4").exists()


def test_an_overlay_names_the_nearest_parent_first(
    overlay: OverlaySnapshotter, tmp_path: Path
) -> None:
    trees = tmp_path / "overlay" / "snapshots"
    layers(overlay, 3)
    lower = ":".join(str(trees / name / "fs") for name in "321")

    (active,) = overlay.prepare("active", "3")
    assert (active.type, active.source) == ("overlay", "overlay")
    options = split(active)
    assert options["lowerdir"] == lower
    assert options["upperdir"] == str(trees / "4" / "fs")
    assert options["workdir"] == str(trees / "4" / "work")
    (view,) = overlay.view("view", "3")
    assert view.type == "overlay"
    assert split(view)["lowerdir"] == lower
    assert not {"upperdir", "workdir"} & split(view).keys()
    # The newest in the view is the third, of which no directory has the place.
    assert not (trees / "5").exists()


@linux_only
@pytest.mark.parametrize(
    ("has_index", "id_map", "expected"),
    [
        (True, "         0          0 4294967295\n", {"index": "off"}),
        (False, "         0          0 4294967295\n", {}),
        (True, "         0       1000          1\n", {"index": "off", "userxattr": ""}),
    ],
)
def test_options_are_those_that_the_kernel_has_and_the_user_needs(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    has_index: bool,  # noqa: FBT001
    id_map: str,
    expected: dict[str, str],
) -> None:
    (tmp_path / "parameters").mkdir()
    if has_index:
        (tmp_path / "parameters" / "index").write_text("N\n")
    (tmp_path / "uid_map").write_text(id_map)
    monkeypatch.setattr("blobmap.local.overlay._PARAMETERS", tmp_path / "parameters")
    monkeypatch.setattr("blobmap.local.overlay._ID_MAP", tmp_path / "uid_map")

    with OverlaySnapshotter(tmp_path / "overlay") as overlay:
        layers(overlay, 1)
        (mount,) = overlay.prepare("active", "1")
    options = split(mount)
    for name in ("lowerdir", "upperdir", "workdir"):
        del options[name]
    assert options == expected


def test_the_check_says_what_mount_says(tmp_path: Path) -> None:
    machine.require_mounts()
    (tmp_path / "probe").mkdir()

    reason = OverlaySnapshotter.obstacle(tmp_path / "probe" / "not" / "yet")
    assert (reason is None) == can_mount(tmp_path)
    assert list((tmp_path / "probe").iterdir()) == []


@pytest.mark.parametrize("name", ["a:b", "a,b", "a\\b"])
def test_a_root_that_options_cannot_spell_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match="give another root"):
        OverlaySnapshotter(tmp_path / name)

    assert not (tmp_path / name).exists()
    assert OverlaySnapshotter.obstacle(tmp_path / name) is not None


def test_no_other_snapshotter_reads_its_trees(tmp_path: Path) -> None:
    OverlaySnapshotter(tmp_path / "overlay").close()
    NativeSnapshotter(tmp_path / "native").close()

    with pytest.raises(FailedPrecondition, match="its trees are overlay, not native"):
        NativeSnapshotter(tmp_path / "overlay")
    with pytest.raises(FailedPrecondition, match="its trees are native, not overlay"):
        OverlaySnapshotter(tmp_path / "native")
    OverlaySnapshotter(tmp_path / "overlay").close()


def test_trees_from_before_they_were_marked_are_native(tmp_path: Path) -> None:
    with NativeSnapshotter(tmp_path) as snapshotter:
        snapshotter.prepare("active")
    with blobkv.open(tmp_path / "meta") as store, store.update() as txn:
        del txn[blobkv.pack("trees")]

    with pytest.raises(FailedPrecondition, match="its trees are native, not overlay"):
        OverlaySnapshotter(tmp_path)
    with NativeSnapshotter(tmp_path) as snapshotter:
        assert snapshotter.stat("active").kind is Kind.ACTIVE


def test_a_commit_leaves_nothing_but_the_tree(
    overlay: OverlaySnapshotter, tmp_path: Path
) -> None:
    overlay.prepare("making")
    work = tmp_path / "overlay" / "snapshots" / "1" / "work"
    (work / "work" / "#1").mkdir(parents=True)
    overlay.commit("committed", "making")

    assert [path.name for path in work.parent.iterdir()] == ["fs"]


def test_what_a_commit_could_not_remove_is_left_to_cleanup(
    overlay: OverlaySnapshotter,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    overlay.prepare("making")
    monkeypatch.setattr("blobmap.local.tree.remove", broken)
    overlay.commit("committed", "making")
    monkeypatch.undo()
    tree = tmp_path / "overlay" / "snapshots" / "1"

    assert "left for the next cleanup" in caplog.text
    assert overlay.stat("committed").kind is Kind.COMMITTED
    assert (tree / "work").is_dir()
    overlay.cleanup()
    assert [path.name for path in tree.iterdir()] == ["fs"]


def test_a_commit_that_is_removed_at_once_is_gone(
    overlay: OverlaySnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hold = overlay._locks.hold

    def remove_first(*names: tuple[int, str]) -> object:
        if names[0][1] == "committed":
            monkeypatch.undo()
            overlay.remove("committed")
        return hold(*names)

    overlay.prepare("making")
    monkeypatch.setattr(overlay._locks, "hold", remove_first)
    overlay.commit("committed", "making")

    assert list(overlay.walk()) == []
    assert list((tmp_path / "overlay" / "snapshots").iterdir()) == []


# Really mounted.


def test_what_is_removed_is_a_whiteout_and_what_is_made_anew_is_opaque(
    overlay: OverlaySnapshotter, tmp_path: Path
) -> None:
    require_overlays(tmp_path)
    overlay.prepare("making 1")
    lower = directory(overlay, 1)
    (lower / "gone").write_text("x")
    (lower / "replaced").mkdir()
    (lower / "replaced" / "hidden").write_text("x")
    overlay.commit("1", "making 1")
    overlay.prepare("making 2", "1")
    upper = directory(overlay, 2)
    with seen(overlay, "making 2") as root:
        (root / "gone").unlink()
        shutil.rmtree(root / "replaced")
        (root / "replaced").mkdir()
    overlay.commit("2", "making 2")

    left = (upper / "gone").lstat()
    assert (stat.S_IFMT(left.st_mode), left.st_rdev) == (stat.S_IFCHR, 0)
    attributes = [name.partition(".")[2] for name in os.listxattr(upper / "replaced")]
    assert "overlay.opaque" in attributes
    assert overlay.usage("2") == Usage(0, 3)
    overlay.view("view", "2")
    with seen(overlay, "view") as root:
        assert set(without_times(root)) == {".", "replaced"}


def test_a_lower_directory_is_moved_as_by_mv(
    overlay: OverlaySnapshotter, tmp_path: Path
) -> None:
    require_overlays(tmp_path)
    overlay.prepare("making 1")
    old = directory(overlay, 1) / "old"
    old.mkdir()
    (old / "file").write_text("x")
    os.link(old / "file", old / "link")
    overlay.commit("1", "making 1")
    overlay.prepare("making 2", "1")
    with seen(overlay, "making 2") as root:
        subprocess.run(["mv", root / "old", root / "new"], check=True)
        moved = without_times(root / "new")
    overlay.commit("2", "making 2")
    overlay.view("view", "2")

    with seen(overlay, "view") as root:
        assert set(without_times(root)) == {".", "new", "new/file", "new/link"}
        assert without_times(root / "new") == moved


def test_the_root_is_the_parents_until_it_is_changed(
    overlay: OverlaySnapshotter, tmp_path: Path
) -> None:
    require_overlays(tmp_path)
    overlay.prepare("making 1")
    lower = directory(overlay, 1)
    lower.chmod(0o1770)
    os.chown(lower, 12, 34)
    os.setxattr(lower, "user.mine", b"kept")
    os.utime(lower, ns=(1, 1_000_000_000_123_456_789))
    overlay.commit("1", "making 1")
    overlay.prepare("making 2", "1")
    with seen(overlay, "making 2") as root:
        shown, attribute = root.stat(), os.getxattr(root, "user.mine")
        # What overlayfs notes of the first must not be in the second's.
        os.utime(root, ns=(1, 1_000_000_000_123_456_789))
    overlay.commit("2", "making 2")
    overlay.prepare("making 3", "2")

    assert oct(shown.st_mode) == oct(0o41770)
    assert (shown.st_uid, shown.st_gid) == (12, 34)
    assert (shown.st_mtime_ns, attribute) == (1_000_000_000_123_456_789, b"kept")
    names = os.listxattr(directory(overlay, 3))
    assert [name for name in names if "overlay." in name] == []


@pytest.mark.slow
def test_hundreds_of_parents_fit_under_a_long_root(tmp_path: Path) -> None:
    require_overlays(tmp_path)
    with OverlaySnapshotter(tmp_path / ("long" * 40) / ("name" * 40)) as overlay:
        layers(overlay, 300)
        overlay.view("view", "300")
        overlay.prepare("active", "300")
        expected = {".", *(f"file-{number}" for number in range(1, 301))}

        for key in ("view", "active"):
            (mount,) = overlay.mounts(key)
            assert len(",".join(mount.options)) > 25 * 4096
            with seen(overlay, key) as root:
                assert set(without_times(root)) == expected


def test_a_prepare_on_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with (
        volumes.tmpfs(tmp_path, "size=16m,nr_inodes=200") as volume,
        OverlaySnapshotter(volume.path / "overlay") as overlay,
    ):
        layers(overlay, 1)
        before = sorted((volume.path / "overlay" / "snapshots").iterdir())
        fill = volume.path / "fill"
        fill.mkdir()
        left = os.statvfs(volume.path).f_ffree
        # Room for 0 to 2 of the three directories that a prepare makes.
        for number in range(left - 2):
            (fill / str(number)).touch()
        for number in range(left - 2, left + 1):
            with pytest.raises(OSError, match="No space"):
                overlay.prepare("new", "1")
            assert sorted((volume.path / "overlay" / "snapshots").iterdir()) == before
            assert [info.name for info in overlay.walk()] == ["1"]
            if number < left:
                (fill / str(number)).touch()

        shutil.rmtree(fill)
        overlay.prepare("new", "1")
