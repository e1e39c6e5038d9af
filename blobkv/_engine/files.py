"""Files as the engine needs them: the seam between the engine and the operating system.

The engine knows nothing of descriptors or processes; tests and users swap in
`blobkv.testing.SimulatedDisk` to lose power, fill up, or lie. `OSFileSystem`, in `fs.py`, is
the real one. Paths are absolute strings with "/" between names.

What every implementation promises:

* A new file is created exclusively, with mode 0600, and no symlink is followed to it.
* `WritableFile.append` writes all of its bytes or raises `OSError`; after an error the file
  may hold any part of them, and `truncate` cuts it back.
* `FileEnd.grow` adds zeroes behind all that the file holds at that moment, whatever other
  handles are doing: it never writes where `append` has written. Each handle is told of what
  did not reach the disk, also when another was told before (Linux, from 4.13).
* Bytes are durable only after `sync` returns; a name created, renamed, or removed is durable
  only after `sync_directory` of its directory returns.
* `map` gives a buffer whose slices are `bytes`; it stays valid after `remove`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import mmap

    Mapped = bytes | mmap.mmap


class WritableFile(Protocol):
    """A new file, written from its start to its end."""

    def append(self, data: bytes | bytearray) -> None:
        """Write all of `data` behind what was appended so far, over any room that is there."""

    def truncate(self, size: int) -> None:
        """Cut the file to `size` bytes, room included; the next append goes there."""

    def sync(self) -> None:
        """Make the bytes and the size durable."""

    def close(self) -> None:
        """Release the file. Idempotent."""


class FileEnd(Protocol):
    """The end of a file that is being appended to, where room for what comes can be made."""

    def grow(self, size: int) -> int:
        """Write `size` zeroes behind the last byte of the file; return its size then."""

    def sync(self) -> None:
        """Make the bytes and the size durable."""

    def close(self) -> None:
        """Release the file. Idempotent."""


class ReadableFile(Protocol):
    """A file read by position."""

    @property
    def size(self) -> int:
        """The file's size in bytes, now."""

    def read(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset`; fewer only at the end of the file."""

    def sync(self) -> None:
        """Make what was read durable, whoever wrote it; nothing to do on read-only media."""

    def close(self) -> None:
        """Release the file. Idempotent."""


class Lock(Protocol):
    """An exclusive claim on a store, held until released or until the process ends.

    A forked child has no part in it.
    """

    def release(self) -> None:
        """Give the claim up. Idempotent."""


class FileSystem(Protocol):
    """What the engine asks of a file system."""

    def make_directory(self, path: str) -> None:
        """Make the directory and its missing parents, durably; one that exists is fine."""

    def names(self, path: str) -> list[str]:
        """Return the names in the directory, sorted."""

    def create(self, path: str) -> WritableFile:
        """Make a new file; FileExistsError if the name is taken."""

    def open(self, path: str) -> ReadableFile:
        """Open a file for reading."""

    def open_end(self, path: str) -> FileEnd:
        """Open a file to make room behind its end."""

    def map(self, path: str) -> Mapped:
        """Return the whole file as a buffer, without reading it where that can be helped."""

    def rename(self, source: str, target: str) -> None:
        """Give the file another name, replacing what has it."""

    def link(self, source: str, target: str) -> None:
        """Give the file a second name, in another directory; OSError where that cannot be."""

    def remove(self, path: str) -> None:
        """Remove the name; readers that have the file keep it."""

    def sync_directory(self, path: str) -> None:
        """Make the names in the directory durable."""

    def identity(self, path: str) -> tuple[int, ...]:
        """Return numbers that change when the file is replaced by `rename`."""

    def lock(self, path: str, timeout: float) -> Lock:
        """Claim the lock file, waiting up to `timeout` seconds; LockedError if it is held."""
