"""Work in flight: blobs that must stay, and snapshots that must not, while it lasts.

Whoever ingests a blob and maps it later must keep it from being deleted in between, and must
not leave half-made snapshots or unwanted blobs behind by failing or dying. A `Work` records
both before it acts. Its end is the end of the with-block, or else the next open.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Self

from blobmap import digest as digests
from blobmap import locks
from blobmap._map import schema
from blobmap.contracts import Kind
from blobmap.errors import AlreadyExists, FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import TracebackType

    from blobmap._map.claims import Claims
    from blobmap._map.deletions import Deletions
    from blobmap._map.parts import Parts
    from blobmap._map.removal import Removal


class Works:
    """Begins and ends works. Safe to call from many threads."""

    def __init__(
        self, parts: Parts, claims: Claims, removal: Removal, deletions: Deletions
    ) -> None:
        self._parts = parts
        self._claims = claims
        self._removal = removal
        self._deletions = deletions
        self._live: set[str] = set()
        self._abandoned: set[str] = set()

    def begin(self) -> Work:
        """See `BlobSnapshotter.work`."""
        self._parts.refs.require_open()
        # Their half-made snapshots would keep what is below them from going with its image.
        for abandoned in list(self._abandoned):
            self._settle(abandoned)
            self._abandoned.discard(abandoned)
        work = secrets.token_hex(8)
        self._live.add(work)
        return Work(self, work)

    def stale(self) -> Iterator[str]:
        """Yield the works that have claims, but nobody who works."""
        return (work for work in self._claims.works() if work not in self._live)

    def replay(self) -> None:
        """End the works whose process is gone, or whose end failed. For open and reconcile."""
        for work in self.stale():
            self._settle(work)

    def hold(self, work: str, digest: str) -> None:
        """See `Work.hold`."""
        digests.validate(digest)
        self._check_live(work)
        with self._parts.locks.hold(locks.blob(digest)):
            try:
                self._parts.content.info(digest)
            except NotFound:
                exists = False
            else:
                exists = True
            self._claims.hold(work, digest, exists=exists)

    def scratch(self, work: str, key: str) -> None:
        """See `Work.scratch`."""
        schema.check_name("snapshot", key, schema.SNAPSHOT_SIZE_MAX)
        self._check_live(work)
        with self._parts.locks.hold(locks.snapshot(key)):
            with suppress(NotFound):
                self._parts.inner.stat(key)
                raise AlreadyExists(f"snapshot {key!r} exists: claim a key before preparing it")
            self._claims.scratch(work, key)

    def end(self, work: str) -> None:
        """Drop all claims of the work. Idempotent."""
        if work in self._live:
            self._live.remove(work)
            self._settle(work)

    def abandon(self, work: str) -> None:
        """Leave the work's claims to the next `begin` or `replay`. Idempotent."""
        self._abandoned.add(work)
        self._live.discard(work)

    def _settle(self, work: str) -> None:
        attempts = self._parts.attempts
        removed = [
            key
            for key in self._claims.scratches(work)
            if attempts.succeeds(
                f"remove half-made snapshot {key!r}", partial(self._remove, key)
            )
        ]
        self._deletions.carry_out(*self._claims.end(work, removed))

    def _remove(self, key: str) -> None:
        with suppress(NotFound):
            if self._parts.inner.stat(key).kind is not Kind.COMMITTED:
                self._removal.remove(key)

    def _check_live(self, work: str) -> None:
        if work not in self._live:
            raise FailedPrecondition("the work has ended: begin another to claim more")


class Work:
    """One piece of work in flight, for a with-block: `with snapshotter.work() as work:`.

    Claims are durable when the call returns. At the end of the block they are dropped: held
    blobs that nothing else holds by then are deleted, and scratch snapshots that are still
    active are removed. If an interrupt ends the block, or the process dies, that happens when
    the next work begins, at `reconcile`, or at the next open.
    """

    def __init__(self, works: Works, name: str) -> None:
        self._works = works
        self._name = name

    def hold(self, digest: str) -> None:
        """Keep the blob while the work lasts, whether it is in the content store yet or not.

        A blob that was there before, and was never this map's, is not deleted at the end.

        Raises:
            InvalidArgument: The digest is malformed.
            FailedPrecondition: The work has ended.
        """
        self._works.hold(self._name, digest)

    def scratch(self, key: str) -> None:
        """Claim the key of an active snapshot that is about to be prepared.

        Choose a key that nobody else uses: what is active under it at the end is removed.

        Raises:
            AlreadyExists: There is such a snapshot, so it is not this work's.
            InvalidArgument: The key cannot be recorded.
            FailedPrecondition: The work has ended.
        """
        self._works.scratch(self._name, key)

    def close(self) -> None:
        """End the work. Idempotent."""
        self._works.end(self._name)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc is not None and not isinstance(exc, Exception):
            # An interrupt: whoever sends one does not want to wait for a clean-up.
            self._works.abandon(self._name)
            return
        try:
            self.close()
        except BaseException:
            self._works.abandon(self._name)
            raise
