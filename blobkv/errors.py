"""Every error blobkv raises on purpose, grouped by what the caller should do next.

    BlobKVError
    ├── UsageError          fix the call
    │   ├── ClosedError       the store, transaction, or cursor has ended
    │   ├── ReadOnlyError     a write was tried inside a view or a read-only store
    │   └── LimitError        a key, value, or transaction is too large
    ├── LockedError         wait: another process, or this one, has the store open
    ├── PoisonedError       reopen: an earlier write or sync failed
    ├── InterruptedCommit   look anew: whether the commit was made is not known
    └── CorruptionError     restore: the bytes on disk are not bytes blobkv wrote

This module imports nothing, so every other module may import it. Anything else that
escapes blobkv is an `OSError` from the device, a `KeyError` from `txn[key]` as every
mapping raises it, or a bug.
"""

from __future__ import annotations


class BlobKVError(Exception):
    """The root of every error blobkv raises on purpose."""


class UsageError(BlobKVError):
    """The call itself is wrong; the same call will fail again."""


class ClosedError(UsageError):
    """The store, transaction, or cursor has ended."""


class ReadOnlyError(UsageError):
    """A write was tried where only reads are possible."""


class LimitError(UsageError):
    """A key, a value, a bucket name, or a whole transaction is too large."""


class LockedError(BlobKVError):
    """The store is open for writing elsewhere.

    Attributes:
        path: The store's directory.
        pid: The holder's process id, or None if its lock file does not say.
        host: The holder's host name, or None likewise.
    """

    def __init__(
        self,
        path: str,
        pid: int | None,
        host: str | None,
        waited: float,
        *,
        own: bool = False,
    ) -> None:
        holder = "another process" if pid is None else f"process {pid} on {host}"
        remedy = "close it there, raise lock_timeout, or open with read_only=True"
        if own:
            holder += ", this very one,"
            remedy = "use the store that it has opened before, or close that"
        super().__init__(f"{path}: {holder} has the store open (waited {waited:g} s); {remedy}")
        self.path = path
        self.pid = pid
        self.host = host


class PoisonedError(BlobKVError):
    """An earlier write or sync failed, so no later write can be trusted.

    After a failed sync the kernel may drop the dirty pages and report success the next
    time, so retrying would turn a loud failure into silent loss. Reads go on. Close the
    store and open it again: recovery decides what survived.
    """


class InterruptedCommit(BlobKVError):
    """The thread that committed for this one, in a batch, was interrupted.

    Whether the commit was made is not known: look whether it is there.
    """


class CorruptionError(BlobKVError):
    """The bytes at a known place are not bytes blobkv wrote.

    Attributes:
        path: The file, relative to the store's directory where possible.
        offset: Where the bad bytes start, in bytes from the start of the file.
        reason: What was expected there and what was found.
    """

    def __init__(self, path: str, offset: int, reason: str) -> None:
        super().__init__(f"{path}+{offset:#x}: {reason}")
        self.path = path
        self.offset = offset
        self.reason = reason
