"""A snapshot carries any number of blobs, each by its role and policy, and metadata of its own.

Method: a map over fakes; what is set is read back, counted, removed, and reopened.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.map_model import BLOBS, DATA, MapWorld, map_world

from blobmap import Policy
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

X, Y, Z = BLOBS[:3]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world() as world:
        for digest in (X, Y, Z):
            world.content.add_blob(DATA[digest])
        world.make("a", X)
        yield world


def test_a_reference_reads_back_as_it_was_set(world: MapWorld) -> None:
    world.snapshotter.set_reference(
        "a", "layer+zstd", Y, diff_id=Z, media_type="application/z", annotations={"level": "9"}
    )
    world.snapshotter.set_reference("a", "build", Z, policy=Policy.KNOW)
    world.reopen()

    build, layer, packed = world.snapshotter.references_of("a")
    assert (build.role, build.blob.digest, build.policy) == ("build", Z, Policy.KNOW)
    assert (layer.role, layer.blob.digest, layer.policy) == ("layer", X, Policy.RETAIN)
    assert (packed.blob.size, packed.blob.diff_id) == (len(DATA[Y]), Z)
    assert (packed.blob.media_type, packed.annotations) == ("application/z", {"level": "9"})
    assert world.snapshotter.stat("a").blob == layer.blob


def test_each_reference_that_retains_keeps_its_blob(world: MapWorld) -> None:
    world.snapshotter.set_reference("a", "layer+zstd", Y)
    world.snapshotter.set_reference("a", "build", Z, policy=Policy.KNOW)
    assert [world.snapshotter.references(digest) for digest in (X, Y, Z)] == [1, 1, 0]
    world.snapshotter.unset_blob("a")
    assert world.present() == {Y, Z}

    world.snapshotter.remove("a")
    assert world.present() == {Z}


def test_one_blob_in_two_roles_goes_with_the_second(world: MapWorld) -> None:
    world.snapshotter.set_reference("a", "copy", X)
    world.snapshotter.unset_blob("a")
    assert X in world.present()
    world.snapshotter.unset_reference("a", "copy")
    assert X not in world.present()


def test_who_merely_knows_a_blob_is_found_and_explained(world: MapWorld) -> None:
    world.make("b")
    world.snapshotter.set_blob("b", X, policy=Policy.KNOW)
    world.snapshotter.set_reference("b", "build", X)

    assert list(world.snapshotter.snapshots_of(X)) == ["a", "b"]
    assert list(world.snapshotter.snapshots_of(X, role="build")) == ["b"]
    assert "known by snapshot b" in str(world.snapshotter.explain(X))


def test_a_change_of_policy_lets_go_or_takes_hold(world: MapWorld) -> None:
    with pytest.raises(AlreadyExists, match="another policy"):
        world.snapshotter.set_blob("a", X, policy=Policy.KNOW)
    world.snapshotter.set_blob("a", X, policy=Policy.KNOW, replace=True)
    # What was kept by nothing else is deleted, as anything that was mapped.
    assert X not in world.present()
    world.content.add_blob(DATA[X])
    world.snapshotter.set_blob("a", X, replace=True)
    assert world.snapshotter.references(X) == 1


def test_the_same_again_adds_what_was_not_known(world: MapWorld) -> None:
    world.snapshotter.set_reference("a", "build", Y, annotations={"by": "hand"})
    world.snapshotter.set_reference("a", "build", Y, annotations={"on": "monday"})
    world.snapshotter.set_reference("a", "build", Y, media_type="application/b")

    build, _ = world.snapshotter.references_of("a")
    assert build.annotations == {"by": "hand", "on": "monday"}
    assert build.blob.media_type == "application/b"
    for other in ({"digest": Z}, {"digest": Y, "annotations": {"by": "machine"}}):
        with pytest.raises(AlreadyExists, match="replace=True"):
            world.snapshotter.set_reference("a", "build", **other)


def test_references_of_an_earlier_life_are_not_inherited(world: MapWorld) -> None:
    world.snapshotter.set_reference("a", "build", Y)
    world.snapshotter.set_metadata("a", "note", 1)
    world.inner.remove("a")
    world.snapshotter.prepare("work")
    world.snapshotter.commit("a", "work")

    assert world.snapshotter.references_of("a") == ()
    assert world.snapshotter.metadata("a") == {}
    world.snapshotter.remove("a")
    assert world.present() == {Z}
    assert not world.snapshotter._parts.refs.recorded("a")


def test_references_that_cannot_be_are_refused(world: MapWorld) -> None:
    world.snapshotter.prepare("active")
    with pytest.raises(FailedPrecondition):
        world.snapshotter.set_reference("active", "build", X)
    with pytest.raises(NotFound):
        world.snapshotter.set_reference("a", "build", BLOBS[5])
    for role in ("", "r" * 2000):
        with pytest.raises(InvalidArgument):
            world.snapshotter.set_reference("a", role, X)
    with pytest.raises(InvalidArgument):
        world.snapshotter.set_reference("a", "build", X, annotations={"k": "v" * 5000})
    with pytest.raises(NotFound):
        world.snapshotter.references_of("no")
    world.snapshotter.unset_reference("a", "never set")


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(
    values.filter(
        lambda value: value is not None and value not in (float("inf"), -float("inf"))
    )
)
def test_metadata_comes_back_as_the_type_it_had(value: object) -> None:
    with map_world() as world:
        world.snapshotter.prepare("active")
        try:
            world.snapshotter.set_metadata("active", "n", value)
        except InvalidArgument:
            assert "Infinity" in str(value) or "inf" in str(value)
            return
        world.reopen()

        found = world.snapshotter.metadata("active")["n"]
        assert found == value
        assert type(found) is type(value)


def test_metadata_goes_with_its_snapshot(world: MapWorld) -> None:
    world.make("b")
    world.snapshotter.set_metadata("b", "used", {"count": 3, "by": ["x"]})
    world.snapshotter.set_metadata("b", "gone", 1)
    world.snapshotter.set_metadata("b", "gone", None)
    assert world.snapshotter.metadata("b") == {"used": {"count": 3, "by": ["x"]}}

    world.snapshotter.remove("b")
    assert not world.snapshotter._parts.refs.recorded("b")
    with pytest.raises(NotFound):
        world.snapshotter.metadata("b")


def test_metadata_goes_with_the_active_snapshot_that_is_committed(world: MapWorld) -> None:
    world.snapshotter.prepare("active")
    world.snapshotter.set_metadata("active", "n", 1)
    world.snapshotter.commit("b", "active")

    assert world.snapshotter.metadata("b") == {}
    assert not world.snapshotter._parts.refs.recorded("active")


def test_metadata_of_one_snapshot_is_not_another_s(world: MapWorld) -> None:
    for key in ("\x00", "\x00\xff", "a-"):
        world.make(key)
        world.snapshotter.set_metadata(key, "n", key)
    assert [world.snapshotter.metadata(key) for key in ("\x00", "\x00\xff", "a-")] == [
        {"n": "\x00"},
        {"n": "\x00\xff"},
        {"n": "a-"},
    ]


@pytest.mark.parametrize(
    "value", [b"bytes", float("nan"), (1, 2), {1: 2}, object(), "x" * (1 << 20), copy]
)
def test_metadata_that_would_not_come_back_is_refused(world: MapWorld, value: object) -> None:
    with pytest.raises(InvalidArgument):
        world.snapshotter.set_metadata("a", "n", value)
    with pytest.raises(NotFound):
        world.snapshotter.set_metadata("no", "n", 1)
