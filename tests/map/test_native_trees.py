"""A chain of snapshots holds, layer for layer, what one directory changed in place would.

Method: containerd's mounted tests restated, over the copying snapshotter, with the source of
its bind as the mount, and over the overlay one, really mounted. Every layer is applied both to
an active snapshot and to a flat directory; the two must be equal before the commit, and so
must the view of what was committed.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.local_kinds import KINDS, Local, LocalKind, kind_of, seen
from support.trees import without_times

from blobmap.contracts import Kind, Usage
from blobmap.errors import DataLoss, FailedPrecondition
from blobmap.local import OverlaySnapshotter

Layer = Callable[[Path], None]

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root changes owners")


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> LocalKind:
    return kind_of(request.param, tmp_path)


@pytest.fixture
def local(kind: LocalKind, tmp_path: Path) -> Iterator[Local]:
    with kind(tmp_path / "local") as snapshotter:
        yield snapshotter


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    path = tmp_path / "flat"
    path.mkdir()
    path.chmod(0o755)
    return path


def chain(snapshotter: Local, flat: Path, *layers: Layer) -> str:
    """Apply and commit each layer on the one before; return the last one's name."""
    parent = ""
    for at, layer in enumerate(layers):
        name, key, view = f"layer-{at}", f"active-{at}", f"view-{at}"
        snapshotter.prepare(key, parent)
        with seen(snapshotter, key) as root:
            assert without_times(root) == without_times(flat)
            layer(root)
            layer(flat)
            assert without_times(root) == without_times(flat)
        snapshotter.commit(name, key)
        snapshotter.view(view, name)
        with seen(snapshotter, view) as root:
            assert without_times(root) == without_times(flat)
        snapshotter.remove(view)
        parent = name
    return parent


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


def test_the_root_of_a_fresh_snapshot_is_open_to_all(local: Local) -> None:
    for mask in (0, 0o077):
        before = os.umask(mask)
        try:
            local.prepare(f"active {mask}")
            local.view(f"view {mask}")
        finally:
            os.umask(before)

        for key in (f"active {mask}", f"view {mask}"):
            with seen(local, key) as root:
                assert oct(root.stat().st_mode) == oct(0o40755)


def test_layers_add_up(local: Local, flat: Path) -> None:
    def first(root: Path) -> None:
        write(root / "foo", "foo\n", 0o777)
        (root / "a" / "b" / "c").mkdir(parents=True)

    def second(root: Path) -> None:
        write(root / "bar", "bar\n")
        write(root / "foo", "bar\n", 0o777)
        shutil.rmtree(root / "a" / "b")

    assert chain(local, flat, first, second) == "layer-1"
    assert local.stat("layer-1").parent == "layer-0"


def test_the_same_size_rewritten_is_seen(local: Local, flat: Path) -> None:
    def first(root: Path) -> None:
        (root / "etc").mkdir(mode=0o700)
        write(root / "etc" / "hosts", "old hosts")
        write(root / "etc" / "profile", "old profile")

    def second(root: Path) -> None:
        write(root / "etc" / "hosts", "new hosts")
        write(root / "etc" / "profile", "new profile", 0o666)
        write(root / "root" / ".bashrc", "x")

    chain(local, flat, first, second)


def test_a_directory_made_again_hides_what_it_held(local: Local, flat: Path) -> None:
    def second(root: Path) -> None:
        shutil.rmtree(root / "lib")
        write(root / "lib" / "not-hidden", "x")

    chain(
        local,
        flat,
        lambda root: write(root / "lib" / "hidden", "x"),
        second,
        lambda root: write(root / "lib" / "newfile", "x"),
    )


def test_files_removed_and_moved_stay_so(local: Local, flat: Path) -> None:
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
        # An overlay does not rename what is below it; then it is copied, as by mv(1).
        shutil.move(root / "dir2", root / "dir4")
        write(root / "new", "new")
        (root / "new").rename(root / "dir3" / "f1")
        os.link(root / "dir3" / "f2", root / "f2-again")

    chain(local, flat, first, second, third, lambda root: None)


@needs_root
def test_owners_survive(local: Local, flat: Path) -> None:
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

    chain(local, flat, first, second, third)


@pytest.mark.slow
def test_a_hundred_and_twenty_eight_layers(local: Local, flat: Path) -> None:
    def layer(at: int) -> Layer:
        def apply(root: Path) -> None:
            write(root / "overwritten", str(at))
            write(root / f"added-{at}", str(at))
            shutil.rmtree(root / "only-me", ignore_errors=True)
            write(root / "only-me" / f"{at}", "x")

        return apply

    assert chain(local, flat, *map(layer, range(128))) == "layer-127"


def test_what_is_done_to_a_child_is_not_done_to_its_parent(local: Local) -> None:
    local.prepare("making")
    with seen(local, "making") as root:
        write(root / "file", "parent")
    local.commit("parent", "making")
    local.prepare("one", "parent")
    local.prepare("two", "parent")
    with seen(local, "one") as root:
        write(root / "file", "changed")

    local.view("view", "parent")
    for key in ("view", "two"):
        with seen(local, key) as root:
            assert (root / "file").read_text() == "parent"


def test_a_view_of_a_snapshot_takes_no_space(local: Local, tmp_path: Path) -> None:
    local.prepare("making")
    with seen(local, "making") as root:
        write(root / "file", "x" * 1000)
    local.commit("parent", "making")
    local.view("view", "parent")
    local.view("empty view")

    assert len(list((tmp_path / "local" / "snapshots").iterdir())) == 2
    assert local.usage("view") == local.usage("empty view") == Usage(0, 0)


def test_usage_is_what_a_snapshot_adds(local: Local) -> None:
    local.prepare("making")
    assert local.usage("making") == Usage(size=0, inodes=1)
    with seen(local, "making") as root:
        write(root / "d" / "one", "x" * 1000)
        os.link(root / "d" / "one", root / "again")
    assert local.usage("making") == Usage(size=1000, inodes=3)
    local.commit("parent", "making")
    assert local.usage("parent") == Usage(size=1000, inodes=3)

    # An upper directory has a root and, where something in it changed, directories of its own.
    is_overlay = isinstance(local, OverlaySnapshotter)
    local.prepare("child", "parent")
    assert local.usage("child") == Usage(0, 1 if is_overlay else 0)
    with seen(local, "child") as root:
        write(root / "two", "y" * 10)
        (root / "d" / "link").symlink_to("one")
    assert local.usage("child") == Usage(size=10, inodes=4 if is_overlay else 2)
    local.commit("layer", "child")
    assert local.usage("layer") == Usage(size=10, inodes=4 if is_overlay else 2)


def test_everything_is_there_after_reopening(kind: LocalKind, tmp_path: Path) -> None:
    with kind(tmp_path / "local") as local:
        local.prepare("making", labels={"a": "b"})
        with seen(local, "making") as root:
            write(root / "file", "kept")
        local.commit("parent", "making", labels={"c": "d"})
        local.prepare("active", "parent", labels={"e": "f"})
        local.view("view", "parent")
        infos, mounts = list(local.walk()), local.mounts("active")
        usage = local.usage("parent")

    with kind(tmp_path / "local") as local:
        assert list(local.walk()) == infos
        assert local.mounts("active") == mounts
        assert local.usage("parent") == usage
        with seen(local, "view") as root:
            assert (root / "file").read_text() == "kept"
        assert local.stat("active").kind is Kind.ACTIVE


def test_paths_of_what_is_gone_lead_nowhere_after_reopening(
    kind: LocalKind, tmp_path: Path
) -> None:
    with kind(tmp_path / "local") as local:
        local.prepare("gone")
        gone = local.mounts("gone")[0].source
        local.remove("gone")

    with kind(tmp_path / "local") as local:
        local.prepare("new")
        assert local.mounts("new")[0].source != gone
        assert not Path(gone).exists()


def test_a_parent_whose_tree_is_gone_is_data_loss(local: Local) -> None:
    local.prepare("making")
    local.commit("parent", "making")
    local.view("view", "parent")
    shutil.rmtree(local.mounts("view")[0].source)

    with pytest.raises(DataLoss, match="'parent'"):
        local.prepare("child", "parent")
    with pytest.raises(FailedPrecondition):
        local.remove("parent")
    local.remove("view")
    local.remove("parent")
