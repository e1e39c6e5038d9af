"""Removing a snapshot, so that its blob goes with the last one and a crash changes nothing.

    step  what                                               after a crash there
    ----  -------------------------------------------------  --------------------------------
       1  intent, durable                                    2 is done by the next open
       2  the snapshotter removes the snapshot               3 is done by the next open
       3  one transaction drops edges, metadata, and the     4 is done by the next open
          intent, and queues blobs that this held last
       4  under a blob's lock: the content store deletes it  done again; absent is done
       5  one transaction takes the blob off the queue

Steps 1 to 3 run under the snapshot's lock. A snapshot of which nothing is recorded needs no
step but 2. Steps 4 and 5 are `deletions`.

`NotFound` in step 2 means that the snapshot is gone, which is what was wanted. `NotFound`
when no intent stands means that there is no such snapshot, and the caller hears so. When
step 2 fails otherwise, the snapshotter is asked whether the snapshot is there; if even that
cannot be told, the intent becomes doubtful: then it is only ever looked up what came of it,
and the removal, of which the caller knows that it failed, is not repeated behind their back.
"""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Final

from blobmap import locks
from blobmap._map.plan import RemovalPlan, planned
from blobmap._map.schema import Intent, incarnation
from blobmap.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from blobmap._map.deletions import Deletions
    from blobmap._map.parts import Parts

_LOG: Final = logging.getLogger("blobmap")

_REPLAY: Final = "remove, ended at open or by reconcile"


class Removal:
    """Removes snapshots of one snapshotter. Safe to call from many threads."""

    def __init__(self, parts: Parts, deletions: Deletions) -> None:
        self._parts = parts
        self._deletions = deletions

    def remove(
        self,
        key: str,
        *,
        cause: str = "remove",
        unless: Callable[[], bool] | None = None,
        wait: bool = False,
    ) -> bool:
        """Remove the snapshot, and each blob that it was the last to hold.

        Args:
            key: The snapshot.
            cause: Why, for the feed.
            unless: Asked under the snapshot's lock; if true, nothing is removed.
            wait: As of `Deletions.carry_out`.

        Returns:
            Whether it was removed.

        Raises:
            NotFound: There is no such snapshot.
            Exception: Whatever the snapshotter raised; the snapshot then still stands, or it
                cannot be told.
        """
        with self._parts.locks.hold(locks.snapshot(key)):
            if unless is not None and unless():
                return False
            digests = self._remove(key, cause)
        self._deletions.carry_out(*digests, wait=wait)
        return True

    def plan(self, keys: Sequence[str]) -> RemovalPlan:
        """See `BlobSnapshotter.plan_removal`."""
        return planned(keys, self._parts)

    def replay(self) -> None:
        """Bring every removal that has begun to its end. For open and reconcile."""
        for key, _ in self._parts.refs.intents():
            self._parts.attempts.succeeds(
                f"end the removal of {key!r}", partial(self._end, key)
            )

    def _end(self, key: str) -> None:
        with self._parts.locks.hold(locks.snapshot(key)):
            intent = self._parts.refs.intent(key)
            if intent is None:
                return
            try:
                info = self._parts.inner.stat(key)
            except NotFound:
                self._finish(key, _REPLAY)
                return
            if incarnation(info) != intent.incarnation:
                # The key lives again, and is not the one whose end was wanted.
                self._finish(key, _REPLAY, alive=incarnation(info))
            elif intent.doubtful:
                self._parts.refs.withdraw_intent(key)
            else:
                try:
                    self._remove(key, _REPLAY)
                except FailedPrecondition as error:
                    # Withdrawn by now: what was made on it since then needs it.
                    _LOG.warning("snapshot %r stays after all: %s", key, error)

    def _remove(self, key: str, cause: str) -> tuple[str, ...]:
        """Take steps 1 to 3; return the digests that the snapshot held."""
        stands = self._parts.refs.intent(key) is not None
        if not stands and not self._parts.refs.recorded(key):
            self._parts.inner.remove(key)
            return ()
        try:
            intent = Intent(incarnation(self._parts.inner.stat(key)))
        except NotFound:
            if not stands:
                raise
            return self._finish(key, cause)
        self._parts.refs.put_intent(key, intent)
        try:
            self._parts.inner.remove(key)
        except NotFound:
            _LOG.debug("snapshot %r was gone before its removal", key)
        except Exception:
            if not self._is_gone(key, intent):
                raise
        return self._finish(key, cause)

    def _is_gone(self, key: str, intent: Intent) -> bool:
        """Find out what a removal that failed came to, and record it."""
        try:
            self._parts.inner.stat(key)
        except NotFound:
            return True
        except Exception:  # noqa: BLE001  # The first failure is raised, with this one logged.
            _LOG.warning("cannot tell whether snapshot %r is gone", key, exc_info=True)
            self._parts.refs.put_intent(key, Intent(intent.incarnation, doubtful=True))
            return False
        self._parts.refs.withdraw_intent(key)
        return False

    def _finish(self, key: str, cause: str, *, alive: str | None = None) -> tuple[str, ...]:
        digests = self._parts.refs.finish_removal(key, cause, alive=alive)
        if digests:
            _LOG.info("removed snapshot %r, which held %s", key, ", ".join(digests))
        return digests
