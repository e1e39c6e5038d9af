"""A content store in memory: blobs and ingests in two dicts. `support.fakes` says the rest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from types import TracebackType
from typing import Self

from support.hooks import Clock, Hook, Hooked, hooked, keyed, no_hook

from blobmap import digest as digests
from blobmap import filters as filter_language
from blobmap import labels as label_rules
from blobmap.contracts import ContentInfo, IngestStatus
from blobmap.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)


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

    @keyed
    def info(self, digest: str) -> ContentInfo:
        return self._find(digest).info

    def update(self, info: ContentInfo, *fieldpaths: str) -> ContentInfo:
        def call() -> ContentInfo:
            blob = self._find(info.digest)
            labels = label_rules.updated(blob.info.labels, info.labels, fieldpaths)
            blob.info = replace(blob.info, labels=labels, updated=self._clock())
            return blob.info

        return hooked(self, "update", info.digest, call)

    def walk(self, *filters: str) -> Iterator[ContentInfo]:
        matches = filter_language.parse(*filters)
        names = hooked(self, "walk", "", lambda: sorted(self._blobs))
        return self._walk(names, matches)

    @keyed
    def delete(self, digest: str) -> None:
        self._find(digest)
        del self._blobs[digest]

    @keyed
    def reader_at(self, digest: str) -> FakeReader:
        return FakeReader(self._find(digest).data)

    @keyed
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

    @keyed
    def status(self, ref: str) -> IngestStatus:
        return self._ingest(ref).status

    def list_statuses(self, *filters: str) -> list[IngestStatus]:
        matches = filter_language.parse(*filters)

        def call() -> list[IngestStatus]:
            found = [ingest.status for _, ingest in sorted(self._ingests.items())]
            return [status for status in found if matches(filter_language.ingest(status))]

        return hooked(self, "list_statuses", "", call)

    @keyed
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

        return hooked(self._store, "write", self._ref, call)

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

        hooked(self._store, "commit", self._ref, call)

    def status(self) -> IngestStatus:
        with self._store._lock:
            return self._ingest.status

    def digest(self) -> str:
        with self._store._lock:
            return self._digest_like(self._ingest.status.expected)

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
        actual = self._digest_like(digest or self._ingest.status.expected)
        if digest and digest != actual:
            raise FailedPrecondition(f"ref {self._ref!r} is {actual}, not {digest}")
        del self._store._ingests[self._ref]
        if actual in self._store._blobs:
            raise AlreadyExists(f"blob {actual} exists")
        self._store._publish(actual, data, labels)

    def _digest_like(self, digest: str | None) -> str:
        """Return the digest of the bytes, by the algorithm of `digest`."""
        running = digests.hasher(digests.split(digest)[0] if digest else digests.CANONICAL)
        running.update(self._ingest.data)
        return digests.name(running)

    def _touch(self) -> None:
        self._ingest.status = replace(
            self._ingest.status,
            offset=len(self._ingest.data),
            updated=self._store._clock(),
        )

    def _require_open(self) -> None:
        if self._ingest.writer is not self:
            raise FailedPrecondition(f"the writer of ref {self._ref!r} is closed")
