"""Locks by name: one for each image, snapshot, and blob that someone is busy with.

They order what the map's transactions cannot: a check against the snapshotter or the content
store, and the transaction that relies on it. A lock exists only while it is held or waited
for, so memory is bounded by the number of threads.

Invariant: a thread takes locks in ascending order only (images, then snapshots, then blobs;
within a kind, by name), so no two threads wait for each other.
"""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from threading import Lock
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

Name = tuple[int, str]

_IMAGE: Final = 0
_SNAPSHOT: Final = 1
_BLOB: Final = 2


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
        self._users: dict[Name, tuple[Lock, int]] = {}

    @contextmanager
    def hold(self, *names: Name) -> Iterator[None]:
        """Hold all of the locks in a with-block; waits for them, lowest name first.

        A lock is not reentrant: a thread that holds one must ask only for higher ones.
        """
        with ExitStack() as held:
            for name in sorted(set(names)):
                held.enter_context(self._hold(name))
            yield

    @contextmanager
    def _hold(self, name: Name) -> Iterator[None]:
        lock = self._join(name)
        try:
            with lock:
                yield
        finally:
            self._leave(name)

    def _join(self, name: Name) -> Lock:
        with self._mutex:
            lock, count = self._users.get(name, (Lock(), 0))
            self._users[name] = lock, count + 1
            return lock

    def _leave(self, name: Name) -> None:
        with self._mutex:
            lock, count = self._users.pop(name)
            if count > 1:
                self._users[name] = lock, count - 1
