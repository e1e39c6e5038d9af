"""D1 to D6: how a blob's holders are spelled and found.

Method: the keys at which naive encodings break, as snapshots of a map, and as rows.
"""

from __future__ import annotations

import sys
from itertools import islice
from types import FrameType

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.map_model import BLOBS, DATA, MapWorld

import blobkv
from blobkv.testing import SimulatedDisk
from blobmap._map import edges
from blobmap._map.rows import PAGE_COUNT
from blobmap._map.schema import BY_SNAPSHOT, QUEUE, Holder, Queued, Scope, encode_queued
from blobmap.errors import InvalidArgument

X, Y, Z = BLOBS[3:]
SCOPE = Scope("default", "default")
TEXTS = st.text(st.sampled_from("a-\x00:\xff\U0010ffff"), min_size=1, max_size=4)


def test_d01_a_blob_that_another_snapshot_maps_outlives_a_removal(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", X)
    world.snapshotter.remove("s1")

    blob = world.snapshotter.get_blob("s2")
    assert blob is not None
    with world.content.reader_at(blob.digest) as reader:
        assert reader.read_at(0, blob.size) == DATA[X]
    # Whatever a counter says, holders are looked for before the blob goes.
    with world.snapshotter._parts.refs.update("a stray row") as change:
        why = Queued(change.now, change.cause, None)
        change.txn.bucket(QUEUE).put(blobkv.pack(X), encode_queued(why))
    world.snapshotter.cleanup()
    assert world.present() == {X}
    world.snapshotter.remove("s2")
    assert world.present() == set()


@pytest.mark.slow
def test_d02_the_scan_of_holders_gets_on_and_ends(world: MapWorld) -> None:
    names = [f"s{number:03}" for number in range(2 * PAGE_COUNT + 1)]
    for name in names:
        world.make(name, X)
    world.make("other", Y)

    assert list(islice(world.snapshotter.snapshots_of(X), len(names) + 1)) == names
    world.snapshotter.remove(names.pop(0))
    assert list(islice(world.snapshotter.snapshots_of(X), len(names) + 1)) == names
    assert X in world.present()


@pytest.mark.parametrize("last", ["\xff\x01", "\udcff\x01", "\U0010ffff\U0010ffff", "\xff" * 9])
def test_d03_a_snapshot_whose_key_sorts_last_holds_its_blob(world: MapWorld, last: str) -> None:
    world.make("a", X)
    world.make(last, X)
    world.snapshotter.remove("a")
    assert world.present() == {X}
    assert list(world.snapshotter.snapshots_of(X)) == [last]
    world.snapshotter.remove(last)

    assert world.present() == set()


def test_d03_a_prefix_of_0xff_bounds_nothing_from_above() -> None:
    keys = [b"\xff", b"\xff\x01", b"\xff\xff", b"\xff\xff\xff\x00"]
    inner = [b"a" + key for key in keys]
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            for key in (b"a", *inner, b"b", b"\xfe\xff", *keys):
                txn.bucket("b").put(key, b"")
        with store.view() as txn:
            rows = txn.bucket("b")
            assert list(rows.keys(prefix=b"\xff")) == keys
            assert list(rows.keys(prefix=b"\xff\xff")) == keys[2:]
            assert list(rows.keys(prefix=b"a\xff")) == inner
            assert list(rows.keys(prefix=b"a\xff\xff")) == inner[2:]


def test_d04a_a_digest_that_begins_another_counts_its_own_holders(world: MapWorld) -> None:
    short, long = "f:ab", "f:ab-cd"
    refs = world.snapshotter._parts.refs
    with refs.update("s1 and s2") as change:
        edges.link(change, Holder(BY_SNAPSHOT, SCOPE, "s1", "layer"), short)
        edges.link(change, Holder(BY_SNAPSHOT, SCOPE, "s2", "layer"), long)
    with refs.update("s1 goes") as change:
        edges.unlink(change, Holder(BY_SNAPSHOT, SCOPE, "s1", "layer"), short)
        assert edges.queued(change.txn, short)
        assert not edges.queued(change.txn, long)
        edges.unlink(change, Holder(BY_SNAPSHOT, SCOPE, "s2", "layer"), long)
        change.txn.bucket("queue").clear()
    for digest in (short, long):
        with pytest.raises(InvalidArgument):
            world.snapshotter.set_blob("s1", digest)


def test_d04b_two_pairs_have_two_keys(world: MapWorld) -> None:
    first = Holder(BY_SNAPSHOT, SCOPE, "cd-s", "layer").key("f:ab")
    assert first != Holder(BY_SNAPSHOT, SCOPE, "s", "layer").key("f:ab-cd")

    world.make("s", X)
    world.make("s-layer", Y)
    world.snapshotter.set_reference("s", "layer-b", Y)
    world.snapshotter.set_reference("s-layer", "b", X)
    world.snapshotter.remove("s-layer")
    assert world.present() == {X, Y}
    world.snapshotter.unset_reference("s", "layer-b")
    assert world.present() == {X}


@given(digest=TEXTS, parts=st.tuples(TEXTS, TEXTS))
def test_d04b_a_key_says_which_pair_it_is_of(digest: str, parts: tuple[str, str]) -> None:
    holder = Holder(BY_SNAPSHOT, SCOPE, *parts)

    assert edges.holder_of(holder.key(digest)) == (digest, holder)


@pytest.mark.slow
def test_d05_a_removal_costs_the_same_however_many_share_the_blob() -> None:
    few, many = removal_costs(8), removal_costs(8 * 50)

    assert many[0] < 2 * few[0]
    # And so the sum grows with their number, not with its square.
    assert sum(many) < 2 * 50 * sum(few)


def removal_costs(count: int) -> list[int]:
    """The calls that Python counts in each of so many removals, down to the last."""
    world = MapWorld()
    for number in range(count):
        world.make(f"s{number}", X)
    costs = []
    for number in range(count):
        calls = [0]

        def meet(frame: FrameType, event: str, _: object, calls: list[int] = calls) -> None:
            calls[0] += event in {"call", "c_call"}

        sys.setprofile(meet)
        try:
            world.snapshotter.remove(f"s{number}")
        finally:
            sys.setprofile(None)
        costs += calls
    assert world.present() == set()
    world.snapshotter.close()
    return costs


def test_d06_what_a_scan_returned_outlives_changes_and_the_map(world: MapWorld) -> None:
    names = ["a", "b", "c"]
    for name in names:
        world.make(name, X)
    scan = world.snapshotter.snapshots_of(X)
    seen = []
    for name in scan:
        world.snapshotter.remove(name)
        seen.append(name)
    world.make("d", Y)
    kept = list(world.snapshotter.blobs())
    world.reopen()

    assert seen == names
    assert [blob.digest for blob in kept] == [Y]
