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

import functools
import itertools
import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from blobmap import digest as digests
from blobmap import filters as filter_language
from blobmap.contracts import ContentInfo, Info, IngestStatus, Kind, Mount, Usage
from blobmap.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from blobmap.local import labels as label_rules

Hook = Callable[[str, str, str], None]
Clock = Callable[[], datetime]

P = ParamSpec("P")
R = TypeVar("R")


def counting_clock() -> Clock:
    """Return a clock that starts at 2000-01-01 and is a second later at each call."""
    seconds = itertools.count(1)
    return lambda: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))


def no_hook(moment: str, call: str, key: str) -> None:
    """Do nothing."""


class Hooked:
    """What both fakes share: the hook, the clock, the lock, and being closed."""

    def __init__(self, *, clock: Clock | None = None, hook: Hook = no_hook) -> None:
        self.hook = hook
        self.closed = False
        self._clock = clock or counting_clock()
        self._lock = threading.RLock()

    def close(self) -> None:
        self.closed = True

    def reopen(self) -> None:
        """Undo `close`: the same state, as after a restart."""
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self.closed:
            raise FailedPrecondition(f"this {type(self).__name__} is closed")


def _keyed(
    method: Callable[Concatenate[Any, str, P], R],
) -> Callable[Concatenate[Any, str, P], R]:
    """Run a call about one key inside the hook, and under the fake's lock."""

    @functools.wraps(method)
    def call(self: Any, key: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return _hooked(self, method.__name__, key, lambda: method(self, key, *args, **kwargs))

    return call


def _hooked(fake: Hooked, call: str, key: str, method: Callable[[], R]) -> R:
    fake.hook("before", call, key)
    with fake._lock:
        fake._require_open()
        result = method()
    fake.hook("after", call, key)
    return result


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

    @_keyed
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

        return _hooked(self, "update", info.name, call)

    @_keyed
    def usage(self, key: str) -> Usage:
        snapshot = self._find(key)
        if snapshot.info.kind is Kind.ACTIVE:
            return self.usages.get(key, snapshot.usage)
        return snapshot.usage

    @_keyed
    def mounts(self, key: str) -> list[Mount]:
        snapshot = self._find(key)
        if snapshot.info.kind is Kind.COMMITTED:
            raise FailedPrecondition(f"snapshot {key!r} is committed and has no mounts")
        return self._mounts(snapshot)

    @_keyed
    def prepare(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        return self._create(Kind.ACTIVE, key, parent, labels)

    @_keyed
    def view(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        return self._create(Kind.VIEW, key, parent, labels)

    @_keyed
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

    @_keyed
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
        names = _hooked(self, "walk", "", lambda: sorted(self._snapshots))
        return self._walk(names, matches)

    def cleanup(self) -> None:
        _hooked(self, "cleanup", "", lambda: None)

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


@dataclass(slots=True)
class _FakeBlob:
    data: bytes
    info: ContentInfo


@dataclass(slots=True)
class _FakeIngest:
    data: bytearray
    status: IngestStatus
    writer: FakeWriter | None = None


class FakeContentStore(Hooked):
    """Blobs and ingests in two dicts."""

    def __init__(self, *, clock: Clock | None = None, hook: Hook = no_hook) -> None:
        super().__init__(clock=clock, hook=hook)
        self._blobs: dict[str, _FakeBlob] = {}
        self._ingests: dict[str, _FakeIngest] = {}

    def add_blob(self, data: bytes, labels: Mapping[str, str] | None = None) -> str:
        """Put a blob there, unless it is, and return its digest. No hook runs."""
        with self._lock:
            return self._publish(digests.of(data), data, labels)

    @_keyed
    def info(self, digest: str) -> ContentInfo:
        return self._find(digest).info

    def update(self, info: ContentInfo, *fieldpaths: str) -> ContentInfo:
        def call() -> ContentInfo:
            blob = self._find(info.digest)
            labels = label_rules.updated(blob.info.labels, info.labels, fieldpaths)
            blob.info = replace(blob.info, labels=labels, updated=self._clock())
            return blob.info

        return _hooked(self, "update", info.digest, call)

    def walk(self, *filters: str) -> Iterator[ContentInfo]:
        matches = filter_language.parse(*filters)
        names = _hooked(self, "walk", "", lambda: sorted(self._blobs))
        return self._walk(names, matches)

    @_keyed
    def delete(self, digest: str) -> None:
        self._find(digest)
        del self._blobs[digest]

    @_keyed
    def reader_at(self, digest: str) -> FakeReader:
        return FakeReader(self._find(digest).data)

    @_keyed
    def writer(self, ref: str, *, size: int = 0, digest: str | None = None) -> FakeWriter:
        if not ref:
            raise InvalidArgument("an ingest needs a ref")
        if digest is not None and digests.validate(digest) in self._blobs:
            raise AlreadyExists(f"blob {digest} exists")
        ingest = self._ingests.get(ref)
        if ingest is not None and ingest.writer is not None:
            raise Unavailable(f"ref {ref!r} is held by another writer")
        if ingest is None or (size and ingest.status.total and size != ingest.status.total):
            now = self._clock()
            ingest = _FakeIngest(bytearray(), IngestStatus(ref, 0, 0, None, now, now))
            self._ingests[ref] = ingest
        ingest.status = replace(
            ingest.status,
            total=size or ingest.status.total,
            expected=digest or ingest.status.expected,
        )
        ingest.writer = FakeWriter(self, ref, ingest)
        return ingest.writer

    @_keyed
    def status(self, ref: str) -> IngestStatus:
        return self._ingest(ref).status

    def list_statuses(self, *filters: str) -> list[IngestStatus]:
        matches = filter_language.parse(*filters)

        def call() -> list[IngestStatus]:
            found = [ingest.status for _, ingest in sorted(self._ingests.items())]
            return [status for status in found if matches(filter_language.ingest(status))]

        return _hooked(self, "list_statuses", "", call)

    @_keyed
    def abort(self, ref: str) -> None:
        self._ingest(ref).writer = None
        del self._ingests[ref]

    def _walk(
        self, names: list[str], matches: filter_language.Matcher
    ) -> Iterator[ContentInfo]:
        for name in names:
            with self._lock:
                blob = self._blobs.get(name)
            if blob is not None and matches(filter_language.content(blob.info)):
                yield blob.info

    def _publish(self, digest: str, data: bytes, labels: Mapping[str, str] | None) -> str:
        kept = label_rules.checked(labels)
        if digest not in self._blobs:
            now = self._clock()
            info = ContentInfo(digest, len(data), now, now, kept)
            self._blobs[digest] = _FakeBlob(data, info)
        return digest

    def _find(self, digest: str) -> _FakeBlob:
        if digests.validate(digest) not in self._blobs:
            raise NotFound(f"no blob {digest}")
        return self._blobs[digest]

    def _ingest(self, ref: str) -> _FakeIngest:
        if ref not in self._ingests:
            raise NotFound(f"no ingest {ref!r}")
        return self._ingests[ref]


class FakeReader:
    """A blob's bytes, held: a delete does not take them away."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._closed = False

    @property
    def size(self) -> int:
        return len(self._data)

    def read_at(self, offset: int, size: int) -> bytes:
        if self._closed:
            raise FailedPrecondition("this reader is closed")
        if offset < 0 or size < 0:
            raise InvalidArgument(f"cannot read {size} bytes at {offset}")
        return self._data[offset : offset + size]

    def close(self) -> None:
        self._closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()


class FakeWriter:
    """The open end of one ingest; open exactly while the ingest names it as its writer."""

    def __init__(self, store: FakeContentStore, ref: str, ingest: _FakeIngest) -> None:
        self._store = store
        self._ref = ref
        self._ingest = ingest

    def write(self, data: bytes) -> int:
        def call() -> int:
            self._require_open()
            self._ingest.data += data
            self._touch()
            return len(data)

        return _hooked(self._store, "write", self._ref, call)

    def commit(
        self,
        size: int = 0,
        digest: str | None = None,
        *,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        def call() -> None:
            self._require_open()
            try:
                self._commit(size, digest, labels)
            finally:
                self.close()

        _hooked(self._store, "commit", self._ref, call)

    def status(self) -> IngestStatus:
        with self._store._lock:
            self._require_open()
            return self._ingest.status

    def digest(self) -> str:
        with self._store._lock:
            return digests.of(bytes(self._ingest.data))

    def truncate(self, size: int) -> None:
        if size:
            raise InvalidArgument(f"an ingest can be cut to 0 bytes only, not {size}")
        with self._store._lock:
            self._require_open()
            self._ingest.data.clear()
            self._touch()

    def close(self) -> None:
        with self._store._lock:
            if self._ingest.writer is self:
                self._ingest.writer = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _commit(self, size: int, digest: str | None, labels: Mapping[str, str] | None) -> None:
        data = bytes(self._ingest.data)
        label_rules.checked(labels)
        if size and size != len(data):
            raise FailedPrecondition(f"ref {self._ref!r} has {len(data)} bytes, not {size}")
        algorithm = digests.split(digest)[0] if digest else digests.CANONICAL
        running = digests.hasher(algorithm)
        running.update(data)
        actual = digests.name(running)
        if digest and digest != actual:
            raise FailedPrecondition(f"ref {self._ref!r} is {actual}, not {digest}")
        del self._store._ingests[self._ref]
        if actual in self._store._blobs:
            raise AlreadyExists(f"blob {actual} exists")
        self._store._publish(actual, data, labels)

    def _touch(self) -> None:
        self._ingest.status = replace(
            self._ingest.status,
            offset=len(self._ingest.data),
            updated=self._store._clock(),
        )

    def _require_open(self) -> None:
        if self._ingest.writer is not self:
            raise FailedPrecondition(f"the writer of ref {self._ref!r} is closed")
