"""`reconcile` finds each way in which map, snapshotter, and content can disagree, and mends it.

Method: the wrapper over in-memory fakes; one disagreement made by hand at a time. What is
reported, what is repaired, and what must not be touched.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from datetime import timedelta

import pytest
from support.map_model import BLOBS, DATA, MapWorld, image_of, map_world

from blobmap import digest as digests
from blobmap._map.leases import Leases
from blobmap._map.schema import Edge, Intent, encode_edge, incarnation
from blobmap.contracts import LAYER, Blob, Info, Reference
from blobmap.errors import FailedPrecondition, Unavailable
from blobmap.findings import Evidence

X, Y, Z = BLOBS[3:]
COUNT = 20
DAY = timedelta(days=1)


@pytest.fixture
def world() -> Iterator[MapWorld]:
    """Twenty mapped snapshots, "00" to "19"; all but the first stand for one blob, Y."""
    with map_world() as world:
        for number in range(COUNT):
            world.make(f"{number:02}", Y if number else X)
        yield world


def kinds(world: MapWorld) -> dict[str, int]:
    """What a look finds, by kind; a look changes nothing."""
    before = world.rows()
    report = world.snapshotter.reconcile(dry_run=True)
    assert world.rows() == before
    assert report.repaired == 0
    assert report.ok == (not report.counts)
    return dict(report.counts)


def test_a_sound_map_has_no_findings(world: MapWorld) -> None:
    world.snapshotter.view("unmapped")
    world.content.add_blob(DATA[Z])
    report = world.snapshotter.reconcile()

    assert report.ok
    assert report.findings == []
    assert (report.edge_count, report.snapshot_count) == (COUNT, COUNT + 1)
    assert (report.blob_count, report.content_count, report.unowned_count) == (2, 3, 1)
    assert str(report).endswith("all is well: names and sizes agree; bytes were not read")
    assert Z in world.present()


def test_a_mapping_of_a_snapshot_that_is_gone_is_dropped(world: MapWorld) -> None:
    world.inner.remove("00")
    assert kinds(world) == {"snapshot gone": 1}
    report = world.snapshotter.reconcile()

    assert report.ok
    assert report.repaired == 1
    assert "snapshot gone: 00" in str(report)
    assert X not in world.present()
    assert kinds(world) == {}


def test_a_mapping_of_an_earlier_life_is_dropped(world: MapWorld) -> None:
    world.inner.remove("00")
    world.inner.prepare("00")
    assert kinds(world) == {"snapshot other": 1}
    report = world.snapshotter.reconcile()

    assert report.ok
    assert X not in world.present()
    assert world.snapshotter.stat("00").blob is None


def test_more_than_a_tenth_is_not_dropped_unless_forced(world: MapWorld) -> None:
    for name in ("00", "01", "02"):
        world.inner.remove(name)
    before = world.rows()
    with pytest.raises(FailedPrecondition, match="3 of 20 mappings"):
        world.snapshotter.reconcile()
    assert world.rows() == before
    assert kinds(world) == {"snapshot gone": 3}
    report = world.snapshotter.reconcile(force=True)

    assert report.repaired == 3
    assert report.ok
    assert X not in world.present()


def test_a_tenth_is_dropped(world: MapWorld) -> None:
    for name in ("00", "01"):
        world.inner.remove(name)

    assert world.snapshotter.reconcile().repaired == 2


def test_nothing_is_dropped_for_an_empty_snapshotter(world: MapWorld) -> None:
    for number in range(COUNT):
        world.inner.remove(f"{number:02}")
    with pytest.raises(FailedPrecondition, match="looks empty"):
        world.snapshotter.reconcile()
    assert world.present() == {X, Y}
    assert world.snapshotter.reconcile(dry_run=True).counts["snapshot gone"] == COUNT

    assert world.snapshotter.reconcile(force=True).ok
    assert world.present() == set()


def test_only_not_found_is_evidence(world: MapWorld) -> None:
    world.inner.remove("00")

    def out_of_order(moment: str, call: str, key: str) -> None:
        if call == "stat":
            raise Unavailable("out of order")

    world.inner.hook = out_of_order
    before = world.rows()
    with pytest.raises(Unavailable):
        world.snapshotter.reconcile()

    assert world.rows() == before
    world.inner.hook = in_order


def test_a_walk_that_fails_drops_nothing(world: MapWorld) -> None:
    def break_off(*filters: str) -> Iterator[Info]:
        yield world.inner.stat("00")
        raise Unavailable("the walk broke off")

    world.inner.walk = break_off
    with pytest.raises(Unavailable):
        world.snapshotter.reconcile(force=True)
    del world.inner.walk

    assert kinds(world) == {}


@pytest.mark.parametrize("seed", range(5))
def test_a_walk_out_of_order_drops_nothing(world: MapWorld, seed: int) -> None:
    infos = list(world.inner.walk())
    random.Random(seed).shuffle(infos)
    world.inner.walk = lambda *filters: iter(infos)
    report = world.snapshotter.reconcile(force=True)
    del world.inner.walk

    assert report.counts == {}
    assert report.snapshot_count == COUNT


def test_a_missing_blob_is_reported_and_its_mapping_kept(world: MapWorld) -> None:
    world.content.delete(X)
    assert kinds(world) == {"blob missing": 1}
    report = world.snapshotter.reconcile()

    assert not report.ok
    assert report.repaired == 0
    assert list(world.snapshotter.snapshots_of(X)) == ["00"]
    world.content.add_blob(DATA[X])
    assert kinds(world) == {}


def test_a_missing_blob_whose_mapping_is_dropped_is_no_loss(world: MapWorld) -> None:
    world.content.delete(X)
    world.inner.remove("00")
    report = world.snapshotter.reconcile()

    assert dict(report.counts) == {"blob missing": 1, "snapshot gone": 1}
    assert report.ok


def test_a_blob_of_another_size_is_reported(world: MapWorld) -> None:
    blob = world.content._blobs[X]
    blob.info = type(blob.info)(X, 99)
    assert kinds(world) == {"blob size": 1}
    assert f"{len(DATA[X])} bytes were recorded, 99 are there" in str(
        world.snapshotter.reconcile()
    )
    blob.info = type(blob.info)(X, len(DATA[X]))


def test_an_image_that_lacks_a_snapshot_is_reported(world: MapWorld) -> None:
    world.snapshotter.set_image(image_of("i", (), ("00",)))
    world.snapshotter.remove("00")
    report = world.snapshotter.reconcile()

    assert dict(report.counts) == {"image broken": 1}
    assert not report.ok
    assert "image broken: i: it lists snapshot '00'" in str(report)
    world.snapshotter.remove_image("i")
    assert kinds(world) == {}


def test_wrong_caches_are_made_anew(world: MapWorld) -> None:
    with world.snapshotter._parts.refs.update("a test") as change:
        change.txn.bucket("holder").clear()
    found = world.snapshotter.reconcile(dry_run=True)
    assert found.counts["cache wrong"] >= COUNT
    assert world.snapshotter.reconcile().ok

    assert world.snapshotter.references(Y) == COUNT - 1
    assert kinds(world) == {}


@pytest.mark.parametrize("tables", [("edge",), ("edge", "holder")])
def test_lost_mappings_cost_no_blob_unless_forced(
    world: MapWorld, tables: tuple[str, ...]
) -> None:
    with world.snapshotter._parts.refs.update("a test") as change:
        for table in tables:
            change.txn.bucket(table).clear()
    with pytest.raises(FailedPrecondition, match="mappings would be dropped"):
        world.snapshotter.reconcile()
    assert world.present() == {X, Y}

    assert world.snapshotter.reconcile(force=True).ok
    assert world.present() == set()


def test_a_failed_deletion_is_tried_again(world: MapWorld) -> None:
    def out_of_order(moment: str, call: str, key: str) -> None:
        if call == "delete":
            raise Unavailable("out of order")

    world.content.hook = out_of_order
    world.snapshotter.remove("00")
    assert kinds(world) == {"deletion open": 1}
    assert not world.snapshotter.reconcile().ok
    world.content.hook = in_order
    report = world.snapshotter.reconcile()

    assert report.ok
    assert report.repaired == 1
    assert X not in world.present()


def test_a_deletion_that_fails_during_repair_is_a_finding_too(world: MapWorld) -> None:
    def out_of_order(moment: str, call: str, key: str) -> None:
        if call == "delete":
            raise Unavailable("out of order")

    world.inner.remove("00")
    world.content.hook = out_of_order
    report = world.snapshotter.reconcile()

    assert dict(report.counts) == {"snapshot gone": 1, "deletion open": 1}
    assert report.repaired == 1
    assert not report.ok
    world.content.hook = in_order


def test_an_interrupted_removal_is_ended(world: MapWorld) -> None:
    life = incarnation(world.inner.stat("00"))
    world.snapshotter._parts.refs.put_intent("00", Intent(life))
    assert kinds(world) == {"removal open": 1}
    report = world.snapshotter.reconcile()

    assert report.ok
    assert X not in world.present()


def test_a_removal_that_cannot_be_ended_now_stays_open(world: MapWorld) -> None:
    life = incarnation(world.inner.stat("00"))
    world.snapshotter._parts.refs.put_intent("00", Intent(life))
    world.inner.hook = lambda moment, call, key: remove_fails(call)
    report = world.snapshotter.reconcile()
    world.inner.hook = in_order

    assert report.ok
    assert world.snapshotter.stat("00").blob is not None


def test_many_findings_are_counted_and_the_first_are_listed() -> None:
    world = MapWorld()
    digest = world.content.add_blob(b"many")
    with world.snapshotter._parts.refs.update("a test") as change:
        for number in range(1500):
            edge = Edge(Reference(LAYER, Blob(digest, 4)), "")
            key = world.snapshotter._parts.refs.scope.key(f"{number:04}", LAYER)
            change.txn.bucket("edge").put(key, encode_edge(edge))
    world.snapshotter._parts.refs.repair()
    report = world.snapshotter.reconcile(dry_run=True)

    assert report.counts["snapshot gone"] == 1500
    assert len(report.findings) == 1000
    assert "and 500 more" in str(report)
    assert world.snapshotter.reconcile(force=True).ok
    assert digests.of(b"many") not in world.present()


def remove_fails(call: str) -> None:
    if call == "remove":
        raise FailedPrecondition("cannot remove: it has children")


def in_order(moment: str, call: str, key: str) -> None:
    pass


# What is only suspected.


def stray_row(world: MapWorld) -> None:
    """Lose a mapping, but not its row of the index."""
    with world.snapshotter._parts.refs.update("a test") as change:
        change.txn.bucket("edge").delete(world.snapshotter._parts.refs.scope.key("0", LAYER))


def test_a_blob_that_only_a_stray_row_holds_is_kept_under_quarantine() -> None:
    world = MapWorld()
    for number in range(20):
        world.make(f"{number}", X if number == 0 else Y)
    stray_row(world)
    report = world.snapshotter.reconcile()

    assert report.ok
    assert {finding.evidence for finding in report.findings} == {Evidence.SUSPECTED}
    assert "cache wrong (suspected)" in str(report)
    assert world.present() == {X, Y}
    assert [info.name for info in world.snapshotter.leases()] == ["quarantine"]
    # It can be mapped again, and is kept by that when the quarantine is over.
    world.snapshotter.set_blob("0", X)
    world.snapshotter.open_lease("quarantine").release()
    assert world.present() == {X, Y}
    world.check()


def test_a_quarantine_that_is_over_or_forced_away_deletes() -> None:
    for force in (False, True):
        world = MapWorld()
        for number in range(20):
            world.make(f"{number}", X if number == 0 else Y)
        stray_row(world)
        assert world.snapshotter.reconcile(force=force).ok
        if not force:
            world.snapshotter.open_lease("quarantine").release()
        assert world.present() == {Y}
        world.check()


def test_a_lease_called_quarantine_is_neither_shortened_nor_stripped() -> None:
    world = MapWorld()
    for number in range(20):
        world.make(f"{number}", X if number == 0 else Y)
    world.snapshotter.lease("quarantine", lifetime=30 * DAY, labels={"for": "me"}).hold(X)
    before = list(world.snapshotter.leases())
    stray_row(world)
    world.snapshotter.reconcile(quarantine=DAY)

    assert list(world.snapshotter.leases()) == before


def test_a_quarantine_that_is_released_at_once_lets_go_of_the_blob(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = MapWorld()
    for number in range(20):
        world.make(f"{number}", X if number == 0 else Y)
    stray_row(world)
    monkeypatch.setattr(Leases, "watch", lambda leases: leases.find("quarantine").release())
    world.snapshotter.reconcile()

    assert list(world.snapshotter.leases()) == []
    assert world.present() == {Y}


def test_a_run_that_is_broken_off_leaves_the_next_one_less_to_do() -> None:
    world = MapWorld()
    for number in range(30):
        digest = world.content.add_blob(b"%d" % number)
        world.make(f"{number:02}")
        world.snapshotter.set_blob(f"{number:02}", digest)
    for number in range(30):
        world.inner.remove(f"{number:02}")
    calls = 0

    def strike(moment: str, call: str, key: str) -> None:
        nonlocal calls
        calls += call == "delete"
        if calls > 10:
            raise KeyboardInterrupt

    world.content.hook = strike
    with pytest.raises(KeyboardInterrupt):
        world.snapshotter.reconcile(force=True)
    world.content.hook = lambda *_: None
    left = world.snapshotter.reconcile(dry_run=True)
    assert 0 < left.counts["snapshot gone"] < 30
    assert world.snapshotter.reconcile(force=True).ok
    assert world.present() == set()
