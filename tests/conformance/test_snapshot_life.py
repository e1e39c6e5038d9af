"""Snapshots live as containerd's snapshotter suite asks: those of its tests that need no tree.

Source: containerd's core/snapshots/testsuite.
"""

from __future__ import annotations

import pytest
from support.basis import names
from support.stretch import Window

from blobmap.contracts import Info, Kind, Snapshotter
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

ROOT = "containerd.io/gc.root"


def make(
    snapshotter: Snapshotter, name: str, parent: str = "", labels: dict[str, str] | None = None
) -> None:
    """Commit a snapshot, by way of an active one that has other labels."""
    snapshotter.prepare(f"{name}-tmp", parent, labels={ROOT: "check-walk", "tmp": "1"})
    snapshotter.commit(name, f"{name}-tmp", labels=labels)


def test_an_active_snapshot_is_what_was_prepared(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/StatActive."""
    assert snapshotter.prepare("/key/active")
    info = snapshotter.stat("/key/active")

    assert (info.name, info.kind, info.parent) == ("/key/active", Kind.ACTIVE, "")


def test_a_committed_snapshot_is_what_was_committed(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/StatComitted."""
    snapshotter.prepare("/key/active")
    snapshotter.commit("/key/committed", "/key/active")
    info = snapshotter.stat("/key/committed")

    assert (info.name, info.kind, info.parent) == ("/key/committed", Kind.COMMITTED, "")


def test_a_parent_has_its_own_parent(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/TransitivityTest."""
    make(snapshotter, "a")
    make(snapshotter, "b", "a")

    assert snapshotter.stat("a").parent == ""
    assert snapshotter.stat("b").parent == "a"
    assert snapshotter.stat(snapshotter.stat("b").parent).parent == ""


def test_a_key_is_prepared_or_viewed_once(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/PreareViewFailingtest."""
    make(snapshotter, "a")
    snapshotter.prepare("k", "a")
    snapshotter.prepare("q", "a")
    snapshotter.view("w", "a")

    for again, key in (
        (snapshotter.view, "k"),
        (snapshotter.prepare, "q"),
        (snapshotter.view, "w"),
        (snapshotter.prepare, "w"),
    ):
        with pytest.raises(AlreadyExists):
            again(key, "a")
    assert names(snapshotter) == ["a", "k", "q", "w"]


@pytest.mark.parametrize("key", ["c1", "c2", "a1", "a2", "v1", "v2"])
def test_labels_change_by_path_and_nothing_else_does(
    snapshotter: Snapshotter, key: str
) -> None:
    """Upstream: snapshots/Update."""
    with Window() as making:
        make(snapshotter, "c1")
        make(snapshotter, "c2", "c1")
        snapshotter.prepare("a1", "c2")
        snapshotter.prepare("a2")
        snapshotter.view("v1", "c2")
        snapshotter.view("v2")
    before = snapshotter.stat(key)
    assert before.name == key
    assert before.kind is {"c": Kind.COMMITTED, "a": Kind.ACTIVE, "v": Kind.VIEW}[key[0]]
    assert before.parent == {"c2": "c1", "a1": "c2", "v1": "c2"}.get(key, "")
    assert before.created == before.updated
    assert before.created in making

    def update(labels: dict[str, str], *paths: str) -> dict[str, str]:
        with Window() as changing:
            after = snapshotter.update(Info(key, "doesnotexist", Kind.VIEW, labels), *paths)
        assert (after.name, after.kind, after.parent) == (key, before.kind, before.parent)
        assert after.created == before.created
        assert after.updated in changing
        assert snapshotter.stat(key) == after
        return dict(after.labels)

    all_three = {"l1": "v1", "l2": "v2", "l3": "v3", ROOT: "now"}
    assert update(all_three) == all_three
    assert update({"l1": "updated", "l4": "v4"}, "labels.l1", "labels.l2") == {
        "l1": "updated",
        "l3": "v3",
        ROOT: "now",
    }
    assert update({"l4": "v4", ROOT: "now"}, "labels") == {"l4": "v4", ROOT: "now"}
    with pytest.raises(InvalidArgument):
        update({}, "parent")


def test_keys_and_names_are_free_at_once(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/Remove."""
    snapshotter.prepare("committed-a")
    snapshotter.commit("committed-1", "committed-a")
    snapshotter.prepare("reuse-1", "committed-1")
    snapshotter.remove("reuse-1")
    snapshotter.view("reuse-1", "committed-1")
    snapshotter.remove("reuse-1")
    snapshotter.prepare("reuse-1")
    snapshotter.remove("committed-1")
    snapshotter.commit("committed-1", "reuse-1")

    assert names(snapshotter) == ["committed-1"]
    assert snapshotter.stat("committed-1").parent == ""


def test_a_walk_gives_what_some_filter_matches(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/Walk."""
    root = {ROOT: "check-walk"}
    snapshotter.prepare("a-np", labels=root)
    make(snapshotter, "p", labels=root)
    snapshotter.prepare("a", "p", labels=root)
    snapshotter.view("v", "p", labels=root)
    make(snapshotter, "p-wl", labels={**root, "l": "1"})
    snapshotter.prepare("a-wl", "p-wl", labels={**root, "l": "2"})
    snapshotter.view("v-wl", "p-wl", labels={**root, "l": "3"})
    snapshotter.prepare("a-np-wl", labels={**root, "l": "2"})
    rooted = f'labels."{ROOT}"==check-walk'

    for filters, expected in (
        ([], "a a-np a-np-wl a-wl p p-wl v v-wl"),
        ([rooted], "a a-np a-np-wl a-wl p p-wl v v-wl"),
        ([f"kind==active,{rooted}"], "a a-np a-np-wl a-wl"),
        ([f"kind==view,{rooted}"], "v v-wl"),
        ([f"kind==committed,{rooted}"], "p p-wl"),
        (["name==p", "name==a-np-wl"], "a-np-wl p"),
        (["name==a-wl,labels.l"], "a-wl"),
        (["parent==p"], "a v"),
        ([f'parent!="",{rooted}'], "a a-wl v v-wl"),
        (["labels.l"], "a-np-wl a-wl p-wl v-wl"),
        (["labels.l==2"], "a-np-wl a-wl"),
        (["labels.tmp"], ""),
    ):
        assert names(snapshotter, *filters) == expected.split()


def test_a_snapshot_between_two_others_goes_after_the_upper(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/RemoveIntermediateSnapshot."""
    make(snapshotter, "base")
    make(snapshotter, "inter", "base")
    snapshotter.prepare("top", "inter")

    with pytest.raises(FailedPrecondition, match="remove"):
        snapshotter.remove("inter")
    for key in ("top", "inter", "base"):
        snapshotter.remove(key)
    assert names(snapshotter) == []


def test_inside_a_walk_stat_gives_the_same(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/StatInWalk."""
    make(snapshotter, "stats-in-walk-c1", labels={"a": "b"})
    make(snapshotter, "stats-in-walk-c2", "stats-in-walk-c1")
    snapshotter.prepare("stats-in-walk-a1", "stats-in-walk-c2")
    snapshotter.view("stats-in-walk-v1", "stats-in-walk-c2", labels={"c": "d"})
    walked = []
    for info in snapshotter.walk("name~=^stats-in-walk-"):
        assert snapshotter.stat(info.name) == info
        walked.append(info.name.removeprefix("stats-in-walk-"))

    assert walked == ["a1", "c1", "c2", "v1"]


def test_closing_twice_is_closing(snapshotter: Snapshotter) -> None:
    """Upstream: snapshots/CloseTwice."""
    make(snapshotter, "c")
    snapshotter.remove("c")

    snapshotter.close()
    snapshotter.close()


def test_what_was_removed_after_its_commit_is_gone(snapshotter: Snapshotter) -> None:
    """One that containerd lists as missing, RemoveAfterCommit.

    Upstream: snapshots/RemoveAfterCommit.
    """
    make(snapshotter, "c")
    with pytest.raises(NotFound):
        snapshotter.remove("c-tmp")
    snapshotter.remove("c")

    with pytest.raises(NotFound):
        snapshotter.stat("c")
