"""What containerd's suites leave out of snapshots: limits of labels, odd keys, walks, the end.

Method: each edge of the protocol by itself, over the basis of snapshots of every kind.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from random import Random

import pytest
from support.basis import KEYS, names

from blobmap.contracts import Info, Kind, Snapshotter, Usage
from blobmap.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    NotImplementedHere,
)

ODD_KEYS = (
    "/var/lib/a path/with spaces",
    "extract-1-2 sha256:" + "0" * 64,
    ".",
    "..",
    "../../etc/passwd",
    "a\x00b",
    "\x00",
    "\xff",
    "\udcff",
    "\udcff\udcff",
    "\ud83d\ude00",
    "😀",
    "\n",
    "one case",
    "One Case",
    "é" * 100,
    "k" * 32 * 1024,
    '{"json": true}',
)
# Drawn to collide: prefixes of one another, the separators of naive keys, the ends of order.
ALPHABET = "\x00/a\x7f\xff\udcff"


@pytest.mark.parametrize("path", ["parent", "name", "kind", "created", "", "labels.", "label"])
def test_only_labels_can_be_changed(basis: Snapshotter, path: str) -> None:
    """Upstream: none."""
    before = basis.stat("active-1")
    with pytest.raises(InvalidArgument):
        basis.update(Info("active-1", "x", Kind.VIEW, {"a": "b"}), "labels.a", path)
    assert basis.stat("active-1") == before


def test_a_label_is_named_by_all_behind_the_first_dot(basis: Snapshotter) -> None:
    """Upstream: none."""
    labels = {"a.b/c": "1", "labels.d": "2", "\udcff é": "3"}
    for key in KEYS:
        after = basis.update(Info(key, "", Kind.VIEW, labels), *(f"labels.{k}" for k in labels))
        assert after.labels == {"name": key, **labels}
        after = basis.update(Info(key, "", Kind.VIEW), "labels.a.b/c", "labels.labels.d")
        assert basis.stat(key) == after
        assert after.labels == {"name": key, "\udcff é": "3"}


def test_a_label_without_a_value_is_none(basis: Snapshotter) -> None:
    """Upstream: none."""
    labels = {"kept": "1", "empty": ""}
    basis.prepare("a", labels=labels)
    basis.view("v", labels=labels)
    basis.commit("c", "active-1", labels=labels)
    for key in ("a", "v", "c"):
        assert basis.stat(key).labels == {"kept": "1"}
        basis.update(Info(key, "", Kind.VIEW, {"kept": ""}), "labels.kept")
        assert basis.stat(key).labels == {}
    basis.update(Info("a", "", Kind.VIEW, labels))

    assert basis.stat("a").labels == {"kept": "1"}
    assert names(basis, "labels.empty") == []


def test_a_label_has_a_limit(basis: Snapshotter) -> None:
    """It is counted in bytes, the key's and the value's together.

    Upstream: none.
    """
    for fits in ({"k": "v" * 4095}, {"é" * 10: "é" * 2038}):
        basis.prepare("new", labels=fits)
        assert basis.stat("new").labels == fits
        basis.remove("new")
    before = list(basis.walk())
    for too_large in ({"k": "v" * 4096}, {"é" * 10: "é" * 2039}, {"k" * 4097: ""}):
        for call in (
            lambda labels: basis.prepare("newer", labels=labels),
            lambda labels: basis.view("newer", labels=labels),
            lambda labels: basis.commit("newer", "active-1", labels=labels),
            lambda labels: basis.update(Info("active-1", "", Kind.ACTIVE, labels)),
            lambda labels: basis.update(Info("active-1", "", Kind.ACTIVE, labels), "labels"),
        ):
            with pytest.raises(InvalidArgument):
                call(too_large)
    assert list(basis.walk()) == before


def test_a_view_costs_nothing_of_its_own(basis: Snapshotter) -> None:
    """Upstream: none."""
    for key in ("view-1", "view-2"):
        assert basis.usage(key) == Usage(0, 0)
    assert basis.usage("active-1") + Usage(1, 2) == Usage(
        basis.usage("active-1").size + 1, basis.usage("active-1").inodes + 2
    )


def test_a_walk_stands_changes(basis: Snapshotter) -> None:
    """Upstream: snapshots/RemoveInWalk."""
    walked = []
    for info in basis.walk("name!=view-1"):
        walked.append(info.name)
        if info.name == "active-1":
            basis.remove("active-1")
            basis.remove("active-3")
            basis.update(Info("view-2", "", Kind.VIEW, {"changed": "1"}))
            basis.prepare("active-0")
            basis.commit("zzz", "active-0")

    assert set(walked) - {"zzz"} == set(KEYS) - {"active-3", "view-1"}
    assert len(walked) == len(set(walked))
    assert names(basis, "labels.changed") == ["view-2"]


def test_a_walk_may_be_left(basis: Snapshotter) -> None:
    """What is raised inside it reaches who raised it, and nothing stays locked.

    Upstream: none.
    """
    with pytest.raises(ZeroDivisionError):
        for info in basis.walk():
            assert info.name == KEYS[0]
            raise ZeroDivisionError
    basis.remove("active-1")

    assert names(basis) == KEYS[1:]


def test_a_bad_filter_is_refused(basis: Snapshotter) -> None:
    """Upstream: none."""
    for bad in ("kind=active", "name==foo,", "labels.", 'name=="foo', "name~=("):
        with pytest.raises(InvalidArgument):
            list(basis.walk("kind==active", bad))


def test_cleanup_changes_nothing_that_is_known(basis: Snapshotter) -> None:
    """Upstream: none."""
    before = list(basis.walk())
    with suppress(NotImplementedHere):
        basis.cleanup()

    assert list(basis.walk()) == before
    assert basis.mounts("active-3")


def test_a_key_used_again_is_another_snapshot(snapshotter: Snapshotter) -> None:
    """Upstream: none."""
    made = []
    for _ in range(3):
        snapshotter.prepare("key")
        made.append(snapshotter.stat("key").created)
        snapshotter.remove("key")

    assert len(set(made)) == 3
    assert sorted(made, key=str) == made


@pytest.mark.slow
def test_a_key_is_any_text(snapshotter: Snapshotter) -> None:
    """Upstream: none."""
    random = Random(4)
    drawn = {"".join(random.choices(ALPHABET, k=random.randint(1, 4))) for _ in range(20)}
    keys = sorted({*ODD_KEYS, *drawn})
    for key in keys:
        snapshotter.prepare(key, labels={"key": key[:2000]} | ({key: "1"} if key < "k" else {}))
    assert names(snapshotter) == keys
    for key in keys:
        info = snapshotter.stat(key)
        assert (info.name, info.labels["key"]) == (key, key[:2000])
        snapshotter.commit(f"{key} ", key)
        snapshotter.view(key[:1000], f"{key} ")
        assert snapshotter.stat(key[:1000]).parent == f"{key} "
        assert snapshotter.mounts(key[:1000])
        with pytest.raises(FailedPrecondition):
            snapshotter.remove(f"{key} ")
        snapshotter.remove(key[:1000])
    for key in keys:
        snapshotter.remove(f"{key} ")

    assert names(snapshotter) == []


@pytest.mark.parametrize("size", [1 << 16, 1 << 20])
def test_a_key_that_is_too_large_is_refused_or_served(basis: Snapshotter, size: int) -> None:
    """Upstream: none."""
    key = "k" * size
    before = list(basis.walk())
    try:
        basis.prepare(key)
    except InvalidArgument:
        for call in (basis.stat, basis.usage, basis.mounts, basis.remove):
            with pytest.raises((InvalidArgument, NotFound)):
                call(key)
        with pytest.raises(InvalidArgument):
            basis.commit(key, "active-1")
    else:
        assert basis.stat(key).name == key
        basis.remove(key)

    assert list(basis.walk()) == before


def test_a_parent_is_told_from_names_that_start_like_it(snapshotter: Snapshotter) -> None:
    """Upstream: none."""
    for name in ("a", "a/", "a\x00", "a\xff"):
        snapshotter.prepare("making")
        snapshotter.commit(name, "making")
    snapshotter.prepare("child", "a/")

    for name in ("a", "a\x00", "a\xff"):
        snapshotter.remove(name)
    assert names(snapshotter) == ["a/", "child"]


def test_a_closed_snapshotter_does_nothing_more(basis: Snapshotter) -> None:
    """Upstream: none."""
    basis.close()
    basis.close()

    calls: list[Callable[[], object]] = [
        lambda: basis.stat("active-1"),
        lambda: basis.usage("active-1"),
        lambda: basis.mounts("active-1"),
        lambda: basis.commit("name", "active-1"),
        lambda: basis.remove("active-1"),
        lambda: basis.update(Info("active-1", "", Kind.ACTIVE)),
        lambda: basis.prepare("new"),
        lambda: basis.view("new"),
        lambda: list(basis.walk()),
        basis.cleanup,
    ]
    for call in calls:
        with pytest.raises(FailedPrecondition):
            call()
