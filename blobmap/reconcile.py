"""The map against the snapshotter and the content store: report, then repair.

Both are walked beside the map, each in its order, so memory does not grow with their size. A
walk only raises suspicion: what it did not show is asked for by name, and `NotFound` is the
one answer that counts as evidence; anything else that is raised ends the call. Repair comes
after all is compared, and looks at each thing again, under its lock, before it acts.

    finding         what it is                                    what repair does
    --------------  --------------------------------------------  -------------------------
    snapshot gone   an edge of a snapshot that does not exist     drops the edge
    snapshot other  an edge of an earlier life of the key         drops the edge
    blob missing    held, but not in the content store            nothing: data was lost
    blob size       another size than was recorded                nothing: data was lost
    image broken    an image lists a snapshot that is not there   nothing: data was lost
    cache wrong     a listing, the reverse index, a tally, queue  makes it anew from the truth
    removal open    a removal without an end                      ends it
    leftover open   snapshots of an image that is gone            removes them
    work open       claims of work that is over                   drops them
    deletion open   a blob whose deletion failed so far           tries it again

Of what is only suspected, a row of the index without a mapping, the blob is not deleted but
put under quarantine: a lease keeps it for a week, in which it can be mapped again. Each repair
is durable by itself, so a run that is broken off leaves the next one less to do.

No bytes are read: `blobmap.verification` does that.

Cost: two walks of the snapshotter, three if mappings are dropped; one of the content store; a
pass over the map. Memory grows only with what the map's caches have wrong.

An edge to a blob that is missing is kept: the snapshot is still what that blob was, and
importing the image again brings the blob back. Blobs in the content store that the map never
held are none of its business: they are counted and left alone.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from blobmap import locks
from blobmap.errors import FailedPrecondition, NotFound
from blobmap.findings import (
    BROKEN,
    CACHE,
    DELETION,
    GONE,
    LEFTOVER,
    MISSING,
    OTHER,
    REMOVAL,
    SIZE,
    WORK,
    Evidence,
    Finding,
    Report,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from datetime import timedelta

    from blobmap._map.catalog import Catalog
    from blobmap._map.deletions import Deletions
    from blobmap._map.images import Images
    from blobmap._map.leases import Leases
    from blobmap._map.parts import Parts
    from blobmap._map.removal import Removal
    from blobmap._map.schema import Edge
    from blobmap._map.work import Works
    from blobmap.contracts import ContentInfo, Info

T = TypeVar("T")

_LOG: Final = logging.getLogger("blobmap")

# More than one mapping in so many is too many to drop unasked.
_LOSS_FACTOR: Final = 10


class Reconciliation:
    """Compares and repairs one map. Made anew for each call of `reconcile`."""

    def __init__(
        self,
        parts: Parts,
        *,
        catalog: Catalog,
        removal: Removal,
        deletions: Deletions,
        images: Images,
        works: Works,
        leases: Leases,
    ) -> None:
        self._parts = parts
        self._catalog = catalog
        self._removal = removal
        self._deletions = deletions
        self._images = images
        self._works = works
        self._leases = leases

    def run(self, *, dry_run: bool, force: bool, quarantine: timedelta) -> Report:
        """See `BlobSnapshotter.reconcile`."""
        report = Report(dry_run)
        self._compare_caches(report)
        self._list_unfinished(report)
        self._compare_snapshots(report)
        self._compare_blobs(report)
        self._compare_images(report)
        if not dry_run:
            if not force:
                _refuse_to_lose_much(report)
            self._repair(report, None if force else quarantine or None)
        return report

    def _compare_caches(self, report: Report) -> None:
        for fault in self._parts.refs.faults():
            evidence = Evidence.SUSPECTED if fault.releases else Evidence.PROVEN
            report.add(Finding(CACHE, fault.subject, fault.detail, evidence))
            report.release_count += fault.releases

    def _list_unfinished(self, report: Report) -> None:
        for key, intent in self._parts.refs.intents():
            what = "failed, with an outcome unknown" if intent.doubtful else "was interrupted"
            report.add(Finding(REMOVAL, key, f"its removal {what}"))
        for leftovers in self._catalog.leftovers():
            count = len(leftovers.snapshots)
            report.add(
                Finding(LEFTOVER, leftovers.image, f"it is gone, but not its {count} snapshots")
            )
        for work in self._works.stale():
            report.add(Finding(WORK, work, "it is over, but its claims stand"))
        for digest, _ in self._parts.refs.queue():
            report.add(
                Finding(DELETION, digest, "nothing holds it, but its deletion failed so far")
            )

    def _compare_snapshots(self, report: Report) -> None:
        walk = _Beside(self._parts.inner.walk(), name=lambda info: info.name)
        for key, edge in self._parts.refs.edges():
            report.edge_count += 1
            if _is_shown(edge, walk.find(key)):
                continue
            finding = self._judge(key, edge)
            if finding is not None:
                report.add(finding)
        report.snapshot_count = walk.count_all()

    def _judge(self, key: str, edge: Edge) -> Finding | None:
        """Return what is wrong with the edge, for which it is to be dropped, or None."""
        try:
            info = self._parts.inner.stat(key)
        except NotFound:
            kind, found = GONE, "no such snapshot is there"
        else:
            kind, found = OTHER, f"a snapshot made {info.created} is there"
            if edge.is_of(info):
                return None
        # What a removal that began is about, or what has changed meanwhile, is no finding.
        if (
            self._parts.refs.intent(key) is not None
            or self._parts.refs.edge(key, edge.reference.role) != edge
        ):
            return None
        made = edge.incarnation or "at a time unknown"
        return Finding(kind, key, f"made {made}, it stood for {edge.blob.digest}; {found}")

    def _compare_blobs(self, report: Report) -> None:
        walk = _Beside(self._content_blobs(report), name=lambda info: info.digest)
        for digest, size in self._parts.refs.sizes():
            report.blob_count += 1
            info = walk.find(digest)
            if info is None:
                try:
                    info = self._parts.content.info(digest)
                except NotFound:
                    if self._parts.refs.count(digest):
                        report.add(
                            Finding(MISSING, digest, "it is held, but not in the content store")
                        )
                    continue
            if info.size != size:
                report.add(
                    Finding(SIZE, digest, f"{size} bytes were recorded, {info.size} are there")
                )
        report.content_count = walk.count_all()

    def _content_blobs(self, report: Report) -> Iterator[ContentInfo]:
        for info in self._parts.content.walk():
            report.unowned_count += not self._parts.refs.known(info.digest)
            yield info

    def _compare_images(self, report: Report) -> None:
        walk = _Beside(self._parts.inner.walk(), name=lambda info: info.name)
        for key, image in self._catalog.listings():
            if walk.find(key) is not None:
                continue
            try:
                self._parts.inner.stat(key)
            except NotFound:
                if image in self._catalog.listing(key):
                    report.add(
                        Finding(BROKEN, image, f"it lists snapshot {key!r}, which is not there")
                    )

    def _repair(self, report: Report, quarantine: timedelta | None) -> None:
        if report.counts[CACHE]:
            self._leases.repair(quarantine)
        if report.counts[GONE] or report.counts[OTHER]:
            self._drop_edges()
        self._removal.replay()
        self._works.replay()
        self._leases.end_expired()
        self._images.replay()
        self._deletions.carry_out_all()
        after = Report(dry_run=False)
        self._list_unfinished(after)
        for kind in (GONE, OTHER, CACHE, REMOVAL, LEFTOVER, WORK, DELETION):
            report.repairs[kind] = max(report.counts[kind] - after.counts[kind], 0)
        for finding in report.findings:
            if finding.kind in {MISSING, SIZE} and not self._parts.refs.count(finding.subject):
                # Nothing stands for it any more.
                report.repairs[finding.kind] += 1
        known = set(report.findings)
        for finding in after.findings:
            if finding not in known:
                report.add(finding)

    def _drop_edges(self) -> None:
        walk = _Beside(self._parts.inner.walk(), name=lambda info: info.name)
        for key, edge in self._parts.refs.edges():
            if _is_shown(edge, walk.find(key)):
                continue
            with self._parts.locks.hold(locks.snapshot(key)):
                finding = self._judge(key, edge)
                if finding is None:
                    continue
                released = self._parts.refs.drop_edge(key, edge, f"reconcile: {finding.kind}")
            # Not a warning: the report says it, to whoever asked for it.
            _LOG.info("dropped the mapping of %r to %s", key, edge.blob.digest)
            self._deletions.carry_out(*(released or ()))


def restore_index(parts: Parts, leases: Leases, quarantine: timedelta) -> None:
    """Make an index that is gone anew from the truth; one that is there is left alone.

    Without it, the first removal of a snapshot would take a blob that others stand for. So
    that is done at open: one seek where there is an index.
    """
    if parts.refs.lacks_index():
        fault_count = len(leases.repair(quarantine))
        _LOG.warning("the index of holders was gone; mended %d faults of it", fault_count)


def _is_shown(edge: Edge, walked: Info | None) -> bool:
    return walked is not None and edge.is_of(walked)


def _refuse_to_lose_much(report: Report) -> None:
    """Raise FailedPrecondition if repair would drop so much that it looks like a mistake."""
    lost_count = report.counts[GONE] + report.counts[OTHER] + report.release_count
    known_count = report.edge_count + report.release_count
    if lost_count and not report.snapshot_count:
        raise FailedPrecondition(
            f"the snapshotter looks empty, the map has {known_count} mappings: is it the "
            "right one, and mounted? Nothing was repaired; if they are to go, force it"
        )
    if lost_count * _LOSS_FACTOR > known_count:
        raise FailedPrecondition(
            f"{lost_count} of {known_count} mappings would be dropped, over a tenth: "
            "nothing was repaired; look with a dry run and, if they are to go, force it"
        )


class _Beside(Generic[T]):
    """A walk read in step with names that are asked for in ascending order.

    A walk that is out of order only fails to find; it never finds what is not there.
    """

    def __init__(self, walk: Iterable[T], *, name: Callable[[T], str]) -> None:
        self._walk = iter(walk)
        self._name = name
        self._count = 0
        self._item = self._next()

    def find(self, name: str) -> T | None:
        """Return the item of that name, or None if the walk has not shown one by here."""
        while self._item is not None and self._name(self._item) < name:
            self._item = self._next()
        return self._item if self._item and self._name(self._item) == name else None

    def count_all(self) -> int:
        """Return how many items the whole walk has, reading it to its end."""
        while self._item is not None:
            self._item = self._next()
        return self._count

    def _next(self) -> T | None:
        item = next(self._walk, None)
        self._count += item is not None
        return item
