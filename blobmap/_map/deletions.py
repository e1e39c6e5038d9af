"""The queue of deletions: blobs that nothing holds any more leave the content store.

A digest is queued in the transaction that takes its last holder away, and taken off when the
content store has deleted the blob; so a blob that was ever held is there exactly as long as
something holds it, or else its deletion stands in the queue. Between the two, under the
blob's lock, it is asked once more whether nothing holds it. Whoever wants to hold a blob
holds that lock too, from the moment they see the blob until they are recorded.

The content store is called in the background, and whoever let go of the blob waits a moment
for it, so that in the usual case the blob is gone when their call returns, and a store that
hangs holds up nobody. What fails is tried again by a sweep of the queue, with growing pauses.
"""

from __future__ import annotations

import logging
from collections import deque
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from threading import Condition, Thread, current_thread
from typing import TYPE_CHECKING, Final

from blobmap import locks
from blobmap.deadlines import remaining
from blobmap.errors import DeadlineExceeded, FailedPrecondition, NotFound, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator
    from datetime import datetime

    from blobmap._map.parts import Parts

_LOG: Final = logging.getLogger("blobmap")

# After its own deletion succeeded, an operation tries this many that failed before.
_RETRY_COUNT: Final = 8
# A sweep passes by what somebody else is busy with.
_BUSY_SECONDS: Final = 0.05
# Of so many failures it is remembered why.
_FAILURES_MAX: Final = 1000
_SWEEP: Final = "sweep the queue of deletions"


@dataclass(frozen=True, slots=True)
class Pending:
    """A blob that is to be deleted.

    Attributes:
        digest: The blob.
        size: Its size in bytes, or None if it was never recorded.
        since: Since when nothing holds it.
        cause: What let go of it last.
        failure: Why its deletion failed the last time, or None if that is not known.
    """

    digest: str
    size: int | None
    since: datetime
    cause: str
    failure: str | None


class Deletions:
    """Carries out the queue of deletions. Safe to call from many threads.

    Args:
        parts: What it works with.
        patience: How long to wait for a deletion in the background, in seconds.
    """

    def __init__(self, parts: Parts, patience: float) -> None:
        self._parts = parts
        self._patience = patience
        self._failures: dict[str, str] = {}
        self._condition = Condition()
        # A content store may call the map, so a thread may be in here more than once.
        self._busy: list[tuple[Thread, str]] = []
        self._closed = False
        self._order: deque[str] = deque()

    def carry_out(self, *digests: str, wait: bool = False) -> None:
        """Delete those of the blobs that are queued.

        If all goes well, a few whose deletion failed before are tried, too. The caller holds
        no lock of a blob.

        Args:
            digests: The blobs.
            wait: Whether to do it in this thread, however long it takes.

        Raises:
            Unavailable: With `wait` only: a deletion failed; it stays queued.
        """
        if not digests:
            return
        if wait or self._parts.background is None:
            failed = [digest for digest in digests if not self._carry_out(digest)]
            if failed and wait:
                raise Unavailable(
                    f"blob {failed[0]} could not be deleted: {self._reason(failed[0])}; "
                    "nothing holds it any more, and its deletion stays queued"
                )
            if not failed:
                self._retry()
            return
        # Most calls let go of what others hold, and should not wake up a thread for that.
        queued = {_name(each): each for each in digests if self._parts.refs.queued(each)}
        for name, digest in queued.items():
            self._parts.background.submit(name, partial(self._try, digest))
        left = remaining()
        patience = self._patience if left is None else min(left, self._patience)
        self._parts.background.wait(queued, patience)

    def carry_out_all(self) -> None:
        """Try each queued deletion once, as `carry_out`; of what fails nothing is raised."""
        if self._parts.background is None:
            for digest, _ in self._parts.refs.queue():
                self._carry_out(digest)
        elif any(True for _ in self._parts.refs.queue()):
            self._parts.background.submit(_SWEEP, self._sweep)
            self._parts.background.wait([_SWEEP], self._patience)

    def pending(self) -> Iterator[Pending]:
        """Yield each blob that is to be deleted, in order of digests."""
        for digest, queued in self._parts.refs.queue():
            failure = self._failures.get(digest)
            yield Pending(digest, queued.size, queued.since, queued.cause, failure)

    def close(self) -> None:
        """Begin no deletion any more, and wait for those that other threads make. Idempotent.

        Raises:
            DeadlineExceeded: The caller's deadline was over before that.
        """

        def others() -> list[str]:
            return [digest for thread, digest in self._busy if thread != current_thread()]

        with self._condition:
            self._closed = True
            if not self._condition.wait_for(lambda: not others(), remaining()):
                raise DeadlineExceeded(
                    f"still deleting {', '.join(others())}; close again later"
                )

    @contextmanager
    def _under_way(self, digest: str) -> Iterator[None]:
        with self._condition:
            if self._closed:
                raise FailedPrecondition("the map is closed: open it again")
            self._busy.append((current_thread(), digest))
        try:
            yield
        finally:
            with self._condition:
                self._busy.remove((current_thread(), digest))
                self._condition.notify_all()

    def _try(self, digest: str) -> bool:
        """Delete the blob if it is queued; if that fails, leave it to a sweep."""
        assert self._parts.background is not None
        if self._carry_out(digest):
            self._retry()
        else:
            self._parts.background.submit(_SWEEP, self._sweep, delay=_BUSY_SECONDS)
        return True

    def _retry(self) -> None:
        for _, (digest, _) in zip(range(_RETRY_COUNT), self._parts.refs.queue(), strict=False):
            if not self._carry_out_soon(digest):
                return

    def _sweep(self) -> bool:
        """Try each queued deletion; return whether the queue came to be empty."""
        failed_count = 0
        for digest, _ in self._parts.refs.queue():
            failed_count += not self._carry_out_soon(digest)
        return not failed_count

    def _carry_out_soon(self, digest: str) -> bool:
        return self._carry_out(digest, patience=_BUSY_SECONDS)

    def _carry_out(self, digest: str, *, patience: float | None = None) -> bool:
        """Delete the blob if it is queued; return whether nothing went wrong.

        Args:
            digest: The blob.
            patience: How long to wait for somebody else who is busy with it, if not until the
                caller's deadline. It bounds that wait, not the deletion.
        """
        lock = self._parts.locks.hold(locks.blob(digest), patience=patience)
        with ExitStack() as held:
            try:
                held.enter_context(lock)
            except DeadlineExceeded:
                # Whoever let go of the blob has done so. Its deletion stays queued.
                return False
            held.enter_context(self._under_way(digest))
            # Asked again under the lock: from here on nobody can start to hold the blob.
            if not self._parts.refs.queued(digest):
                return True
            failure = self._parts.attempts.failure(
                f"delete blob {digest}", lambda: self._delete(digest)
            )
            if failure is not None:
                self._remember(digest, failure)
                return False
            self._parts.refs.unqueue(digest)
            self._failures.pop(digest, None)
            _LOG.info("deleted blob %s: nothing holds it", digest)
            return True

    def _delete(self, digest: str) -> None:
        try:
            self._parts.content.delete(digest)
        except NotFound:
            _LOG.debug("blob %s is gone already", digest)

    def _reason(self, digest: str) -> str:
        return self._failures.get(digest, "another call is busy with it")

    def _remember(self, digest: str, failure: Exception) -> None:
        if digest not in self._failures:
            self._order.append(digest)
            if len(self._order) > _FAILURES_MAX:
                self._failures.pop(self._order.popleft(), None)
        self._failures[digest] = f"{type(failure).__name__}: {failure}"


def _name(digest: str) -> str:
    return f"delete blob {digest}"
