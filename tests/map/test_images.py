"""Images keep their own blobs, and go with all that only they list.

Method: the wrapper over in-memory fakes and a simulated disk.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.map_model import BLOBS, DATA, MapWorld, image_of, map_world

from blobmap.errors import FailedPrecondition, InvalidArgument, NotFound, Unavailable

X, Y, Z, MANIFEST, OTHER = BLOBS[:5]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world() as world:
        yield world


@pytest.fixture
def image(world: MapWorld) -> MapWorld:
    """One image "i" of two layers, the base "s" and "t" on it."""
    world.make("s", X)
    world.make("t", Y, parent="s")
    world.content.add_blob(DATA[MANIFEST])
    world.snapshotter.set_image(image_of("i", (MANIFEST,), ("s", "t")))
    return world


def test_an_image_reads_back_as_it_was_set(image: MapWorld) -> None:
    wanted = image_of("i", (MANIFEST,), ("s", "t"))

    assert image.snapshotter.get_image("i") == wanted
    assert list(image.snapshotter.images()) == [wanted]
    image.reopen()
    assert list(image.snapshotter.images()) == [wanted]
    assert image.snapshotter.references(MANIFEST) == 1
    with pytest.raises(NotFound):
        image.snapshotter.get_image("j")


def test_removing_an_image_leaves_nothing_of_it(image: MapWorld) -> None:
    image.snapshotter.remove_image("i")

    assert image.names() == []
    assert image.present() == set()
    with pytest.raises(NotFound):
        image.snapshotter.remove_image("i")


@pytest.mark.parametrize("snapshots", [("t", "s"), ("s", "s"), ("s", "other"), ("s", "u")])
def test_snapshots_that_are_no_chain_make_no_image(
    image: MapWorld, snapshots: tuple[str, str]
) -> None:
    image.make("other", Z)
    image.make("u", Z, parent="t")

    with pytest.raises(FailedPrecondition, match=repr(snapshots[1])):
        image.snapshotter.set_image(image_of("j", (), snapshots))

    assert [found.name for found in image.snapshotter.images()] == ["i"]


def test_a_snapshot_that_another_image_lists_stays(image: MapWorld) -> None:
    image.make("u", Z, parent="s")
    image.snapshotter.set_image(image_of("j", (), ("s", "u")))
    image.snapshotter.remove_image("i")

    assert image.names() == ["s", "u"]
    assert image.present() == {X, Z}
    image.snapshotter.remove_image("j")
    assert image.names() == []


def test_a_snapshot_with_other_children_stays_and_so_do_those_below(image: MapWorld) -> None:
    image.snapshotter.prepare("container", "t")
    image.snapshotter.remove_image("i")

    assert image.names() == ["container", "s", "t"]
    assert image.present() == {X, Y}
    image.snapshotter.remove("container")
    image.snapshotter.remove("t")
    image.snapshotter.remove("s")
    assert image.present() == set()


def test_a_snapshot_that_is_gone_already_is_no_obstacle(image: MapWorld) -> None:
    image.snapshotter.remove("t")
    image.snapshotter.remove_image("i")

    assert image.names() == []


def test_replacing_an_image_removes_what_only_the_old_one_had(image: MapWorld) -> None:
    image.make("u", Z, parent="s")
    image.content.add_blob(DATA[OTHER])
    image.snapshotter.set_image(image_of("i", (OTHER,), ("s", "u")))

    assert image.names() == ["s", "u"]
    assert image.present() == {X, Z, OTHER}


def test_setting_the_same_image_again_changes_nothing(image: MapWorld) -> None:
    image.snapshotter.set_image(image_of("i", (MANIFEST,), ("s", "t")))

    assert image.names() == ["s", "t"]
    assert image.present() == {X, Y, MANIFEST}


def test_a_manifest_that_two_names_hold_stays_for_the_other(image: MapWorld) -> None:
    image.snapshotter.set_image(image_of("i:latest", (MANIFEST,), ("s", "t")))
    image.snapshotter.remove_image("i")

    assert image.present() == {X, Y, MANIFEST}
    assert image.snapshotter.references(MANIFEST) == 1


def test_an_image_of_what_does_not_exist_is_refused(image: MapWorld) -> None:
    image.snapshotter.prepare("active")
    for wanted, error in (
        (image_of("j", (), ("absent",)), NotFound),
        (image_of("j", (Z,), ("s",)), NotFound),
        (image_of("j", (), ("active",)), FailedPrecondition),
        (image_of("", (), ("s",)), InvalidArgument),
        (image_of("j" * 5000, (), ("s",)), InvalidArgument),
        (image_of("j", (), ("",)), InvalidArgument),
    ):
        with pytest.raises(error):
            image.snapshotter.set_image(wanted)
    assert len(list(image.snapshotter.images())) == 1


def test_a_removal_that_failed_is_finished_by_calling_it_again(image: MapWorld) -> None:
    image.inner.hook = out_of_order
    with pytest.raises(Unavailable):
        image.snapshotter.remove_image("i")
    assert list(image.snapshotter.images()) == []
    assert not image.snapshotter.reconcile(dry_run=True).ok
    image.inner.hook = in_order
    image.snapshotter.remove_image("i")

    assert image.names() == []
    assert image.present() == set()
    with pytest.raises(NotFound):
        image.snapshotter.remove_image("i")


def test_a_removal_that_failed_is_finished_by_opening(image: MapWorld) -> None:
    image.inner.hook = out_of_order
    with pytest.raises(Unavailable):
        image.snapshotter.remove_image("i")
    image.inner.hook = in_order
    image.reopen()

    assert image.names() == []
    assert image.present() == set()


def test_a_leftover_that_a_new_image_lists_is_kept(image: MapWorld) -> None:
    image.inner.hook = out_of_order
    with pytest.raises(Unavailable):
        image.snapshotter.remove_image("i")
    image.inner.hook = in_order
    image.snapshotter.set_image(image_of("j", (), ("s", "t")))
    image.reopen()

    assert image.names() == ["s", "t"]
    assert image.present() == {X, Y}


def test_setting_an_image_does_not_fail_for_what_the_old_one_left(image: MapWorld) -> None:
    image.inner.hook = out_of_order
    image.snapshotter.set_image(image_of("i", (MANIFEST,), ("s",)))
    assert image.snapshotter.failure_count == 1
    image.inner.hook = in_order
    image.snapshotter.set_image(image_of("i", (MANIFEST,), ("s",)))

    assert image.names() == ["s"]


def out_of_order(moment: str, call: str, key: str) -> None:
    if (moment, call) == ("before", "remove"):
        raise Unavailable("out of order")


def in_order(moment: str, call: str, key: str) -> None:
    pass
