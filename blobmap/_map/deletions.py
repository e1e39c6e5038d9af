"""The queue of deletions: blobs that nothing holds any more leave the content store.

A digest is queued in the transaction that takes its last holder away, and taken off when the
content store has deleted the blob; so a blob that was ever held is there exactly as long as
something holds it, or else its deletion stands in the queue. Between the two, under the
blob's lock, it is asked once more whether nothing holds it. Whoever wants to hold a blob
holds that lock too, from the moment they see the blob until they are recorded.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from blobmap import locks
from blobmap.errors import NotFound

if TYPE_CHECKING:
    from blobmap._map.parts import Parts

_LOG: Final = logging.getLogger("blobmap")

# After its own deletion succeeded, an operation tries this many that failed before.
_RETRY_COUNT: Final = 8


class Deletions:
    """Carries out the queue of deletions. Safe to call from many threads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def carry_out(self, *digests: str) -> None:
        """Delete those of the blobs that are queued.

        If all goes well, a few whose deletion failed before are tried, too. Never raises for
        the content store's sake. The caller holds no lock of a blob.
        """
        failed = [digest for digest in digests if not self._carry_out(digest)]
        if failed:
            return
        for _, digest in zip(range(_RETRY_COUNT), self._parts.refs.queue(), strict=False):
            if not self._carry_out(digest):
                return

    def carry_out_all(self) -> None:
        """Try each queued deletion once. Never raises for the content store's sake."""
        for digest in self._parts.refs.queue():
            self._carry_out(digest)

    def _carry_out(self, digest: str) -> bool:
        """Delete the blob if it is queued; return whether nothing went wrong."""
        with self._parts.locks.hold(locks.blob(digest)):
            # Asked again under the lock: from here on nobody can start to hold the blob.
            if not self._parts.refs.queued(digest):
                return True
            if not self._parts.attempts.succeeds(
                f"delete blob {digest}", lambda: self._delete(digest)
            ):
                return False
            self._parts.refs.unqueue(digest)
            _LOG.info("deleted blob %s: nothing holds it", digest)
            return True

    def _delete(self, digest: str) -> None:
        try:
            self._parts.content.delete(digest)
        except NotFound:
            _LOG.debug("blob %s is gone already", digest)
