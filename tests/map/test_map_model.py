"""The map behaves like sets and dicts: a blob is there exactly while something holds it.

Method: Hypothesis builds a program of calls on a few names that collide and four blobs, and
runs it against the wrapper over in-memory fakes and against a plain model. After every step
both must have raised the same class of error, and agree on every snapshot, mapping, image,
count, queued deletion, and blob. Snapshots also vanish behind the map's back, blobs are lost,
deletions fail for a while, and the map is opened anew.
"""

from __future__ import annotations

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from support.map_model import (
    BLOBS,
    DATA,
    IMAGES,
    NAMES,
    MapModel,
    MapWorld,
    both,
    compare,
    image_of,
)

from blobmap._map.work import Work
from blobmap.contracts import Kind

names = st.sampled_from(NAMES)
blobs = st.sampled_from(BLOBS[:4])
parents = st.just("") | names
WORKS = ("first", "second")


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

    @rule(key=names)
    def remove(self, key: str) -> None:
        self._same("remove", key)

    @rule(key=names, digest=blobs, replace=st.booleans())
    def set_blob(self, key: str, digest: str, *, replace: bool) -> None:
        self._same("set_blob", key, digest, replace=replace)

    @rule(key=names)
    def unset_blob(self, key: str) -> None:
        self._same("unset_blob", key)

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
        stale = sum(not self.model.is_live(key) for key in self.model.edges)
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

    def _begun(self, work: str) -> Work:
        if work not in self.works:
            self.works[work] = self.world.snapshotter.work()
            self.model.begin_work(work)
        return self.works[work]


TestMap = MapMachine.TestCase
