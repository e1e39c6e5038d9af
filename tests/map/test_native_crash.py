"""Whatever moment a local snapshotter is killed at, it holds all of a change or nothing.

Method: photograph the root before every single change that an operation makes
(`support.photos`), open each photograph, and check that the records are those before or
those after, that each tree is whole, and that nothing else is left. Then the order in which
things become durable, by listening to the calls; and what happens when a call fails. Each test
runs over the copying snapshotter and the overlay one.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest
from support.local_kinds import KINDS, Local, LocalKind, kind_of, seen
from support.photos import photographs
from support.trees import without_times

from blobmap.contracts import Info
from blobmap.errors import AlreadyExists, NotFound
from blobmap.local import NativeSnapshotter, OverlaySnapshotter, native, overlay, tree

Operation = Callable[[Local], object]
State = dict[str, tuple[str, str]]


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest, tmp_path: Path) -> LocalKind:
    return kind_of(request.param, tmp_path)


def populate(root: Path, kind: LocalKind) -> None:
    """Make "base" with three entries, "child" on it, and "spare" on nothing."""
    with kind(root) as snapshotter:
        (mount,) = snapshotter.prepare("making")
        (Path(mount.source) / "directory").mkdir()
        (Path(mount.source) / "directory" / "file").write_text("some bytes")
        (Path(mount.source) / "link").symlink_to("directory/file")
        snapshotter.commit("base", "making")
        snapshotter.prepare("child", "base")
        # A mount leaves something of its own in an overlay's work directory.
        with seen(snapshotter, "child"):
            pass
        snapshotter.prepare("spare")


def state(snapshotter: Local) -> State:
    return {info.name: (info.kind.value, info.parent) for info in snapshotter.walk()}


def trees(root: Path) -> set[str]:
    return {path.name for path in (root / "snapshots").iterdir()}


def check(photo: Path, kind: LocalKind) -> State:
    """Open what a kill left; check that it is whole, and works; return its records."""
    with kind(photo) as snapshotter:
        found = state(snapshotter)
        with_trees = [info for info in snapshotter.walk() if is_tree(info)]
        assert len(trees(photo)) == len(with_trees)
        if kind is not NativeSnapshotter:
            active = sum(info.kind.value == "active" for info in with_trees)
            assert len(list(photo.glob("snapshots/*/work"))) == active
        snapshotter.view("look", "base")
        with seen(snapshotter, "look") as root:
            base = without_times(root)
        assert set(base) == {".", "directory", "directory/file", "link"}
        for info in with_trees:
            if info.parent == "base" and info.kind.value == "active":
                with seen(snapshotter, info.name) as root:
                    assert without_times(root) == base
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
    kind: LocalKind, tmp_path: Path, operation: Operation
) -> None:
    root, album = tmp_path / "root", tmp_path / "album"
    populate(root, kind)
    with kind(root) as snapshotter:
        before = state(snapshotter)
        with photographs(root, album) as photos:
            operation(snapshotter)
        after = state(snapshotter)

    states = [check(photo, kind) for photo in photos]

    assert len(photos) >= 2
    assert states[0] == before
    assert states[-1] == after
    assert all(found in (before, after) for found in states)
    assert sum(one != other for one, other in pairwise(states)) == 1


@pytest.mark.skipif(sys.platform != "linux", reason="listens through /proc")
def test_a_tree_is_durable_before_its_name_and_its_name_before_its_record(
    kind: LocalKind, tmp_path: Path, events: list[str]
) -> None:
    populate(tmp_path, kind)
    with kind(tmp_path) as snapshotter:
        # The first change after an open also starts a log.
        snapshotter.update(snapshotter.stat("base"))
        made = {
            NativeSnapshotter: (["fsync snapshots/new-4"], ["syncfs snapshots/new-5"]),
            OverlaySnapshotter: (
                ["fsync new-4/fs", "fsync snapshots/new-4"],
                ["fsync new-5/fs", "fsync snapshots/new-5"],
            ),
        }[kind]
        for key, base, id_, syncs in (("new", "", 4, made[0]), ("newer", "base", 5, made[1])):
            events.clear()
            snapshotter.prepare(key, base)
            assert events == [
                *syncs,
                f"rename snapshots/new-{id_}",
                f"fsync {tmp_path.name}/snapshots",
                "record",
            ]

        events.clear()
        snapshotter.commit("newest", "newer")
        synced = "snapshots/5" if kind is NativeSnapshotter else "5/fs"
        assert events == [f"syncfs {synced}", "record"]

        events.clear()
        snapshotter.remove("newest")
        assert events[:2] == ["record", "rename snapshots/5"]


def no_space(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["mkdir", "utime", "copy_file_range", "rename"])
def test_a_prepare_that_fails_leaves_nothing(
    kind: LocalKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    populate(tmp_path, kind)
    if call == "copy_file_range" and kind is not NativeSnapshotter:
        call = "chmod"
    with kind(tmp_path) as snapshotter:
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
    kind: LocalKind,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    populate(tmp_path, kind)
    with kind(tmp_path) as snapshotter:
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


def test_leftovers_are_removed_and_nothing_else(kind: LocalKind, tmp_path: Path) -> None:
    populate(tmp_path, kind)
    for name in ("99", "new-98", "rm-97", "rm-new-96", "rm-95-0123456789abcdef"):
        (tmp_path / "snapshots" / name / "below").mkdir(parents=True)
    (tmp_path / "snapshots" / "lost+found").mkdir()

    with kind(tmp_path) as snapshotter:
        assert trees(tmp_path) == {"1", "2", "3", "lost+found"}
        assert set(state(snapshotter)) == {"base", "child", "spare"}


def test_cleanup_spares_what_is_being_made(
    kind: LocalKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(tmp_path, kind)
    with kind(tmp_path) as snapshotter:
        place: tuple[ModuleType, str] = (native, "sync_tree")
        if kind is not NativeSnapshotter:
            place = (overlay, "sync_directory")
        sync = getattr(*place)

        def clean_meanwhile(path: str) -> None:
            sync(path)
            thread = threading.Thread(target=snapshotter.cleanup)
            thread.start()
            thread.join()

        monkeypatch.setattr(*place, clean_meanwhile)
        snapshotter.prepare("new", "base")

        with seen(snapshotter, "new") as root:
            assert (root / "directory" / "file").read_text() == "some bytes"


def test_a_remove_and_a_cleanup_at_once_leave_nothing(
    kind: LocalKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(tmp_path, kind)
    remove = tree.remove

    with kind(tmp_path) as snapshotter:
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
    """Make `change` happen once, when the next tree has just been copied, or its root."""

    def then_change(copy: Callable[[str, str], None]) -> Callable[[str, str], None]:
        def copy_then_change(source: str, target: str) -> None:
            copy(source, target)
            monkeypatch.undo()
            change()

        return copy_then_change

    for name in ("copy", "copy_root"):
        monkeypatch.setattr(tree, name, then_change(getattr(tree, name)))


def test_a_parent_removed_meanwhile_is_not_found(
    kind: LocalKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with kind(tmp_path) as snapshotter:
        snapshotter.prepare("making")
        snapshotter.commit("base", "making")
        meanwhile(monkeypatch, lambda: snapshotter.remove("base"))
        with pytest.raises(NotFound):
            snapshotter.prepare("new", "base")

        assert trees(tmp_path) == set()


def test_a_parent_replaced_meanwhile_is_not_mistaken(
    kind: LocalKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def replace() -> None:
        snapshotter.remove("base")
        snapshotter.prepare("making")
        snapshotter.commit("base", "making")

    with kind(tmp_path) as snapshotter:
        snapshotter.prepare("making")
        snapshotter.commit("base", "making")
        meanwhile(monkeypatch, replace)
        with pytest.raises(NotFound, match="removed meanwhile"):
            snapshotter.prepare("new", "base")

        assert set(state(snapshotter)) == {"base"}
        assert len(trees(tmp_path)) == 1


def test_a_name_taken_meanwhile_is_left_alone(
    kind: LocalKind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    populate(tmp_path, kind)
    with kind(tmp_path) as snapshotter:
        meanwhile(monkeypatch, lambda: snapshotter.commit("new", "spare"))
        with pytest.raises(AlreadyExists):
            snapshotter.prepare("new", "base")

        assert state(snapshotter)["new"] == ("committed", "")
        assert trees(tmp_path) == {"1", "2", "3"}
