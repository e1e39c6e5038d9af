"""Snapshotters and content stores with one fault each, for the conformance suites to find.

A class is a factory for `--snapshotter` and `--content`: it is made with a directory, of which
none makes use.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from support.fakes import FakeContentStore, FakeSnapshotter, FakeWriter

from blobmap.clock import Ticker
from blobmap.contracts import ContentInfo, Info, Kind, Usage
from blobmap.errors import FailedPrecondition, NotFound


class Snapshots(FakeSnapshotter):
    """As all of these are made."""

    def __init__(self, directory: Path) -> None:
        assert directory.is_absolute()
        super().__init__(clock=Ticker().now)


class InheritsLabels(Snapshots):
    def commit(self, name: str, key: str, *, labels: Mapping[str, str] | None = None) -> None:
        inherited = self.stat(key).labels
        super().commit(name, key, labels={**inherited, **(labels or {})})


class CommitsViews(Snapshots):
    def commit(self, name: str, key: str, *, labels: Mapping[str, str] | None = None) -> None:
        snapshot = self._snapshots.get(key)
        if snapshot is not None and snapshot.info.kind is Kind.VIEW:
            snapshot.info = replace(snapshot.info, kind=Kind.ACTIVE)
        super().commit(name, key, labels=labels)


class ForgetsChildren(Snapshots):
    def remove(self, key: str) -> None:
        try:
            super().remove(key)
        except FailedPrecondition:
            del self._snapshots[key]


class WalksWhatIsGone(Snapshots):
    def walk(self, *filters: str) -> Iterator[Info]:
        return iter(list(super().walk(*filters)))


class CountsParents(Snapshots):
    def usage(self, key: str) -> Usage:
        parent = self.stat(key).parent
        own = super().usage(key)
        return own + self.usage(parent) if parent else own


class ChangesParents(Snapshots):
    def update(self, info: Info, *fieldpaths: str) -> Info:
        changed = super().update(info, *fieldpaths)
        self._snapshots[info.name].info = replace(changed, parent=info.parent)
        return self.stat(info.name)


class Content(FakeContentStore):
    """As all of these are made."""

    def __init__(self, directory: Path) -> None:
        assert directory.is_absolute()
        super().__init__(clock=Ticker().now)


class DeletesTheAbsent(Content):
    def delete(self, digest: str) -> None:
        try:
            super().delete(digest)
        except NotFound:
            return


class KeepsTheRef(Content):
    def writer(self, ref: str, *, size: int = 0, digest: str | None = None) -> FakeWriter:
        writer = super().writer(ref, size=size, digest=digest)
        writer.close = lambda: None  # type: ignore[method-assign]
        return writer


class StartsOver(Content):
    def writer(self, ref: str, *, size: int = 0, digest: str | None = None) -> FakeWriter:
        writer = super().writer(ref, size=size, digest=digest)
        writer.truncate(0)
        return writer


class MovesTheMaking(Content):
    def update(self, info: ContentInfo, *fieldpaths: str) -> ContentInfo:
        changed = super().update(info, *fieldpaths)
        self._blobs[info.digest].info = replace(changed, created=changed.updated)
        return self.info(info.digest)


# What finds each.
SNAPSHOTTERS = {
    "InheritsLabels": "test_a_commit_frees_the_key_and_takes_the_name",
    "CommitsViews": "test_only_an_active_snapshot_is_committed",
    "ForgetsChildren": "test_a_parent_stays_however_often_it_is_removed",
    "WalksWhatIsGone": "test_a_walk_stands_changes",
    "CountsParents": "test_a_view_costs_nothing_of_its_own",
    "ChangesParents": "test_labels_change_by_path_and_nothing_else_does",
}
CONTENTS = {
    "DeletesTheAbsent": "test_an_absent_blob_is_not_found",
    "KeepsTheRef": "test_every_commit_closes_and_frees_the_ref",
    "StartsOver": "test_an_ingest_goes_on_where_it_was_left",
    "MovesTheMaking": "test_labels_change_as_told",
}
