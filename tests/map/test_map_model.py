"""The map behaves like sets and dicts: a blob is there exactly while something holds it.

Method: Hypothesis builds a program of calls on a few names that collide and four blobs, and
runs it against the wrapper over in-memory fakes and against a plain model. After every step
both must have raised the same class of error, and agree on every snapshot, mapping, image,
count, queued deletion, and blob. Snapshots also vanish behind the map's back, blobs are lost,
deletions fail for a while, time passes, and the map is opened anew. Whatever is removed was
planned before, and the feed must tell of all that the map has.
"""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.map_model import (
    BLOBS,
    DATA,
    HOUR,
    IMAGES,
    NAMES,
    MapWorld,
    both,
    image_of,
)
from support.plain_map import MapModel, compare

from blobmap._map.leases import Lease
from blobmap._map.work import Work
from blobmap.contracts import LAYER, Kind, Policy
from blobmap.errors import FailedPrecondition, NotFound

names = st.sampled_from(NAMES)
blobs = st.sampled_from(BLOBS[:4])
parents = st.just("") | names
roles = st.sampled_from((LAYER, "build", "layer\x00"))
leases = st.sampled_from(("l", "l\x00"))
WORKS = ("first", "second")
VALUES = ("", 0, False, 1.5, [None], {"a": {}}, None)


class MapMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.world = MapWorld()
        self.model = MapModel()
        self.works: dict[str, Work] = {}
        self.world.content.hook = self._hook

    def teardown(self) -> None:
        self.world.snapshotter.close()

    def _hook(self, moment: str, call: str, key: str) -> None:
        if self.model.deletes_fail and (moment, call) == ("before", "delete"):
            raise OSError("the content store is out of order")

    def _same(self, call: str, *args: object, **options: object) -> None:
        """Make the same call on both; they must raise the same, or nothing."""
        real = getattr(self.world.snapshotter, call)
        plain = getattr(self.model, call)
        got, expected = both(lambda: real(*args, **options), lambda: plain(*args, **options))
        assert type(got) is type(expected), (call, args, got, expected)

    def _let_both(self, real: Callable[[], object], plain: Callable[[], object]) -> None:
        got, expected = both(real, plain)
        assert type(got) is type(expected), (got, expected)

    @rule(key=names, parent=parents)
    def prepare(self, key: str, parent: str) -> None:
        self._same("prepare", key, parent)

    @rule(key=names, parent=parents)
    def view(self, key: str, parent: str) -> None:
        self._same("view", key, parent)

    @rule(name=names, key=names)
    def commit(self, name: str, key: str) -> None:
        self._same("commit", name, key)

    @rule(key=names, name=names, parent=parents, digest=blobs)
    def make(self, key: str, name: str, parent: str, digest: str) -> None:
        """What an import does for one layer, so that mapped snapshots are common."""
        self.add_blob(digest)
        self._same("prepare", key, parent)
        self._same("commit", name, key)
        self._same("set_blob", name, digest, replace=False)

    @rule(key=names, wait=st.booleans())
    def remove(self, key: str, *, wait: bool) -> None:
        self._same("remove", key, wait=wait)

    @rule(keys=st.lists(names, min_size=1, max_size=3, unique=True))
    def remove_as_planned(self, keys: list[str]) -> None:
        """A plan names the blobs that nothing holds after it, and fails where removal does."""
        snapshotter, model = self.world.snapshotter, self.model
        plain = copy.deepcopy(model)
        missing = not model.snapshots.keys() >= set(keys)
        blocked = {child for key in keys for child in model.children(key)} - set(keys)
        if missing or blocked:
            with pytest.raises(FailedPrecondition if blocked else NotFound):
                snapshotter.plan_removal(*keys)
            return
        plan = snapshotter.plan_removal(*keys)
        assert sorted(plan.snapshots) == sorted(keys)
        held = {digest for digest in BLOBS if plain.holders(digest)}
        for key in plan.snapshots:
            self._same("remove", key)
        gone = {digest for digest in held if not model.holders(digest)}
        assert {blob.digest for blob in plan.blobs} == gone

    @rule(key=names, digest=blobs, replace=st.booleans())
    def set_blob(self, key: str, digest: str, *, replace: bool) -> None:
        self._same("set_blob", key, digest, replace=replace)

    @rule(key=names)
    def unset_blob(self, key: str) -> None:
        self._same("unset_blob", key)

    @rule(key=names, role=roles, digest=blobs, replace=st.booleans(), keeps=st.booleans())
    def set_reference(
        self, key: str, role: str, digest: str, *, replace: bool, keeps: bool
    ) -> None:
        policy = Policy.RETAIN if keeps else Policy.KNOW
        self._same("set_reference", key, role, digest, policy=policy, replace=replace)

    @rule(key=names, role=roles)
    def unset_reference(self, key: str, role: str) -> None:
        self._same("unset_reference", key, role)

    @rule(key=names, name=st.sampled_from(("m", "m\x00")), value=st.sampled_from(VALUES))
    def set_metadata(self, key: str, name: str, value: object) -> None:
        self._same("set_metadata", key, name, value)

    @rule(digest=blobs)
    def add_blob(self, digest: str) -> None:
        self.world.content.add_blob(DATA[digest])
        self.model.content.add(digest)

    @rule(name=st.sampled_from(IMAGES), top=names, held=st.sets(blobs, max_size=2))
    def set_image(self, name: str, top: str, held: set[str]) -> None:
        chain = self.model.chain(top) if top in self.model.snapshots else (top,)
        self._same("set_image", image_of(name, tuple(sorted(held)), chain))

    @rule(name=st.sampled_from(IMAGES))
    def remove_image(self, name: str) -> None:
        self._same("remove_image", name)

    @rule(work=st.sampled_from(WORKS), digest=blobs)
    def hold(self, work: str, digest: str) -> None:
        self._begun(work).hold(digest)
        self.model.hold(work, digest)

    @rule(work=st.sampled_from(WORKS), key=names)
    def scratch(self, work: str, key: str) -> None:
        begun = self._begun(work)
        got, expected = both(lambda: begun.scratch(key), lambda: self.model.scratch(work, key))
        assert type(got) is type(expected)

    @precondition(lambda self: self.works)
    @rule(data=st.data())
    def end_work(self, data: st.DataObject) -> None:
        work = data.draw(st.sampled_from(sorted(self.works)))
        self.works.pop(work).close()
        self.model.end_work(work)

    @rule(digests=st.sets(blobs, min_size=1, max_size=2), key=names)
    def remove_what_is_pinned(self, digests: set[str], key: str) -> None:
        with self.world.snapshotter.pin(*sorted(digests)):
            self.model.begin_work("pin")
            for digest in digests:
                self.model.hold("pin", digest)
            self._same("remove", key)
            compare(self.world, self.model)
        self.model.end_work("pin")

    @rule(name=leases, hours=st.integers(1, 3))
    def lease(self, name: str, hours: int) -> None:
        self._let_both(
            lambda: self.world.snapshotter.lease(name, lifetime=hours * HOUR),
            lambda: self.model.lease(name, hours),
        )

    @rule(name=leases, digest=blobs)
    def lease_hold(self, name: str, digest: str) -> None:
        self._let_both(
            lambda: self._leased(name).hold(digest),
            lambda: self.model.lease_hold(name, digest),
        )

    @rule(name=leases, digest=blobs)
    def lease_drop(self, name: str, digest: str) -> None:
        self._leased(name).drop(digest)
        self.model.lease_drop(name, digest)

    @rule(name=leases, hours=st.integers(1, 3))
    def lease_renew(self, name: str, hours: int) -> None:
        self._let_both(
            lambda: self._leased(name).renew(hours * HOUR),
            lambda: self.model.lease_renew(name, hours),
        )

    @rule(name=leases)
    def lease_release(self, name: str) -> None:
        self._leased(name).release()
        self.model.lease_release(name)

    @rule()
    def tick(self) -> None:
        self.world.clock.now += HOUR
        self.model.tick()

    @rule()
    def cleanup(self) -> None:
        self.world.snapshotter.cleanup()
        self.model.cleanup()

    @rule(fail=st.booleans())
    def let_deletions_fail(self, *, fail: bool) -> None:
        self.model.deletes_fail = fail

    @rule()
    def reopen(self) -> None:
        self.world.reopen()
        self.works.clear()
        self.model.reopen()

    @rule(key=names)
    def vanish(self, key: str) -> None:
        got, expected = both(
            lambda: self.world.inner.remove(key), lambda: self.model.vanish(key)
        )
        assert type(got) is type(expected)

    @rule(digest=blobs)
    def lose_blob(self, digest: str) -> None:
        if digest in self.model.content and not self.model.deletes_fail:
            self.world.content.delete(digest)
            self.model.content.remove(digest)

    @rule()
    def reconcile(self) -> None:
        stale = sum(not self.model.is_live(*pair) for pair in self.model.edges)
        report = self.world.snapshotter.reconcile(force=True)
        self.model.reconcile()
        assert report.counts["snapshot gone"] + report.counts["snapshot other"] == stale
        assert not report.counts["cache wrong"]
        broken = self.model.kept() - self.model.content or self.model.broken_images()
        assert report.ok == (not broken and not self.model.queue), report

    @invariant()
    def same_everything(self) -> None:
        compare(self.world, self.model)

    @invariant()
    def only_committed_snapshots_have_blobs(self) -> None:
        for info in self.world.snapshotter.walk("blob"):
            assert info.kind is Kind.COMMITTED

    def _leased(self, name: str) -> Lease:
        """A handle on the lease, whether it is there or not."""
        return Lease(self.world.snapshotter._leases, name)

    def _begun(self, work: str) -> Work:
        if work not in self.works:
            self.works[work] = self.world.snapshotter.work()
            self.model.begin_work(work)
        return self.works[work]


TestMap = MapMachine.TestCase
