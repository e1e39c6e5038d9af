"""A chain of snapshots holds, layer for layer, what one directory changed in place would.

Method: the tests of containerd's snapshotter suite that mount. Every layer is applied both to
an active snapshot and to a flat directory; the two must be equal before and after, and so
must the view of what was committed. Equal are: paths; of each, type, mode, and owner; of
files, contents and which paths are one file; targets of symlinks; numbers of devices.

Source: containerd's core/snapshots/testsuite.
"""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
from support.chains import Layer, Trees, write
from support.mounting import mounted

from blobmap.contracts import Kind, Snapshotter, Usage
from blobmap.errors import FailedPrecondition, NotFound

pytestmark = pytest.mark.needs("trees")
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")


@pytest.fixture
def trees(snapshotter: Snapshotter, tmp_path: Path) -> Trees:
    flat = tmp_path / "flat"
    flat.mkdir(mode=0o755)
    return Trees(snapshotter, flat)


def test_layers_add_up(trees: Trees) -> None:
    """Upstream: snapshots/Basic."""
    snapshotter, prepared, next_one = trees.snapshotter, "/key/a 1", "/key/a 2"

    def first(root: Path) -> None:
        write(root / "foo", "foo\n", 0o777)
        (root / "a" / "b" / "c").mkdir(parents=True)

    def second(root: Path) -> None:
        write(root / "bar", "bar\n")
        write(root / "foo", "bar\n", 0o777)
        shutil.rmtree(root / "a" / "b")

    assert snapshotter.prepare(prepared)
    first(trees.flat)
    with trees.tree(prepared) as path:
        first(path)
    snapshotter.commit("c1", prepared)
    assert (snapshotter.stat("c1").kind, snapshotter.stat("c1").parent) == (Kind.COMMITTED, "")
    with pytest.raises(NotFound):
        snapshotter.stat(prepared)

    snapshotter.prepare(next_one, "c1")
    trees.require_equal(next_one)
    second(trees.flat)
    with trees.tree(next_one) as path:
        second(path)
    assert (snapshotter.stat(next_one).kind, snapshotter.stat(next_one).parent) == (
        Kind.ACTIVE,
        "c1",
    )
    snapshotter.commit("c2", next_one)
    with pytest.raises(NotFound):
        snapshotter.stat(next_one)
    assert [snapshotter.stat(key) for key in ("c1", "c2")] == list(snapshotter.walk())

    snapshotter.view("v", "c2")
    trees.require_equal("v")
    snapshotter.remove("v")
    with pytest.raises(FailedPrecondition, match="remove"):
        snapshotter.remove("c1")
    snapshotter.remove("c2")
    snapshotter.remove("c1")


def test_a_file_of_the_same_size_and_time_is_another_file(trees: Trees) -> None:
    """Where containerd waits for a new second, the times are set.

    Upstream: snapshots/LayerFileupdate.
    """

    def written(text: str, mode: int) -> Layer:
        def apply(root: Path) -> None:
            (root / "etc").mkdir(mode=0o700, exist_ok=True)
            write(root / "etc" / "hosts", f"{text} hosts")
            write(root / "etc" / "profile", f"{text} profile", mode)
            for name in ("hosts", "profile"):
                os.utime(root / "etc" / name, (1_000_000_000, 1_000_000_000))

        return apply

    def with_another(root: Path) -> None:
        written("new", 0o666)(root)
        write(root / "root" / ".bashrc", "x")

    trees.chain(written("old", 0o644), with_another, written("odd", 0o666))


def test_a_directory_made_again_hides_what_it_held(trees: Trees) -> None:
    """Upstream: snapshots/RemoveDirectoryInLowerLayer."""

    def made_again(root: Path) -> None:
        shutil.rmtree(root / "lib")
        write(root / "lib" / "not-hidden", "x")

    trees.chain(
        lambda root: write(root / "lib" / "hidden", "x"),
        made_again,
        lambda root: write(root / "lib" / "newfile", "x"),
    )


@needs_root
def test_owners_change(trees: Trees) -> None:
    """Upstream: snapshots/Chown."""

    def changed(root: Path) -> None:
        for path in ("opt", "opt/a", "opt/a/b", "opt/a/b/file.txt"):
            os.chown(root / path, 1, 1)

    trees.chain(lambda root: write(root / "opt" / "a" / "b" / "file.txt", "hello"), changed)


@needs_root
def test_owners_survive_a_commit(trees: Trees) -> None:
    """Upstream: snapshots/DirectoryPermissionOnCommit."""

    def first(root: Path) -> None:
        for at in range(1, 6):
            write(root / f"dir{at}" / "f", f"{at}")
            os.chown(root / f"dir{at}", at, at)

    def second(root: Path) -> None:
        os.chown(root / "dir2", 0, 0)
        shutil.rmtree(root / "dir3")
        os.chown(root / "dir4", 1, 1)
        os.chown(root / "dir4" / "f", 1, 1)

    def third(root: Path) -> None:
        shutil.rmtree(root / "dir5")
        for name in ("dir3", "dir5"):
            (root / name).mkdir(mode=0o700)
            os.chown(root / name, 1, 1)

    trees.chain(first, second, third)


def test_a_file_removed_in_a_child_stays_so(trees: Trees) -> None:
    """Upstream: snapshots/DeletedFilesInChildSnapshot."""

    def first(root: Path) -> None:
        write(root / "foo", "foo\n")
        write(root / "foobar", "foobar\n")

    trees.chain(first, lambda root: (root / "foobar").unlink(), lambda root: None)


def test_a_file_of_the_parent_is_moved_by_a_link(trees: Trees) -> None:
    """Upstream: snapshots/MoveFileFromLowerLayer."""

    def first(root: Path) -> None:
        write(root / "dir1" / "f1", "f1")
        write(root / "dir2" / "f2", "f2")

    def second(root: Path) -> None:
        write(root / "dir3" / "f1", "f1")
        shutil.rmtree(root / "dir1")
        os.link(root / "dir2" / "f2", root / "dir3" / "f2")
        (root / "dir2" / "f2").unlink()

    trees.chain(first, second)


def test_two_names_of_one_file_stay_so(trees: Trees) -> None:
    """Upstream: none."""

    def first(root: Path) -> None:
        write(root / "a" / "one", "x" * 1000)
        (root / "b").mkdir()
        os.link(root / "a" / "one", root / "b" / "two")
        write(root / "b" / "apart", "x" * 1000)

    trees.chain(first, lambda root: write(root / "more", "x"))


def test_a_rename_is_a_rename(trees: Trees) -> None:
    """The directory is one that the layer made itself, as containerd has it for overlays.

    Upstream: snapshots/Rename.
    """

    def first(root: Path) -> None:
        write(root / "dir1" / "f1", "f1")
        write(root / "f1", "was f1")
        write(root / "f2", "f2")

    def second(root: Path) -> None:
        shutil.copytree(root / "dir1", root / "dir2", symlinks=True)
        shutil.rmtree(root / "dir1")
        (root / "dir2").rename(root / "dir3")
        write(root / "new", "now f1")
        (root / "new").rename(root / "f1")
        (root / "f2").rename(root / "f3")

    trees.chain(first, second)


def test_what_is_no_file_or_directory_is_kept(trees: Trees) -> None:
    """Sockets are what containerd lists as missing; device nodes take root.

    Upstream: none.
    """

    def first(root: Path) -> None:
        (root / "to nowhere").symlink_to("/no/such/place")
        os.mkfifo(root / "pipe", 0o640)
        write(root / "set-id", "x", 0o6755)
        (root / "sticky").mkdir()
        (root / "sticky").chmod(0o1777)
        (root / "\udcff\n 名前").mkdir()
        if os.geteuid() == 0:
            os.mknod(root / "null", 0o20666, os.makedev(1, 3))
        where = os.open(root, os.O_RDONLY)
        try:
            with socket.socket(socket.AF_UNIX) as server:
                # A path may be too long for a socket's name.
                server.bind(f"/proc/self/fd/{where}/socket")
        finally:
            os.close(where)

    def second(root: Path) -> None:
        (root / "socket").unlink()
        (root / "to nowhere").unlink()
        (root / "to nowhere").mkdir()
        (root / "sticky").rmdir()
        (root / "sticky").symlink_to("pipe")

    trees.chain(first, second)


def test_nothing_is_written_through_a_view(trees: Trees, tmp_path: Path) -> None:
    """Upstream: snapshots/ViewReadonly."""
    snapshotter = trees.snapshotter
    snapshotter.prepare("making")
    with trees.tree("making") as path:
        write(path / "file", "kept")
    snapshotter.commit("committed", "making")

    for key, parent in (("view", "committed"), ("empty view", "")):
        snapshotter.view(key, parent)
        with mounted(snapshotter.mounts(key), tmp_path) as path:
            with pytest.raises(OSError, match="Read-only"):
                (path / "new").write_text("x")
            if parent:
                with pytest.raises(OSError, match="Read-only"):
                    (path / "file").write_text("x")
                assert (path / "file").read_text() == "kept"
        snapshotter.remove(key)
    snapshotter.remove("committed")


def test_what_is_written_through_a_mount_is_committed(trees: Trees, tmp_path: Path) -> None:
    """Upstream: none."""
    snapshotter = trees.snapshotter
    snapshotter.prepare("making")
    with mounted(snapshotter.mounts("making"), tmp_path) as path:
        write(path / "file", "kept")
    write(trees.flat / "file", "kept")
    snapshotter.commit("committed", "making")
    snapshotter.view("view", "committed")

    trees.require_equal("view")


@pytest.mark.parametrize("mask", [0, 0o077])
def test_the_root_of_a_fresh_snapshot_is_open_to_all(trees: Trees, mask: int) -> None:
    """Upstream: snapshots/RootPermission."""
    os.umask(mask)
    trees.snapshotter.prepare("active")
    trees.snapshotter.view("view")

    for key in ("active", "view"):
        with trees.tree(key) as path:
            assert oct(path.stat().st_mode) == oct(0o40755)


@pytest.mark.slow
def test_a_hundred_and_twenty_eight_layers(trees: Trees) -> None:
    """Upstream: snapshots/128LayersMount."""

    def layer(at: int) -> Layer:
        def apply(root: Path) -> None:
            write(root / "bottom", str(at), 0o777)
            write(root / f"layer-{at}", str(at))
            shutil.rmtree(root / "onlyme", ignore_errors=True)
            write(root / "onlyme" / f"{at}", "x")

        return apply

    last = trees.chain(*map(layer, range(128)))
    trees.snapshotter.view("all of it", last)

    trees.require_equal("all of it")
    assert last == "layer-127"


def test_what_is_done_to_a_child_is_not_done_to_its_parent(trees: Trees) -> None:
    """Upstream: none."""
    snapshotter = trees.snapshotter
    snapshotter.prepare("making")
    with trees.tree("making") as path:
        write(path / "file", "parent's")
    snapshotter.commit("parent", "making")
    snapshotter.prepare("one", "parent")
    snapshotter.prepare("two", "parent")
    with trees.tree("one") as path:
        write(path / "file", "changed")

    snapshotter.view("view", "parent")
    for key in ("view", "two"):
        with trees.tree(key) as path:
            assert (path / "file").read_text() == "parent's"


def test_usage_is_what_a_snapshot_adds(trees: Trees) -> None:
    """An empty tree may cost its root; a view costs nothing, and parents are not counted.

    Upstream: none.
    """
    snapshotter = trees.snapshotter
    snapshotter.prepare("making")
    empty = snapshotter.usage("making")
    assert empty.inodes <= 1
    with trees.tree("making") as path:
        write(path / "d" / "one", "x" * 100_000)
    active = snapshotter.usage("making")
    assert active.size - empty.size >= 100_000
    assert active.inodes == empty.inodes + 2
    snapshotter.commit("parent", "making")
    assert snapshotter.usage("parent") == active

    snapshotter.prepare("child", "parent")
    unchanged = snapshotter.usage("child")
    assert unchanged.size < 100_000
    with trees.tree("child") as path:
        write(path / "two", "y" * 10)
    assert snapshotter.usage("child").inodes == unchanged.inodes + 1
    snapshotter.view("view", "parent")
    snapshotter.view("empty view")
    assert snapshotter.usage("view") == snapshotter.usage("empty view") == Usage(0, 0)
