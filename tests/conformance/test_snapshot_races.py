"""Of many threads that race for a key, a name, or a parent, one wins, and the rest hear so.

containerd's suites have no threads. Method: threads that start together.
"""

from __future__ import annotations

from collections.abc import Callable
from threading import Barrier, Thread

from support.basis import names

from blobmap.contracts import Info, Kind, Snapshotter
from blobmap.errors import BlobMapError


def run_together(count: int, work: Callable[[int], object]) -> list[str]:
    """Run `work(0..count)` at once; return "done" or the error's class for each, sorted."""
    results: list[str] = []
    together = Barrier(count)

    def run(at: int) -> None:
        together.wait()
        try:
            work(at)
        except BlobMapError as error:
            results.append(type(error).__name__)
        else:
            results.append("done")

    threads = [Thread(target=run, args=(at,)) for at in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(results)


def test_one_of_many_who_make_a_key_wins(basis: Snapshotter) -> None:
    """Upstream: none."""

    def work(at: int) -> None:
        (basis.prepare, basis.view)[at % 2]("raced", "committed-2", labels={"at": str(at)})

    assert run_together(8, work) == ["AlreadyExists"] * 7 + ["done"]
    assert basis.stat("raced").parent == "committed-2"
    assert basis.mounts("raced")


def test_one_of_many_who_commit_a_name_wins(basis: Snapshotter) -> None:
    """Upstream: none."""
    for at in range(6):
        basis.prepare(f"raced-{at}", "committed-1")

    results = run_together(6, lambda at: basis.commit("raced", f"raced-{at}"))

    assert results == ["AlreadyExists"] * 5 + ["done"]
    assert len(names(basis, "kind==active,name~=^raced-")) == 5
    assert basis.stat("raced").kind is Kind.COMMITTED


def test_one_of_many_who_commit_or_remove_a_key_wins(basis: Snapshotter) -> None:
    """Upstream: none."""

    def work(at: int) -> None:
        if at % 2:
            basis.commit(f"raced-{at}", "active-2")
        else:
            basis.remove("active-2")

    assert run_together(6, work) == ["NotFound"] * 5 + ["done"]


def test_a_parent_never_goes_from_under_a_child(basis: Snapshotter) -> None:
    """Upstream: none."""
    for turn in range(10):
        parent = f"parent-{turn}"
        basis.prepare("making", "committed-2")
        basis.commit(parent, "making")

        def work(at: int, parent: str = parent) -> None:
            if at == 0:
                basis.remove(parent)
            else:
                (basis.prepare, basis.view)[at - 1](f"{parent}-child-{at}", parent)

        run_together(3, work)

        children = names(basis, f"parent=={parent}")
        assert (parent in names(basis)) == bool(children)
        for child in children:
            assert basis.mounts(child)


def test_labels_that_are_set_at_once_are_all_set(basis: Snapshotter) -> None:
    """Upstream: none."""

    def work(at: int) -> None:
        key = f"l{at}"
        basis.update(Info("active-1", "", Kind.ACTIVE, {key: "1"}), f"labels.{key}")

    assert run_together(8, work) == ["done"] * 8
    assert basis.stat("active-1").labels == {
        "name": "active-1",
        **{f"l{at}": "1" for at in range(8)},
    }


def test_who_walks_while_others_make_and_remove_sees_what_stays(basis: Snapshotter) -> None:
    """Upstream: none."""
    stays = set(names(basis))

    def work(at: int) -> None:
        for turn in range(10):
            if at:
                basis.prepare(f"comes-{at}", "committed-1")
                basis.commit(f"came-{at}", f"comes-{at}")
                basis.remove(f"came-{at}")
            else:
                walked = names(basis)
                assert len(walked) == len(set(walked)), turn
                assert stays <= set(walked)

    assert run_together(3, work) == ["done"] * 3
    assert set(names(basis)) == stays
