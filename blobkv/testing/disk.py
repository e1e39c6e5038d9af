"""`SimulatedDisk`: the file system that tests run on, with a switch for every misfortune."""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from blobkv.errors import LockedError
from blobkv.testing.nodes import DirectoryNode, FileNode, Keep
from blobkv.testing.volume import Fault, Volume, fail, split

if TYPE_CHECKING:
    from collections.abc import Callable
    from random import Random

    from blobkv._engine.files import FileEnd, Lock, ReadableFile, WritableFile
    from blobkv.testing.volume import Operation

__all__ = ["Keep", "SimulatedDisk"]


class SimulatedDisk:
    """A disk in memory that remembers what would survive a power cut.

    One instance is one disk in one running machine: every store opened on it sees the same
    files, and a lock taken by one is held against the others. Safe to use from many threads.

    Args:
        capacity: Bytes that fit in all files together; None for no limit. An append that
            does not fit writes what fits and raises ENOSPC, as a real one does.
        lie: Whether syncs do nothing and say they did. A test of durability that passes on
            a lying disk tests nothing; run it once this way.
    """

    def __init__(self, *, capacity: int | None = None, lie: bool = False) -> None:
        self._volume = Volume(DirectoryNode(), capacity, lie=lie)
        self._locked: set[str] = set()

    # What goes wrong, and what is left.

    @property
    def operations(self) -> int:
        """How many operations that change or sync something were tried so far."""
        return self._volume.operations

    @property
    def cut_at(self) -> int | None:
        """The operation, counted from 1, at which the power goes off instead; None for never.

        That operation does not happen. It and every later call, reads included, raise
        `PowerCut`.
        """
        return self._volume.cut_at

    @cut_at.setter
    def cut_at(self, number: int | None) -> None:
        self._volume.cut_at = number

    @property
    def capacity(self) -> int | None:
        """How many bytes fit; may be changed at any time, also below `used_size`."""
        return self._volume.capacity

    @capacity.setter
    def capacity(self, size: int | None) -> None:
        self._volume.capacity = size

    @property
    def used_size(self) -> int:
        """How many bytes all files hold together."""
        with self._volume.lock:
            return self._volume.used_size()

    def fail(
        self,
        code: int = errno.EIO,
        *,
        at: int | None = None,
        when: Callable[[Operation, str], bool] | None = None,
        times: int | None = 1,
        kept_size: int = 0,
    ) -> None:
        """Make operations to come raise `OSError`.

        A failed `sync` loses the bytes it was to make durable: they still read well, and no
        later sync brings them back. A failed `append` leaves the first `kept_size` bytes of
        its data in the file (a short write); any other operation that fails does nothing.

        Args:
            code: The errno, for instance `errno.ENOSPC`.
            at: Strike only this operation, as `operations` counts; None for any.
            when: Strike only where this returns true for the operation's name and path. It
                is called with the disk locked and is asked about reads, too.
            times: How often to strike at most; None for ever.
            kept_size: What a failed append leaves, in bytes.
        """
        with self._volume.lock:
            self._volume.faults.append(Fault(code, at, when, times, kept_size))

    def heal(self) -> None:
        """Forget every fault that `fail` announced; what was lost stays lost."""
        with self._volume.lock:
            self._volume.faults.clear()

    def crash(self, rng: Random, *, keep: Keep = "random") -> SimulatedDisk:
        """Return the disk as the next boot would find it if the power went off now.

        This disk goes on as it is, so one moment can be crashed many times over. The new one
        shares nothing with it: no lock is held, no fault is to come, and all it holds is
        durable. Capacity and lying are the same.

        Args:
            rng: Decides what of the unsynced survives; the same seed, the same survivors.
            keep: "all" unsynced changes survive (the process died, the machine did not),
                "none" of them, or each at "random".

        Cost: O(bytes on the disk).
        """
        with self._volume.lock:
            survivor = SimulatedDisk(capacity=self._volume.capacity, lie=self._volume.lie)
            survivor._volume.root = self._volume.root.survivor(rng, keep)
            return survivor

    def contents(self, path: str) -> bytes:
        """Return a file's bytes as programs see them; neither counted nor failed."""
        with self._volume.lock:
            return bytes(self._volume.file(path).live)

    def set_contents(self, path: str, data: bytes) -> None:
        """Damage a file: put `data` in its place, durably; neither counted nor failed."""
        with self._volume.lock:
            self._volume.file(path).replace(data)

    # The file system, as the engine uses it.

    def make_directory(self, path: str) -> None:
        """Make the directory and its missing parents, durably; one that exists is fine."""
        names = split(path)
        with self._volume.lock:
            for depth in range(1, len(names) + 1):
                self._make_one_directory("/" + "/".join(names[:depth]))

    def names(self, path: str) -> list[str]:
        """Return the names in the directory, sorted."""
        with self._volume.lock:
            self._volume.attempt("names", path, reads=True)
            return sorted(self._volume.directory(path).live)

    def create(self, path: str) -> WritableFile:
        """Make a new file; FileExistsError if the name is taken."""
        with self._volume.lock:
            self._volume.attempt("create", path)
            directory, name = self._volume.parent(path)
            if name in directory.live:
                fail(errno.EEXIST, path)
            node = FileNode()
            directory.place(name, node)
            return _WritableFile(self._volume, node, path)

    def open(self, path: str) -> ReadableFile:
        """Open a file for reading; it stays readable after `remove`."""
        with self._volume.lock:
            self._volume.attempt("open", path, reads=True)
            return _ReadableFile(self._volume, self._volume.file(path), path)

    def open_end(self, path: str) -> FileEnd:
        """Open a file to make room behind its end."""
        with self._volume.lock:
            self._volume.attempt("open", path, reads=True)
            return _FileEnd(self._volume, self._volume.file(path), path)

    def map(self, path: str) -> bytes:
        """Return the whole file as bytes."""
        with self._volume.lock:
            self._volume.attempt("map", path, reads=True)
            return bytes(self._volume.file(path).live)

    def rename(self, source: str, target: str) -> None:
        """Give the file or directory another name in its parent, replacing what has it.

        Raises:
            OSError: EXDEV if the names are in two directories: not simulated.
        """
        with self._volume.lock:
            self._volume.attempt("rename", target)
            directory, name = self._volume.parent(target)
            if self._volume.parent(source)[0] is not directory:
                fail(errno.EXDEV, target)
            directory.place(name, self._volume.find(source))

    def link(self, source: str, target: str) -> None:
        """Give the file a second name, in another directory.

        Raises:
            OSError: EPERM if the names are in one directory: not simulated.
        """
        with self._volume.lock:
            self._volume.attempt("link", target)
            directory, name = self._volume.parent(target)
            if self._volume.parent(source)[0] is directory:
                fail(errno.EPERM, target)
            if name in directory.live:
                fail(errno.EEXIST, target)
            directory.place(name, self._volume.file(source))

    def remove(self, path: str) -> None:
        """Remove the name; readers that have the file keep it."""
        with self._volume.lock:
            self._volume.attempt("remove", path)
            node = self._volume.file(path)
            self._volume.parent(path)[0].drop(node)

    def sync_directory(self, path: str) -> None:
        """Make the names in the directory durable."""
        with self._volume.lock:
            self._volume.attempt("sync_directory", path)
            directory = self._volume.directory(path)
            if not self._volume.lie:
                directory.sync()

    def identity(self, path: str) -> tuple[int, ...]:
        """Return numbers that change when the file is replaced by `rename`."""
        with self._volume.lock:
            self._volume.attempt("identity", path, reads=True)
            node = self._volume.file(path)
            return node.number, node.change_count, len(node.live)

    def lock(self, path: str, timeout: float) -> Lock:
        """Claim the lock file, waiting up to `timeout` seconds; LockedError if it is held."""
        with self._volume.lock:
            self._volume.attempt("lock", path)
            directory, name = self._volume.parent(path)
            if name not in directory.live:
                directory.place(name, FileNode())
            free = self._volume.released.wait_for(lambda: path not in self._locked, timeout)
            if not free:
                raise LockedError(path.rpartition("/")[0], None, None, timeout)
            self._locked.add(path)
            return _Lock(self._volume, self._locked, path)

    def _make_one_directory(self, path: str) -> None:
        directory, name = self._volume.parent(path)
        if name in directory.live:
            if not isinstance(directory.live[name], DirectoryNode):
                fail(errno.EEXIST, path)
            return
        self._volume.attempt("make_directory", path)
        directory.place(name, DirectoryNode())
        self.sync_directory(path.rpartition("/")[0] or "/")


class _OpenFile:
    """What every kind of open file is: a node, until closed."""

    def __init__(self, volume: Volume, node: FileNode, path: str) -> None:
        self._volume = volume
        self._node: FileNode | None = node
        self._path = path
        self._losses_known = node.loss_count

    def close(self) -> None:
        self._node = None

    def _sync(self) -> None:
        with self._volume.lock:
            fault = self._volume.begin("sync", self._path)
            node = self._open_node()
            if fault is not None:
                node.lose()
            if node.loss_count > self._losses_known:
                self._losses_known = node.loss_count
                fail(errno.EIO if fault is None else fault.code, self._path)
            if not self._volume.lie:
                node.sync()

    def _open_node(self) -> FileNode:
        if self._node is None:
            fail(errno.EBADF, self._path)
        return self._node

    def _write(self, operation: Operation, start: int | None, data: bytes | bytearray) -> int:
        """Write at `start`, or at the end of the file; return where the data ends."""
        with self._volume.lock:
            fault = self._volume.begin(operation, self._path)
            node = self._open_node()
            size = len(node.live)
            start = size if start is None else start
            if fault is not None:
                node.write(start, data[: fault.kept_size])
                fail(fault.code, self._path)
            capacity = self._volume.capacity
            if capacity is not None:
                # What the file holds already has its place.
                fits = size - start + max(0, capacity - self._volume.used_size())
                if fits < len(data):
                    node.write(start, data[:fits])
                    fail(errno.ENOSPC, self._path)
            node.write(start, data)
            return start + len(data)


class _WritableFile(_OpenFile):
    _size = 0

    def append(self, data: bytes | bytearray) -> None:
        self._size = self._write("append", self._size, data)

    def truncate(self, size: int) -> None:
        with self._volume.lock:
            self._volume.attempt("truncate", self._path)
            self._open_node().truncate(size)
            self._size = size

    def sync(self) -> None:
        self._sync()


class _FileEnd(_OpenFile):
    def grow(self, size: int) -> int:
        return self._write("grow", None, bytes(size))

    def sync(self) -> None:
        self._sync()


class _ReadableFile(_OpenFile):
    @property
    def size(self) -> int:
        with self._volume.lock:
            return len(self._open_node().live)

    def read(self, offset: int, size: int) -> bytes:
        with self._volume.lock:
            self._volume.attempt("read", self._path, reads=True)
            return bytes(self._open_node().live[offset : offset + size])

    def sync(self) -> None:
        self._sync()


class _Lock:
    """One claim; releasing needs no power, since a machine that is off holds no lock."""

    def __init__(self, volume: Volume, locked: set[str], path: str) -> None:
        self._volume = volume
        self._locked = locked
        self._path = path
        self._held = True

    def release(self) -> None:
        with self._volume.lock:
            if self._held:
                self._held = False
                self._locked.discard(self._path)
                self._volume.released.notify_all()
