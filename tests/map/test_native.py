"""Snapshots are made, changed, committed, and removed as the protocol says, by whichever one.

Method: those of containerd's snapshotter and metadata suites that need no tree restated, and
what they leave out: label limits, odd keys. Each test runs over the snapshotter in memory,
the copying one, and the overlay one (`conftest.py`), all on a clock that counts.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.basis import BASIS, KEYS, names

from blobmap.contracts import Info, Kind, Snapshotter, Usage
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from blobmap.local import OverlaySnapshotter


def raises_everywhere(snapshotter: Snapshotter, key: str, error: type[Exception]) -> None:
    calls: list[Callable[[], object]] = [
        lambda: snapshotter.stat(key),
        lambda: snapshotter.usage(key),
        lambda: snapshotter.mounts(key),
        lambda: snapshotter.commit("name", key),
        lambda: snapshotter.remove(key),
        lambda: snapshotter.update(Info(key, "", Kind.ACTIVE)),
    ]
    for call in calls:
        with pytest.raises(error):
            call()


def test_an_empty_snapshotter_has_nothing(empty: Snapshotter) -> None:
    assert names(empty) == []
    raises_everywhere(empty, "anything", NotFound)


@pytest.mark.parametrize("key", KEYS)
def test_each_is_what_it_was_made(basis: Snapshotter, key: str) -> None:
    kind, parent = BASIS[key]
    info = basis.stat(key)

    assert (info.name, info.kind, info.parent) == (key, kind, parent)
    assert info.labels == {"name": key}
    assert info.created == info.updated
    assert info.created is not None
    assert info.created.utcoffset() is not None


def test_what_does_not_exist_is_not_found(basis: Snapshotter) -> None:
    raises_everywhere(basis, "making", NotFound)
    raises_everywhere(basis, "", NotFound)
    with pytest.raises(NotFound):
        basis.prepare("new", "making")
    with pytest.raises(NotFound):
        basis.view("new", "making")
    assert names(basis) == KEYS


@pytest.mark.parametrize("key", KEYS)
def test_a_key_is_taken_whatever_has_it(basis: Snapshotter, key: str) -> None:
    for make in (basis.prepare, basis.view):
        for parent in ("", "committed-1"):
            with pytest.raises(AlreadyExists):
                make(key, parent)
    assert names(basis) == KEYS


@pytest.mark.parametrize("parent", ["active-1", "active-3", "view-1", "view-2"])
def test_a_parent_is_committed(basis: Snapshotter, parent: str) -> None:
    for make in (basis.prepare, basis.view):
        with pytest.raises(InvalidArgument):
            make("new", parent)
    assert names(basis) == KEYS


def test_a_key_is_not_empty(basis: Snapshotter) -> None:
    for make in (basis.prepare, basis.view):
        with pytest.raises(InvalidArgument):
            make("")
    with pytest.raises(InvalidArgument):
        basis.commit("", "active-1")


def test_mounts_are_given_again(basis: Snapshotter) -> None:
    made = basis.prepare("new", "committed-1")

    assert basis.mounts("new") == made
    assert [mount.options for mount in basis.mounts("active-1")] == [("rbind", "rw")]
    assert [mount.options for mount in basis.mounts("view-1")] == [("rbind", "ro")]
    assert [mount.type for mount in basis.mounts("view-1")] == ["bind"]
    for key in ("new", "view-2", "active-3"):
        (mount,) = basis.mounts(key)
        if isinstance(basis, OverlaySnapshotter):
            # Its options are tested in test_overlay.py.
            assert (mount.type, mount.source) == ("overlay", "overlay")
        else:
            assert mount.type == "bind"
            assert mount.options == ("rbind", "ro" if key == "view-2" else "rw")
    for key in ("committed-1", "committed-2"):
        with pytest.raises(FailedPrecondition):
            basis.mounts(key)


def test_a_commit_frees_the_key_and_takes_the_name(basis: Snapshotter) -> None:
    before = basis.stat("active-3")
    basis.commit("committed-3", "active-3", labels={"new": "1", "empty": ""})

    raises_everywhere(basis, "active-3", NotFound)
    info = basis.stat("committed-3")
    assert (info.kind, info.parent, info.labels) == (
        Kind.COMMITTED,
        "committed-2",
        {"new": "1"},
    )
    assert info.created == info.updated
    assert before.created is not None
    assert info.created is not None
    assert info.created > before.created
    basis.prepare("active-3", "committed-3")
    basis.commit("committed-4", "active-3")
    assert basis.stat("committed-4").parent == "committed-3"
    assert basis.stat("committed-4").labels == {}


@pytest.mark.parametrize("name", KEYS)
def test_a_commit_needs_a_free_name(basis: Snapshotter, name: str) -> None:
    with pytest.raises(AlreadyExists):
        basis.commit(name, "active-1")
    assert basis.stat("active-1").kind is Kind.ACTIVE


@pytest.mark.parametrize("key", ["committed-1", "committed-2", "view-1", "view-2"])
def test_only_an_active_snapshot_is_committed(basis: Snapshotter, key: str) -> None:
    before = basis.stat(key)
    with pytest.raises(FailedPrecondition):
        basis.commit("new", key)
    assert basis.stat(key) == before


def test_children_go_before_their_parents(basis: Snapshotter) -> None:
    for _ in range(2):
        for key in ("committed-1", "committed-2"):
            with pytest.raises(FailedPrecondition, match="remove"):
                basis.remove(key)
    assert names(basis) == KEYS

    for key in ("view-2", "active-3", "committed-2", "active-2", "committed-1"):
        basis.remove(key)
        raises_everywhere(basis, key, NotFound)
    assert names(basis) == ["active-1", "view-1"]


def test_keys_and_names_are_free_at_once(empty: Snapshotter) -> None:
    empty.prepare("committed-a")
    empty.commit("committed-1", "committed-a")
    empty.prepare("reuse-1", "committed-1")
    empty.remove("reuse-1")
    empty.view("reuse-1", "committed-1")
    empty.remove("reuse-1")
    empty.prepare("reuse-1")
    empty.remove("committed-1")
    empty.commit("committed-1", "reuse-1")

    assert names(empty) == ["committed-1"]


def test_a_key_used_again_is_another_snapshot(empty: Snapshotter) -> None:
    made = []
    for _ in range(3):
        empty.prepare("key")
        made.append(empty.stat("key").created)
        empty.remove("key")

    assert len(set(made)) == 3


@pytest.mark.parametrize("key", KEYS)
def test_labels_change_and_nothing_else(basis: Snapshotter, key: str) -> None:
    before = basis.stat(key)
    wrong = Info(key, "doesnotexist", Kind.VIEW, {"l1": "1", "l2": "2", "l3": "3", "l0": ""})

    after = basis.update(wrong)
    assert after.labels == {"l1": "1", "l2": "2", "l3": "3"}
    assert (after.name, after.kind, after.parent, after.created) == (
        before.name,
        before.kind,
        before.parent,
        before.created,
    )
    assert before.updated is not None
    assert after.updated is not None
    assert after.updated > before.updated
    assert basis.stat(key) == after

    labels = {"l1": "updated", "l4": "4", "l3": ""}
    after = basis.update(Info(key, "", Kind.VIEW, labels), "labels.l1", "labels.l2")
    assert after.labels == {"l1": "updated", "l3": "3"}
    after = basis.update(Info(key, "", Kind.VIEW, labels), "labels")
    assert after.labels == {"l1": "updated", "l4": "4"}
    after = basis.update(Info(key, "", Kind.VIEW, {"a.b/c": "d"}), "labels.a.b/c", "labels.x")
    assert after.labels == {"l1": "updated", "l4": "4", "a.b/c": "d"}
    assert basis.stat(key) == after


@pytest.mark.parametrize("path", ["parent", "name", "kind", "created", "", "labels."])
def test_no_other_path_can_change(basis: Snapshotter, path: str) -> None:
    before = basis.stat("active-1")
    with pytest.raises(InvalidArgument):
        basis.update(Info("active-1", "x", Kind.VIEW, {"a": "b"}), "labels.a", path)
    assert basis.stat("active-1") == before


def test_a_label_has_a_limit(basis: Snapshotter) -> None:
    fits, too_large = {"k": "v" * 4095}, {"k": "v" * 4096}
    basis.prepare("new", labels=fits)

    for call in (
        lambda: basis.prepare("newer", labels=too_large),
        lambda: basis.view("newer", labels=too_large),
        lambda: basis.commit("newer", "new", labels=too_large),
        lambda: basis.update(Info("new", "", Kind.ACTIVE, too_large)),
    ):
        with pytest.raises(InvalidArgument, match="limit 4096"):
            call()
    assert names(basis) == sorted([*KEYS, "new"])
    assert basis.stat("new").labels == fits


def test_a_view_uses_nothing(basis: Snapshotter) -> None:
    assert basis.usage("view-1") == Usage(0, 0)
    assert basis.usage("view-2") == Usage(0, 0)


def test_a_snapshot_that_changes_nothing_uses_at_most_its_root(basis: Snapshotter) -> None:
    # The root of a copy is the same as its parent's; that of an upper directory is its own.
    root = 1 if isinstance(basis, OverlaySnapshotter) else 0
    assert basis.usage("active-2") == Usage(0, root)
    assert basis.usage("committed-2") == Usage(0, root)
    assert basis.usage("committed-1") == Usage(0, 1)


@pytest.mark.parametrize(
    "key",
    [
        "/var/lib/a path/with spaces",
        "extract-1-2 sha256:" + "0" * 64,
        "..",
        "a\x00b",
        "\udcff",
        "é" * 100,
        "k" * 30_000,
        '{"json": true}',
    ],
)
def test_a_key_is_any_text(empty: Snapshotter, key: str) -> None:
    empty.prepare(key)
    empty.commit(key + "\x00", key)
    empty.view(key, key + "\x00")

    assert names(empty) == [key, key + "\x00"]
    assert empty.stat(key).parent == key + "\x00"
    with pytest.raises(FailedPrecondition):
        empty.remove(key + "\x00")
    empty.remove(key)
    empty.remove(key + "\x00")


def test_a_parent_is_told_from_names_that_start_like_it(empty: Snapshotter) -> None:
    for name in ("a", "a/", "a\x00", "a\xff"):
        empty.prepare("making")
        empty.commit(name, "making")
    empty.prepare("child", "a/")

    for name in ("a", "a\x00", "a\xff"):
        empty.remove(name)
    assert names(empty) == ["a/", "child"]


def test_a_closed_snapshotter_does_nothing_more(basis: Snapshotter) -> None:
    basis.close()
    basis.close()

    raises_everywhere(basis, "active-1", FailedPrecondition)
    for call in (
        lambda: basis.prepare("new"),
        lambda: basis.view("new"),
        lambda: list(basis.walk()),
        basis.cleanup,
    ):
        with pytest.raises(FailedPrecondition):
            call()
