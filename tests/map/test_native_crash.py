"""Whatever moment the copying snapshotter is killed at, it holds all of a change or nothing.

Method: photograph the root before every single change that an operation makes
(`support.photos`), open each photograph, and check that the records are those before or
those after, that each tree is whole, and that nothing else is left. Then the order in which
things become durable, by listening to the calls; and what happens when a call fails.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from support.photos import photographs
from support.trees import without_times

from blobmap.contracts import Info
from blobmap.errors import AlreadyExists, NotFound
from blobmap.local import NativeSnapshotter, durable, native, tree

Operation = Callable[[NativeSnapshotter], object]
State = dict[str, tuple[str, str]]


def populate(root: Path) -> None:
    """Make "base" with three entries, "child" on it, and "spare" on nothing."""
    with NativeSnapshotter(root) as snapshotter:
        (mount,) = snapshotter.prepare("making")
        (Path(mount.source) / "directory").mkdir()
        (Path(mount.source) / "directory" / "file").write_text("some bytes")
        (Path(mount.source) / "link").symlink_to("directory/file")
        snapshotter.commit("base", "making")
        snapshotter.prepare("child", "base")
        snapshotter.prepare("spare")


def state(snapshotter: NativeSnapshotter) -> State:
    return {info.name: (info.kind.value, info.parent) for info in snapshotter.walk()}


def trees(root: Path) -> set[str]:
    return {path.name for path in (root / "snapshots").iterdir()}


def check(photo: Path) -> State:
    """Open what a kill left; check that it is whole, and works; return its records."""
    with NativeSnapshotter(photo) as snapshotter:
        found = state(snapshotter)
        with_trees = [info for info in snapshotter.walk() if is_tree(info)]
        assert len(trees(photo)) == len(with_trees)
        snapshotter.view("look", "base")
        (mount,) = snapshotter.mounts("look")
        base = without_times(Path(mount.source))
        assert set(base) == {".", "directory", "directory/file", "link"}
        for info in with_trees:
            if info.parent == "base" and info.kind.value == "active":
                (mount,) = snapshotter.mounts(info.name)
                assert without_times(Path(mount.source)) == base
        snapshotter.remove("look")

        for name in sorted(found, key=lambda name: found[name][1] == ""):
            snapshotter.remove(name)
        assert trees(photo) == set()
    return found


def is_tree(info: Info) -> bool:
    return info.kind.value != "view" or not info.parent


@pytest.mark.slow
@pytest.mark.parametrize(
    "operation",
    [
        pytest.param(lambda s: s.prepare("new"), id="prepare"),
        pytest.param(lambda s: s.prepare("new", "base"), id="prepare-on-base"),
        pytest.param(lambda s: s.view("new"), id="view"),
        pytest.param(lambda s: s.view("new", "base"), id="view-of-base"),
        pytest.param(lambda s: s.commit("new", "child"), id="commit"),
        pytest.param(lambda s: s.remove("child"), id="remove"),
        pytest.param(lambda s: s.remove("spare"), id="remove-empty"),
    ],
)
def test_a_kill_at_any_change_leaves_all_or_nothing(
    tmp_path: Path, operation: Operation
) -> None:
    root, album = tmp_path / "root", tmp_path / "album"
    populate(root)
    with NativeSnapshotter(root) as snapshotter:
        before = state(snapshotter)
        with photographs(root, album) as photos:
            operation(snapshotter)
        after = state(snapshotter)

    states = [check(photo) for photo in photos]

    assert len(photos) >= 2
    assert states[0] == before
    assert states[-1] == after
    assert all(found in (before, after) for found in states)
    assert sum(one != other for one, other in pairwise(states)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="listens through /proc")
def test_a_tree_is_durable_before_its_name_and_its_name_before_its_record(
    tmp_path: Path, events: list[str]
) -> None:
    populate(tmp_path)
    with NativeSnapshotter(tmp_path) as snapshotter:
        # The first change after an open also starts a log.
        snapshotter.update(snapshotter.stat("base"))
        events.clear()
        snapshotter.prepare("new")
        assert events == [
            "fsync snapshots/new-4",
            "rename snapshots/new-4",
            f"fsync {tmp_path.name}/snapshots",
            "record",
        ]

        events.clear()
        snapshotter.prepare("newer", "base")
        assert events == [
            "syncfs snapshots/new-5",
            "rename snapshots/new-5",
            f"fsync {tmp_path.name}/snapshots",
            "record",
        ]

        events.clear()
        snapshotter.commit("newest", "newer")
        assert events == ["syncfs snapshots/5", "record"]

        events.clear()
        snapshotter.remove("newest")
        assert events[:2] == ["record", "rename snapshots/5"]


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["utime", "copy_file_range", "rename"])
def test_a_prepare_that_fails_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    populate(tmp_path)
    with NativeSnapshotter(tmp_path) as snapshotter:
        before, trees_before = state(snapshotter), trees(tmp_path)
        monkeypatch.setattr(os, call, no_space, raising=False)
        with pytest.raises(OSError, match="No space"):
            snapshotter.prepare("new", "base")
        monkeypatch.undo()

        snapshotter.cleanup()
        assert state(snapshotter) == before
        assert trees(tmp_path) == trees_before
        snapshotter.prepare("new", "base")


def test_a_tree_that_cannot_be_removed_is_left_to_cleanup(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    populate(tmp_path)
    with NativeSnapshotter(tmp_path) as snapshotter:
        monkeypatch.setattr(tree, "remove", no_space)
        snapshotter.remove("child")
        monkeypatch.undo()

        assert "left for the next cleanup" in caplog.text
        with pytest.raises(NotFound):
            snapshotter.stat("child")
        snapshotter.prepare("child", "base")
        assert trees(tmp_path) == {"1", "rm-2", "3", "4"}
        snapshotter.cleanup()
        assert trees(tmp_path) == {"1", "3", "4"}


def test_leftovers_are_removed_and_nothing_else(tmp_path: Path) -> None:
    populate(tmp_path)
    for name in ("99", "new-98", "rm-97", "rm-new-96", "rm-95-0123456789abcdef"):
        (tmp_path / "snapshots" / name / "below").mkdir(parents=True)
    (tmp_path / "snapshots" / "lost+found").mkdir()

    with NativeSnapshotter(tmp_path) as snapshotter:
        assert trees(tmp_path) == {"1", "2", "3", "lost+found"}
        assert set(state(snapshotter)) == {"base", "child", "spare"}


def test_cleanup_spares_what_is_being_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(tmp_path)
    with NativeSnapshotter(tmp_path) as snapshotter:
        sync_tree = durable.sync_tree

        def clean_meanwhile(path: str) -> None:
            sync_tree(path)
            thread = threading.Thread(target=snapshotter.cleanup)
            thread.start()
            thread.join()

        monkeypatch.setattr(native, "sync_tree", clean_meanwhile)
        (mount,) = snapshotter.prepare("new", "base")

        assert (Path(mount.source) / "directory" / "file").read_text() == "some bytes"


def test_a_remove_and_a_cleanup_at_once_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(tmp_path)
    remove = tree.remove

    with NativeSnapshotter(tmp_path) as snapshotter:
        removed: list[str] = []

        def remove_while_another_cleans(directory: str, name: str) -> None:
            removed.append(name)
            snapshotter.cleanup()
            remove(directory, name)

        monkeypatch.setattr(tree, "remove", remove_while_another_cleans)
        snapshotter.remove("child")

        assert removed == ["rm-2"]
        assert trees(tmp_path) == {"1", "3"}


def meanwhile(monkeypatch: pytest.MonkeyPatch, change: Callable[[], object]) -> None:
    """Make `change` happen once, when the next tree has just been copied."""
    copy = tree.copy

    def copy_then_change(source: str, target: str) -> None:
        copy(source, target)
        monkeypatch.undo()
        change()

    monkeypatch.setattr(tree, "copy", copy_then_change)


def test_a_parent_removed_meanwhile_is_not_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with NativeSnapshotter(tmp_path) as snapshotter:
        snapshotter.prepare("making")
        snapshotter.commit("base", "making")
        meanwhile(monkeypatch, lambda: snapshotter.remove("base"))
        with pytest.raises(NotFound):
            snapshotter.prepare("new", "base")

        assert trees(tmp_path) == set()


def test_a_parent_replaced_meanwhile_is_not_mistaken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        snapshotter.remove("base")
        snapshotter.prepare("making")
        snapshotter.commit("base", "making")

    with NativeSnapshotter(tmp_path) as snapshotter:
        snapshotter.prepare("making")
        snapshotter.commit("base", "making")
        meanwhile(monkeypatch, replace)
        with pytest.raises(NotFound, match="removed meanwhile"):
            snapshotter.prepare("new", "base")

        assert set(state(snapshotter)) == {"base"}
        assert len(trees(tmp_path)) == 1


def test_a_name_taken_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(tmp_path)
    with NativeSnapshotter(tmp_path) as snapshotter:
        meanwhile(monkeypatch, lambda: snapshotter.commit("new", "spare"))
        with pytest.raises(AlreadyExists):
            snapshotter.prepare("new", "base")

        assert state(snapshotter)["new"] == ("committed", "")
        assert trees(tmp_path) == {"1", "2", "3"}
