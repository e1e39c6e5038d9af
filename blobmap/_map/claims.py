"""What work in flight claims: blobs it holds, and active snapshots it will not leave behind.

Each method is one transaction, durable when it returns. A map is open in one process at a
time, so claims found at open are those of a process that is gone.
"""

from __future__ import annotations

from itertools import groupby
from typing import TYPE_CHECKING

import blobkv
from blobmap._map import edges, schema

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from blobmap.refs import Refs


class Claims:
    """The claims of one scope, by the name of the work. Safe to call from many threads."""

    def __init__(self, refs: Refs) -> None:
        self._refs = refs

    def hold(self, work: str, digest: str, *, exists: bool) -> None:
        """Let the work hold the blob.

        Args:
            work: Who claims.
            digest: The blob; it need not exist yet.
            exists: Whether it is in the content store. If it is, and nothing of this map
                ever kept it there, then it is foreign and outlives the work.
        """
        with self._refs.update("held by work") as change:
            foreign = exists and blobkv.pack(digest) not in change.txn.bucket(schema.QUEUE)
            holder = self._refs.holder(schema.BY_WORK, work)
            edges.link(change, holder, digest, foreign=foreign)
            row = self._refs.scope.key(work, schema.CLAIM_BLOB, digest)
            change.txn.bucket(schema.CLAIM).put(row, b"")

    def scratch(self, work: str, snapshot: str) -> None:
        """Let the active snapshot that is about to be prepared be scratch of the work."""
        with self._refs.update("claimed by work") as change:
            row = self._refs.scope.key(work, schema.CLAIM_SCRATCH, snapshot)
            change.txn.bucket(schema.CLAIM).put(row, b"")

    def works(self) -> Iterator[str]:
        """Yield each work that claims something."""
        rows = self._refs.scan(schema.CLAIM)
        for work, _ in groupby(rows, key=lambda row: row[0][0]):
            yield work

    def scratches(self, work: str) -> Iterator[str]:
        """Yield the snapshots that are scratch of the work."""
        for (_, _, snapshot), _ in self._refs.scan(schema.CLAIM, work, schema.CLAIM_SCRATCH):
            yield snapshot

    def end(self, work: str, settled: Iterable[str]) -> tuple[str, ...]:
        """Drop the work's claims.

        Args:
            work: The work that ended.
            settled: Its snapshots that are gone or committed; claims to others stay.

        Returns:
            The digests it held.
        """
        with self._refs.update("work ended") as change:
            claims = change.txn.bucket(schema.CLAIM)
            rows = list(claims.keys(prefix=self._refs.scope.key(work, schema.CLAIM_BLOB)))
            digests = tuple(schema.text_parts(row)[-1] for row in rows)
            for digest in digests:
                edges.unlink(change, self._refs.holder(schema.BY_WORK, work), digest)
            rows += (self._refs.scope.key(work, schema.CLAIM_SCRATCH, key) for key in settled)
            for row in rows:
                claims.delete(row)
            return digests
