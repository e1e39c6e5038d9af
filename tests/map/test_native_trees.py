"""A chain of snapshots holds, layer for layer, what one directory changed in place would.

Method: containerd's mounted tests restated with the bind mount's source as the mount. Every
layer is applied both to an active snapshot and to a flat directory; the two must be equal
before the commit, and so must the view of what was committed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.trees import without_times

from blobmap.contracts import Kind, Usage
from blobmap.errors import DataLoss, FailedPrecondition
from blobmap.local import NativeSnapshotter

Layer = Callable[[Path], None]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")


@pytest.fixture
def native(tmp_path: Path) -> Iterator[NativeSnapshotter]:
    with NativeSnapshotter(tmp_path / "native") as snapshotter:
        yield snapshotter


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    path = tmp_path / "flat"
    path.mkdir()
    path.chmod(0o755)
    return path


def source(snapshotter: NativeSnapshotter, key: str) -> Path:
    """Return the directory that the snapshot's one mount binds."""
    (mount,) = snapshotter.mounts(key)
    return Path(mount.source)


def chain(snapshotter: NativeSnapshotter, flat: Path, *layers: Layer) -> str:
    """Apply and commit each layer on the one before; return the last one's name."""
    parent = ""
    for at, layer in enumerate(layers):
        name, key, view = f"layer-{at}", f"active-{at}", f"view-{at}"
        snapshotter.prepare(key, parent)
        assert without_times(source(snapshotter, key)) == without_times(flat)
        layer(source(snapshotter, key))
        layer(flat)
        assert without_times(source(snapshotter, key)) == without_times(flat)
        snapshotter.commit(name, key)
        snapshotter.view(view, name)
        assert without_times(source(snapshotter, view)) == without_times(flat)
        snapshotter.remove(view)
        parent = name
    return parent


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_the_root_of_a_fresh_snapshot_is_open_to_all(native: NativeSnapshotter) -> None:
    for mask in (0, 0o077):
        before = os.umask(mask)
        try:
            native.prepare(f"active {mask}")
            native.view(f"view {mask}")
        finally:
            os.umask(before)

        for key in (f"active {mask}", f"view {mask}"):
            assert oct(source(native, key).stat().st_mode) == oct(0o40755)


def test_layers_add_up(native: NativeSnapshotter, flat: Path) -> None:
    def first(root: Path) -> None:
        write(root / "foo", "foo\n", 0o777)
        (root / "a" / "b" / "c").mkdir(parents=True)

    def second(root: Path) -> None:
        write(root / "bar", "bar\n")
        write(root / "foo", "bar\n", 0o777)
        shutil.rmtree(root / "a" / "b")

    assert chain(native, flat, first, second) == "layer-1"
    assert native.stat("layer-1").parent == "layer-0"


def test_the_same_size_rewritten_is_seen(native: NativeSnapshotter, flat: Path) -> None:
    def first(root: Path) -> None:
        (root / "etc").mkdir(mode=0o700)
        write(root / "etc" / "hosts", "old hosts")
        write(root / "etc" / "profile", "old profile")

    def second(root: Path) -> None:
        write(root / "etc" / "hosts", "new hosts")
        write(root / "etc" / "profile", "new profile", 0o666)
        write(root / "root" / ".bashrc", "x")

    chain(native, flat, first, second)


def test_a_directory_made_again_hides_what_it_held(
    native: NativeSnapshotter, flat: Path
) -> None:
    def second(root: Path) -> None:
        shutil.rmtree(root / "lib")
        write(root / "lib" / "not-hidden", "x")

    chain(
        native,
        flat,
        lambda root: write(root / "lib" / "hidden", "x"),
        second,
        lambda root: write(root / "lib" / "newfile", "x"),
    )


def test_files_removed_and_moved_stay_so(native: NativeSnapshotter, flat: Path) -> None:
    def first(root: Path) -> None:
        write(root / "dir1" / "f1", "1")
        write(root / "dir2" / "f2", "2")
        write(root / "gone", "3")
        (root / "to-f1").symlink_to("dir1/f1")

    def second(root: Path) -> None:
        write(root / "dir3" / "f1", "1")
        shutil.rmtree(root / "dir1")
        os.link(root / "dir2" / "f2", root / "dir3" / "f2")
        (root / "dir2" / "f2").unlink()
        (root / "gone").unlink()

    def third(root: Path) -> None:
        (root / "dir2").rename(root / "dir4")
        write(root / "new", "new")
        (root / "new").rename(root / "dir3" / "f1")
        os.link(root / "dir3" / "f2", root / "f2-again")

    chain(native, flat, first, second, third, lambda root: None)


@needs_root
def test_owners_survive(native: NativeSnapshotter, flat: Path) -> None:
    def first(root: Path) -> None:
        for at in range(1, 6):
            write(root / f"dir{at}" / "file", "x")
            os.chown(root / f"dir{at}", at, at)

    def second(root: Path) -> None:
        os.chown(root / "dir2", 0, 0)
        shutil.rmtree(root / "dir3")
        os.chown(root / "dir4", 1, 1)
        os.chown(root / "dir4" / "file", 1, 1)

    def third(root: Path) -> None:
        for name in ("dir3", "dir5"):
            (root / name).mkdir(exist_ok=True)
            os.chown(root / name, 1, 1)

    chain(native, flat, first, second, third)


@pytest.mark.slow
def test_a_hundred_and_twenty_eight_layers(native: NativeSnapshotter, flat: Path) -> None:
    def layer(at: int) -> Layer:
        def apply(root: Path) -> None:
            write(root / "overwritten", str(at))
            write(root / f"added-{at}", str(at))
            shutil.rmtree(root / "only-me", ignore_errors=True)
            write(root / "only-me" / f"{at}", "x")

        return apply

    assert chain(native, flat, *map(layer, range(128))) == "layer-127"


def test_what_is_done_to_a_child_is_not_done_to_its_parent(native: NativeSnapshotter) -> None:
    native.prepare("making")
    write(source(native, "making") / "file", "parent")
    native.commit("parent", "making")
    native.prepare("one", "parent")
    native.prepare("two", "parent")
    write(source(native, "one") / "file", "changed")

    native.view("view", "parent")
    assert (source(native, "view") / "file").read_text() == "parent"
    assert (source(native, "two") / "file").read_text() == "parent"


def test_a_view_of_a_snapshot_takes_no_space(native: NativeSnapshotter, tmp_path: Path) -> None:
    native.prepare("making")
    write(source(native, "making") / "file", "x" * 1000)
    native.commit("parent", "making")
    native.view("view", "parent")
    native.view("empty view")

    assert len(list((tmp_path / "native" / "snapshots").iterdir())) == 2
    assert native.usage("view") == native.usage("empty view") == Usage(0, 0)


def test_usage_is_what_a_snapshot_adds(native: NativeSnapshotter) -> None:
    native.prepare("making")
    assert native.usage("making") == Usage(size=0, inodes=1)
    write(source(native, "making") / "d" / "one", "x" * 1000)
    os.link(source(native, "making") / "d" / "one", source(native, "making") / "again")
    assert native.usage("making") == Usage(size=1000, inodes=3)
    native.commit("parent", "making")
    assert native.usage("parent") == Usage(size=1000, inodes=3)

    native.prepare("child", "parent")
    assert native.usage("child") == Usage(0, 0)
    write(source(native, "child") / "two", "y" * 10)
    (source(native, "child") / "d" / "link").symlink_to("one")
    assert native.usage("child") == Usage(size=10, inodes=2)
    native.commit("layer", "child")
    assert native.usage("layer") == Usage(size=10, inodes=2)


def test_everything_is_there_after_reopening(tmp_path: Path) -> None:
    with NativeSnapshotter(tmp_path / "native") as native:
        native.prepare("making", labels={"a": "b"})
        write(source(native, "making") / "file", "kept")
        native.commit("parent", "making", labels={"c": "d"})
        native.prepare("active", "parent", labels={"e": "f"})
        native.view("view", "parent")
        infos, mounts = list(native.walk()), native.mounts("active")
        usage = native.usage("parent")

    with NativeSnapshotter(tmp_path / "native") as native:
        assert list(native.walk()) == infos
        assert native.mounts("active") == mounts
        assert native.usage("parent") == usage
        assert (source(native, "view") / "file").read_text() == "kept"
        assert native.stat("active").kind is Kind.ACTIVE


def test_paths_of_what_is_gone_lead_nowhere_after_reopening(tmp_path: Path) -> None:
    with NativeSnapshotter(tmp_path / "native") as native:
        native.prepare("gone")
        gone = source(native, "gone")
        native.remove("gone")

    with NativeSnapshotter(tmp_path / "native") as native:
        native.prepare("new")
        assert source(native, "new") != gone
        assert not gone.exists()


def test_a_parent_whose_tree_is_gone_is_data_loss(native: NativeSnapshotter) -> None:
    native.prepare("making")
    native.commit("parent", "making")
    native.view("view", "parent")
    shutil.rmtree(source(native, "view"))

    with pytest.raises(DataLoss, match="'parent'"):
        native.prepare("child", "parent")
    with pytest.raises(FailedPrecondition):
        native.remove("parent")
    native.remove("view")
    native.remove("parent")
