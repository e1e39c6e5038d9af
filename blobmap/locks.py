"""Locks by name: one for each image, snapshot, and blob that someone is busy with.

They order what the map's transactions cannot: a check against the snapshotter or the content
store, and the transaction that relies on it. A lock exists only while it is held or waited
for, so memory is bounded by the number of threads (and of interrupts).

Invariant: a thread takes locks in ascending order only (images, then snapshots, then blobs;
within a kind, by name), so no two threads wait for each other.
"""

from __future__ import annotations

from threading import Lock, RLock
from typing import TYPE_CHECKING, Final

from blobmap import deadlines
from blobmap.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

Name = tuple[int, str]

_IMAGE: Final = 0
_SNAPSHOT: Final = 1
_BLOB: Final = 2
_KINDS: Final = ("image", "snapshot", "blob")


def image(name: str) -> Name:
    """Return the name of the lock that orders changes of one image."""
    return _IMAGE, name


def snapshot(key: str) -> Name:
    """Return the name of the lock that orders removal and mapping of one snapshot."""
    return _SNAPSHOT, key


def blob(digest: str) -> Name:
    """Return the name of the lock that orders holding and deleting of one blob."""
    return _BLOB, digest


class Locks:
    """The locks that are in use."""

    def __init__(self) -> None:
        self._mutex = Lock()
        self._users: dict[Name, tuple[RLock, int]] = {}

    def hold(self, *names: Name, patience: float | None = None) -> Hold:
        """Return what holds all of the locks in a with-block; it waits, lowest name first.

        A thread that holds one must ask only for higher ones. Entering the block raises
        DeadlineExceeded if the caller's deadline (`deadlines`) is over by then, or any of the
        locks was waited for longer than `patience`, in seconds.
        """
        return Hold(self, names, patience)

    def join(self, name: Name) -> RLock:
        """Count one more user of the lock, and return it."""
        with self._mutex:
            lock, count = self._users.get(name, (RLock(), 0))
            self._users[name] = lock, count + 1
            return lock

    def leave(self, name: Name) -> None:
        """Count one user of the lock less; without users it is gone."""
        with self._mutex:
            lock, count = self._users[name]
            if count > 1:
                self._users[name] = lock, count - 1
            else:
                del self._users[name]


class Hold:
    """Some locks, held for the length of one with-block.

    An interrupt may come between any two steps. It leaves at worst an *orphan*: a lock that
    its thread holds outside of any with-block. As no thread asks twice for a lock, one that
    it holds already can only be an orphan; so it gets in, and frees it when it leaves.
    """

    def __init__(self, locks: Locks, names: Iterable[Name], patience: float | None) -> None:
        self._locks = locks
        self._names = sorted(set(names))
        self._patience = patience
        self._joined: dict[Name, RLock] = {}

    def __enter__(self) -> None:
        try:
            for name in self._names:
                # Noted before it is acquired, so that an interrupt in between is made good.
                lock = self._joined[name] = self._locks.join(name)
                _acquire(lock, name, self._patience)
        except BaseException:
            self._release()
            raise

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            self._release()
        except BaseException:
            self._release()
            raise

    def _release(self) -> None:
        for name, lock in reversed(list(self._joined.items())):
            _release_wholly(lock)
            # Not after the next step: a user counted off twice would let two threads in.
            del self._joined[name]
            self._locks.leave(name)


def _acquire(lock: RLock, name: Name, patience: float | None) -> None:
    bounds = [bound for bound in (deadlines.remaining(), patience) if bound is not None]
    if not lock.acquire(timeout=min(bounds, default=-1)):
        kind, text = name
        raise DeadlineExceeded(
            f"{_KINDS[kind]} {text!r} is busy: another call that needs it did not end before "
            "the deadline; try again, with more time"
        )


def _release_wholly(lock: RLock) -> None:
    """Release the lock as often as this thread acquired it: once, and once an orphan."""
    while True:
        try:
            lock.release()
        except RuntimeError:
            # It is not, or no longer, this thread's.
            return
