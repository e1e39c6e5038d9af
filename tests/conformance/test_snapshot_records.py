"""What is recorded of snapshots is what containerd's suite of its metadata store asks for.

Method: its tests restated on the protocol, over its basis of snapshots of every kind. Where
it looks at ids and at lists of parent ids, which no caller of the protocol sees, the mounts
stand for the id, and the chain of parents for the list. Its test Rebase is not here: the
protocol's `commit` takes no new parent. Two of its tests run another one's body by mistake;
what their names say is written out here.

Source: containerd's core/snapshots/storage/metastore_test.go.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.basis import BASIS, KEYS, build, names
from support.stretch import Window

from blobmap.contracts import Info, Kind, Snapshotter
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

MOUNTED = ("active-1", "active-2", "view-1", "view-2")
ACTIVE = ("active-1", "active-2", "active-3")
COMMITTED = ("committed-1", "committed-2")


def calls(snapshotter: Snapshotter, key: str) -> list[Callable[[], object]]:
    """Every call that is about one snapshot."""
    return [
        lambda: snapshotter.stat(key),
        lambda: snapshotter.usage(key),
        lambda: snapshotter.mounts(key),
        lambda: snapshotter.commit("name", key),
        lambda: snapshotter.remove(key),
        lambda: snapshotter.update(Info(key, "", Kind.ACTIVE)),
    ]


def parents(snapshotter: Snapshotter, key: str) -> list[str]:
    """Return the chain of parents, the nearest first."""
    chain = []
    while key := snapshotter.stat(key).parent:
        chain.append(key)
    return chain


def test_each_is_what_it_was_made(snapshotter: Snapshotter) -> None:
    """Upstream: metastore/GetInfo."""
    with Window() as making:
        build(snapshotter)

    for key, (kind, parent) in BASIS.items():
        info = snapshotter.stat(key)
        assert (info.name, info.kind, info.parent) == (key, kind, parent)
        assert info.labels == {"name": key}
        assert info.created == info.updated
        assert info.created in making
        assert info.blob is None


def test_what_does_not_exist_is_not_found(basis: Snapshotter) -> None:
    """Upstream: metastore/GetInfoNotExist, metastore/GetSnapshotNotExist."""
    for key in ("making", "active-1/", ""):
        for call in calls(basis, key):
            with pytest.raises(NotFound):
                call()
    assert names(basis) == KEYS


def test_where_nothing_is_nothing_is_found(snapshotter: Snapshotter) -> None:
    """Upstream: metastore/GetInfoEmptyDB, metastore/GetSnapshotEmptyDB."""
    assert names(snapshotter) == []
    for call in calls(snapshotter, "active-1"):
        with pytest.raises(NotFound):
            call()


def test_a_walk_gives_each_once(basis: Snapshotter) -> None:
    """Upstream: metastore/Walk."""
    assert list(basis.walk()) == [basis.stat(key) for key in KEYS]


def test_mounts_are_given_again(basis: Snapshotter) -> None:
    """Upstream: metastore/GetSnapshot."""
    made = [basis.prepare("new"), basis.prepare("new on one", "committed-1")]
    made += [basis.view("seen"), basis.view("seen on one", "committed-1")]

    again = [basis.mounts(key) for key in ("new", "new on one", "seen", "seen on one")]
    assert again == made
    assert all(made)
    for key in MOUNTED:
        assert basis.mounts(key) == basis.mounts(key)


def test_the_mounts_of_a_view_are_read_only(basis: Snapshotter) -> None:
    """Upstream: none."""
    for key in ("view-1", "view-2"):
        for mount in basis.mounts(key):
            assert mount.type != "bind" or "ro" in mount.options
            assert "rw" not in mount.options
            assert not any(option.startswith("upperdir=") for option in mount.options)


def test_a_committed_snapshot_has_no_mounts(basis: Snapshotter) -> None:
    """Upstream: metastore/GetSnapshotCommitted."""
    for key in COMMITTED:
        with pytest.raises(FailedPrecondition):
            basis.mounts(key)


def test_active_snapshots_have_trees_of_their_own(basis: Snapshotter) -> None:
    """Upstream: metastore/CreateActive."""
    for key in ("more-1", "more-2"):
        basis.prepare(key, "committed-1")

    made = [str(basis.mounts(key)) for key in (*ACTIVE, "more-1", "more-2")]
    assert len(set(made)) == 5
    basis.commit("committed-3", "more-1")
    basis.prepare("on-three", "committed-3")
    assert parents(basis, "on-three") == ["committed-3", "committed-1"]


def test_a_parent_that_does_not_exist_is_not_found(basis: Snapshotter) -> None:
    """Upstream: metastore/CreateActiveNotExist."""
    for make in (basis.prepare, basis.view):
        with pytest.raises(NotFound):
            make("new", "making")
    assert names(basis) == KEYS


def test_a_key_is_taken_whatever_has_it(basis: Snapshotter) -> None:
    """Upstream: metastore/CreateActiveExist."""
    for make in (basis.prepare, basis.view):
        for key in KEYS:
            for parent in ("", "committed-1"):
                with pytest.raises(AlreadyExists):
                    make(key, parent)
    assert names(basis) == KEYS


def test_a_parent_is_committed(basis: Snapshotter) -> None:
    """Upstream: metastore/CreateActiveFromActive."""
    for make in (basis.prepare, basis.view):
        for parent in ("active-1", "active-3", "view-1", "view-2"):
            with pytest.raises(InvalidArgument):
                make("new", parent)
    assert names(basis) == KEYS


def test_a_commit_frees_the_key_and_takes_the_name(basis: Snapshotter) -> None:
    """Upstream: metastore/Commit."""
    before = basis.stat("active-3")
    with Window() as committing:
        basis.commit("committed-3", "active-3", labels={"new": "1", "empty": ""})

    for call in calls(basis, "active-3"):
        with pytest.raises(NotFound):
            call()
    info = basis.stat("committed-3")
    assert (info.kind, info.parent) == (Kind.COMMITTED, "committed-2")
    assert info.labels == {"new": "1"}
    assert info.created == info.updated
    assert info.created in committing
    assert info.created != before.created
    with pytest.raises(FailedPrecondition):
        basis.commit("committed-4", "committed-3")
    basis.prepare("active-3", "committed-3")
    basis.commit("committed-4", "active-3")
    assert basis.stat("committed-4").labels == {}
    assert parents(basis, "committed-4") == ["committed-3", "committed-2", "committed-1"]


def test_a_commit_needs_a_free_name(basis: Snapshotter) -> None:
    """It is looked at first: also where there is nothing to commit.

    Upstream: metastore/CommitExist.
    """
    before = list(basis.walk())
    for name in KEYS:
        for key in ("active-1", "making", "view-1"):
            with pytest.raises(AlreadyExists):
                basis.commit(name, key)
    assert list(basis.walk()) == before


def test_what_does_not_exist_is_not_committed(basis: Snapshotter) -> None:
    """Upstream: metastore/CommitNotExist."""
    with pytest.raises(NotFound):
        basis.commit("new", "making")
    assert names(basis) == KEYS


def test_only_an_active_snapshot_is_committed(basis: Snapshotter) -> None:
    """Upstream: metastore/CommitCommitted, metastore/CommitViewFails."""
    before = list(basis.walk())
    for key in (*COMMITTED, "view-1", "view-2"):
        with pytest.raises(FailedPrecondition):
            basis.commit("new", key)
    assert list(basis.walk()) == before


def test_children_go_before_their_parents(basis: Snapshotter) -> None:
    """Upstream: metastore/Remove, metastore/RemoveNotExist."""
    for key in ("view-2", "active-3", "committed-2", "active-2", "committed-1"):
        basis.remove(key)
        for call in calls(basis, key):
            with pytest.raises(NotFound):
                call()
    assert names(basis) == ["active-1", "view-1"]


def test_a_parent_stays_however_often_it_is_removed(basis: Snapshotter) -> None:
    """Upstream: metastore/RemoveWithChildren."""
    before = list(basis.walk())
    for _ in range(2):
        for key in COMMITTED:
            with pytest.raises(FailedPrecondition, match="remove"):
                basis.remove(key)
    assert list(basis.walk()) == before


def test_parents_are_known_at_every_depth(basis: Snapshotter) -> None:
    """Upstream: metastore/ParentIDs."""
    for depth, chain in enumerate(([], ["committed-1"], ["committed-2", "committed-1"])):
        parent = chain[0] if chain else ""
        basis.prepare(f"active {depth}", parent)
        basis.view(f"view {depth}", parent)
        basis.prepare("making", parent)
        basis.commit(f"committed {depth}", "making")
        for kind in ("active", "view", "committed"):
            assert parents(basis, f"{kind} {depth}") == chain


def test_keys_and_names_are_not_empty(basis: Snapshotter) -> None:
    """Upstream: none."""
    for make in (basis.prepare, basis.view):
        with pytest.raises(InvalidArgument):
            make("")
    with pytest.raises(InvalidArgument):
        basis.commit("", "active-1")
    assert names(basis) == KEYS
