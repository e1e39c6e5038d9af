"""Snapshotter and content store in memory: dicts, honest about every error and every time.

They honour `blobmap.contracts` as the real ones do, and `tests/map` runs the same contract
tests over both. What a model test needs beyond that:

* Time comes from a clock that counts seconds from 2000-01-01, so that every creation differs
  and nothing depends on the real clock. Pass another with `clock=`.
* `hook(moment, call, key)` runs with no lock held, with moment "before" and "after" around
  each call, so that it can fail, delay, or interleave there:

      def hook(moment: str, call: str, key: str) -> None:
          if (moment, call) == ("after", "remove"):
              raise OSError("the power went")

  `key` is the snapshot's key, the digest, or the ref; for `walk`, `list_statuses`, and
  `cleanup` it is "". A `before` that raises prevents the call; an `after` that raises comes
  when it is done. `hook` is an attribute: set it at any time.
* `FakeContentStore.add_blob` puts a blob there without ceremony.

A fake outlives whatever is built on it: to restart a system under test, build it anew on the
same fakes, after `reopen()` if they were closed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace

from support.fake_content import FakeContentStore, FakeReader, FakeWriter
from support.hooks import Clock, Hook, Hooked, counting_clock, hooked, keyed, no_hook

from blobmap import filters as filter_language
from blobmap import labels as label_rules
from blobmap.contracts import Info, Kind, Mount, Usage
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

__all__ = [
    "Clock",
    "FakeContentStore",
    "FakeReader",
    "FakeSnapshotter",
    "FakeWriter",
    "Hook",
    "counting_clock",
    "no_hook",
]


@dataclass(slots=True)
class _Snapshot:
    id: int
    info: Info
    usage: Usage


class FakeSnapshotter(Hooked):
    """Snapshots without trees; each has the mount "/fake/<id>" and the usage it is given.

    `usages[key]`, if set, is what an active snapshot uses and what its commit stores.
    """

    def __init__(self, *, clock: Clock | None = None, hook: Hook = no_hook) -> None:
        super().__init__(clock=clock, hook=hook)
        self.usages: dict[str, Usage] = {}
        self._snapshots: dict[str, _Snapshot] = {}
        self._ids = itertools.count(1)

    @keyed
    def stat(self, key: str) -> Info:
        return self._find(key).info

    def update(self, info: Info, *fieldpaths: str) -> Info:
        def call() -> Info:
            snapshot = self._find(info.name)
            snapshot.info = replace(
                snapshot.info,
                labels=label_rules.updated(snapshot.info.labels, info.labels, fieldpaths),
                updated=self._clock(),
            )
            return snapshot.info

        return hooked(self, "update", info.name, call)

    @keyed
    def usage(self, key: str) -> Usage:
        snapshot = self._find(key)
        if snapshot.info.kind is Kind.ACTIVE:
            return self.usages.get(key, snapshot.usage)
        return snapshot.usage

    @keyed
    def mounts(self, key: str) -> list[Mount]:
        snapshot = self._find(key)
        if snapshot.info.kind is Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key!r} is committed and has no mounts")
        return self._mounts(snapshot)

    @keyed
    def prepare(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        return self._create(Kind.ACTIVE, key, parent, labels)

    @keyed
    def view(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        return self._create(Kind.VIEW, key, parent, labels)

    @keyed
    def commit(self, name: str, key: str, *, labels: Mapping[str, str] | None = None) -> None:
        kept = label_rules.checked(labels)
        if not name:
            raise InvalidArgument("a snapshot needs a name")
        if name in self._snapshots:
            raise AlreadyExists(f"snapshot {name!r} exists")
        snapshot = self._find(key)
        if snapshot.info.kind is not Kind.ACTIVE:
            raise FailedPrecondition(f"snapshot {key!r} is not active")
        now = self._clock()
        usage = self.usages.pop(key, snapshot.usage)
        info = Info(name, snapshot.info.parent, Kind.COMMITTED, kept, now, now)
        del self._snapshots[key]
        self._snapshots[name] = _Snapshot(snapshot.id, info, usage)

    @keyed
    def remove(self, key: str) -> None:
        self._find(key)
        for child in self._snapshots.values():
            if child.info.parent == key:
                raise FailedPrecondition(
                    f"cannot remove snapshot {key!r}: {child.info.name!r} is its child"
                )
        del self._snapshots[key]
        self.usages.pop(key, None)

    def walk(self, *filters: str) -> Iterator[Info]:
        matches = filter_language.parse(*filters)
        names = hooked(self, "walk", "", lambda: sorted(self._snapshots))
        return self._walk(names, matches)

    def cleanup(self) -> None:
        hooked(self, "cleanup", "", lambda: None)

    def _walk(self, names: list[str], matches: filter_language.Matcher) -> Iterator[Info]:
        for name in names:
            with self._lock:
                snapshot = self._snapshots.get(name)
            if snapshot is not None and matches(filter_language.snapshot(snapshot.info)):
                yield snapshot.info

    def _create(
        self, kind: Kind, key: str, parent: str, labels: Mapping[str, str] | None
    ) -> list[Mount]:
        kept = label_rules.checked(labels)
        if not key:
            raise InvalidArgument("a snapshot needs a key")
        if key in self._snapshots:
            raise AlreadyExists(f"snapshot {key!r} exists")
        if parent and self._find(parent).info.kind is not Kind.COMMITTED:
            raise InvalidArgument(f"parent {parent!r} is not committed")
        now = self._clock()
        usage = Usage(0, 1 if kind is Kind.ACTIVE and not parent else 0)
        snapshot = _Snapshot(next(self._ids), Info(key, parent, kind, kept, now, now), usage)
        self._snapshots[key] = snapshot
        return self._mounts(snapshot)

    def _mounts(self, snapshot: _Snapshot) -> list[Mount]:
        access = "ro" if snapshot.info.kind is Kind.VIEW else "rw"
        return [Mount("bind", f"/fake/{snapshot.id}", options=("rbind", access))]

    def _find(self, key: str) -> _Snapshot:
        if key not in self._snapshots:
            raise NotFound(f"no snapshot {key!r}")
        return self._snapshots[key]
