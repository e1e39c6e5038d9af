"""Walks see what is there while it changes, and of many threads that race one wins.

Method: containerd's walk tests restated, walks with changes inside them, and threads that
start together. Each test runs over the snapshotter in memory,
the copying one, and the overlay one.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread

import pytest
from support.basis import KEYS, names

from blobmap.contracts import Snapshotter
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound


def test_a_walk_gives_each_once_in_order_as_stat_does(basis: Snapshotter) -> None:
    walked = []
    for info in basis.walk():
        assert basis.stat(info.name) == info
        walked.append(info.name)

    assert walked == KEYS


def test_a_walk_filters(empty: Snapshotter) -> None:
    root = {"containerd.io/gc.root": "check-walk"}
    empty.prepare("a-np", labels=root)
    empty.prepare("p-tmp", labels={**root, "tmp": "1"})
    empty.commit("p", "p-tmp", labels=root)
    empty.prepare("a", "p", labels=root)
    empty.view("v", "p", labels=root)
    empty.prepare("p-wl-tmp")
    empty.commit("p-wl", "p-wl-tmp", labels={**root, "l": "1"})
    empty.prepare("a-wl", "p-wl", labels={**root, "l": "2"})
    empty.view("v-wl", "p-wl", labels={**root, "l": "3"})
    empty.prepare("a-np-wl", labels={**root, "l": "2"})
    all_of_them = 'labels."containerd.io/gc.root"==check-walk'

    for filters, expected in (
        ([all_of_them], "a a-np a-np-wl a-wl p p-wl v v-wl"),
        ([f"kind==active,{all_of_them}"], "a a-np a-np-wl a-wl"),
        ([f"kind==view,{all_of_them}"], "v v-wl"),
        ([f"kind==committed,{all_of_them}"], "p p-wl"),
        (["name==p", "name==a-np-wl"], "a-np-wl p"),
        (["name==a-wl,labels.l"], "a-wl"),
        (["parent==p"], "a v"),
        ([f'parent!="",{all_of_them}'], "a a-wl v v-wl"),
        (["labels.l"], "a-np-wl a-wl p-wl v-wl"),
        (["labels.l==2"], "a-np-wl a-wl"),
        (["labels.tmp"], ""),
    ):
        assert names(empty, *filters) == expected.split()


def test_a_walk_with_a_bad_filter_fails_at_once(basis: Snapshotter) -> None:
    with pytest.raises(InvalidArgument):
        basis.walk("kind==active", "kind=active")


def test_a_walk_stands_changes(basis: Snapshotter) -> None:
    walked = []
    for info in basis.walk():
        walked.append(info.name)
        if info.name == "active-1":
            basis.remove("active-1")
            basis.remove("active-3")
            basis.prepare("active-0")
            basis.commit("zzz", "active-0")

    assert walked == [key for key in KEYS if key != "active-3"]


def test_cleanup_changes_nothing_that_is_known(basis: Snapshotter) -> None:
    before = list(basis.walk())
    basis.cleanup()

    assert list(basis.walk()) == before


def run_together(count: int, work: Callable[[int], object]) -> list[str]:
    """Run `work(0..count)` at once; return "done" or the error's class for each, sorted."""
    results: list[str] = []
    together = Barrier(count)

    def run(at: int) -> None:
        together.wait()
        try:
            work(at)
        except (AlreadyExists, FailedPrecondition, NotFound) as error:
            results.append(type(error).__name__)
        else:
            results.append("done")

    threads = [Thread(target=run, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results)


def test_one_of_many_who_prepare_a_key_wins(basis: Snapshotter) -> None:
    results = run_together(8, lambda _: basis.prepare("raced", "committed-2"))

    assert results == ["AlreadyExists"] * 7 + ["done"]
    assert basis.stat("raced").parent == "committed-2"


def test_one_of_many_who_commit_a_name_wins(basis: Snapshotter) -> None:
    for at in range(6):
        basis.prepare(f"raced-{at}", "committed-1")

    results = run_together(6, lambda at: basis.commit("raced", f"raced-{at}"))

    assert results == ["AlreadyExists"] * 5 + ["done"]
    assert len(names(basis, "kind==active,name~=^raced-")) == 5


def test_one_of_many_who_commit_or_remove_a_key_wins(basis: Snapshotter) -> None:
    def work(at: int) -> None:
        if at % 2:
            basis.commit(f"raced-{at}", "active-2")
        else:
            basis.remove("active-2")

    assert run_together(6, work) == ["NotFound"] * 5 + ["done"]


def test_a_parent_never_goes_from_under_a_child(basis: Snapshotter) -> None:
    for turn in range(10):
        basis.prepare("making", "committed-2")
        basis.commit(f"parent-{turn}", "making")

        def work(at: int, parent: str = f"parent-{turn}") -> None:
            if at == 0:
                basis.remove(parent)
            else:
                basis.prepare(f"{parent}-child-{at}", parent)

        run_together(3, work)

        children = names(basis, f"parent==parent-{turn}")
        assert (f"parent-{turn}" in names(basis)) == bool(children)
