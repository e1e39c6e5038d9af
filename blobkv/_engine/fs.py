"""The one module that touches the operating system: the real files, the lock, forks.

What is promised of files is in `files.py`. A mapped file is never truncated by the engine:
reading it would be SIGBUS, not an error. So is reading one from a disk that fails, for gets,
scans, and backup; `verify` and compaction read by `open`, so that there a bad disk gives
`OSError`.
"""

from __future__ import annotations

import errno
import fcntl
import json
import mmap
import os
import socket
import stat
import sys
import time
import weakref
from io import FileIO
from typing import TYPE_CHECKING, Final, Protocol

from blobkv.errors import CorruptionError, LockedError

if TYPE_CHECKING:
    from blobkv._engine.files import FileEnd, Lock, Mapped, ReadableFile, WritableFile

_FILE_MODE: Final = 0o600
_DIRECTORY_MODE: Final = 0o700
_LOCK_POLL_SECONDS: Final = 0.02
_GHOST_SECONDS: Final = 1.0
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
# Without O_NONBLOCK, a FIFO planted in the directory would hold an open for ever.
_READ: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK
# The system finds the end and writes there in one step, which a write by position cannot.
_END: Final = os.O_WRONLY | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK
_LOCK: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK


class OSFileSystem:
    """The real file system.

    Args:
        use_mmap: Whether `map` maps. Without, it reads each file into memory whole, for
            file systems where a mapping is slow or refused.
    """

    def __init__(self, *, use_mmap: bool = True) -> None:
        self._use_mmap = use_mmap

    def make_directory(self, path: str) -> None:
        if _is_directory(path):
            return
        parent = os.path.dirname(path)
        self.make_directory(parent)
        try:
            os.mkdir(path, _DIRECTORY_MODE)
        except FileExistsError:
            # Another process was quicker, or the name is a file's: then say so.
            if not _is_directory(path):
                raise
        else:
            os.chmod(path, _DIRECTORY_MODE)
        self.sync_directory(parent)

    def names(self, path: str) -> list[str]:
        return sorted(os.listdir(path))

    def create(self, path: str) -> WritableFile:
        fd = os.open(path, _CREATE, _FILE_MODE)
        os.fchmod(fd, _FILE_MODE)
        return _OSWritableFile(fd, "r+")

    def open(self, path: str) -> ReadableFile:
        return _OSReadableFile(_open_regular(path), "r")

    def open_end(self, path: str) -> FileEnd:
        return _OSFileEnd(_open_regular(path, _END), "a")

    def map(self, path: str) -> Mapped:
        fd = _open_regular(path)
        try:
            size = os.fstat(fd).st_size
            if size == 0:
                return b""
            if self._use_mmap:
                return mmap.mmap(fd, size, prot=mmap.PROT_READ)
            return _read_all(fd, 0, size)
        finally:
            os.close(fd)

    def rename(self, source: str, target: str) -> None:
        os.rename(source, target)

    def link(self, source: str, target: str) -> None:
        os.link(source, target, follow_symlinks=False)

    def remove(self, path: str) -> None:
        os.unlink(path)

    def sync_directory(self, path: str) -> None:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        except PermissionError:
            # One that may be searched but not read, as a store's parent may be: no descriptor
            # can be had of it, so everything is synced.
            os.sync()
            return
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

    def identity(self, path: str) -> tuple[int, ...]:
        status = os.stat(path, follow_symlinks=False)
        return status.st_ino, status.st_mtime_ns, status.st_size

    def lock(self, path: str, timeout: float) -> Lock:
        fd, is_new = _open_lock(path)
        # Before it is claimed: whatever happens from here on, somebody can give it up.
        lock = _OSLock(fd)
        try:
            if is_new:
                # The umask may have taken what the next open needs.
                os.fchmod(fd, _FILE_MODE)
            _check_regular(fd, path, links_max=1)
            _claim(fd, path, timeout)
            holder = json.dumps({"pid": os.getpid(), "host": socket.gethostname()}) + "\n"
            os.ftruncate(fd, 0)
            os.pwrite(fd, holder.encode(), 0)
        except BaseException:
            lock.release()
            raise
        return lock


class _OSFile:
    """An open file. The `FileIO` is there to close, and to warn if nobody did."""

    def __init__(self, fd: int, mode: str) -> None:
        self._file = FileIO(fd, mode)

    def sync(self) -> None:
        _sync(_number(self._file))

    def close(self) -> None:
        self._file.close()


class _OSWritableFile(_OSFile):
    """Writes by position, so that room behind the end is written over."""

    _size = 0

    def append(self, data: bytes | bytearray) -> None:
        written = os.pwrite(_number(self._file), data, self._size)
        self._size += written
        if written < len(data):
            self.append(data[written:])

    def truncate(self, size: int) -> None:
        os.ftruncate(_number(self._file), size)
        self._size = size


class _OSFileEnd(_OSFile):
    def grow(self, size: int) -> int:
        zeroes = bytes(size)
        while size:
            size -= os.write(_number(self._file), zeroes[:size])
        return os.lseek(_number(self._file), 0, os.SEEK_CUR)


class _OSReadableFile(_OSFile):
    @property
    def size(self) -> int:
        return os.fstat(_number(self._file)).st_size

    def read(self, offset: int, size: int) -> bytes:
        return _read_all(_number(self._file), offset, size)

    def sync(self) -> None:
        try:
            super().sync()
        except OSError as error:
            # A medium that takes no writes has none to lose.
            if error.errno not in {errno.EROFS, errno.EINVAL}:
                raise


class _OSLock:
    """Held by flock: unlike fcntl's locks, closing another descriptor does not drop it."""

    def __init__(self, fd: int) -> None:
        self._file = FileIO(fd, "r+")
        on_fork(self)

    def release(self) -> None:
        if not self._file.closed:
            # Said, not left to close: a forked child may hold a copy of the descriptor.
            fcntl.flock(self._file, fcntl.LOCK_UN)
            self._file.close()

    def forget_in_child(self) -> None:
        # Without saying so: the claim stays the parent's.
        self._file.close()


def processor_count() -> int:
    """Return how many processors this process may use, or has where that is not told."""
    return len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))


class Forkable(Protocol):
    """Something that must not be used in a forked child."""

    def forget_in_child(self) -> None:
        """Called once in the child, where no other thread exists. Must take no lock."""


def on_fork(subject: Forkable) -> None:
    """Call `subject.forget_in_child` in every forked child, while the subject lives."""
    _FORKABLE.add(subject)


_FORKABLE: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for subject in list(_FORKABLE):
        subject.forget_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)


def _is_directory(path: str) -> bool:
    # Not by `os.path.isdir`, which takes an error of the device for a no.
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (FileNotFoundError, NotADirectoryError):
        return False


def _sync(fd: int) -> None:
    if sys.platform == "darwin":
        # fsync there stops at the drive's cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(fd)


def _number(file: FileIO) -> int:
    # Asked of the file each time: the number of a closed one may be another's by now.
    if file.closed:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))
    return file.fileno()


def _open_regular(path: str, flags: int = _READ) -> int:
    fd = os.open(path, flags)
    try:
        _check_regular(fd, path)
    except BaseException:
        os.close(fd)
        raise
    return fd


def _check_regular(fd: int, path: str, *, links_max: int | None = None) -> None:
    status = os.fstat(fd)
    if not stat.S_ISREG(status.st_mode):
        raise CorruptionError(os.path.basename(path), 0, "not a regular file")
    if links_max is not None and status.st_nlink > links_max:
        # It is about to be overwritten, and by its other name it may be somebody's.
        raise CorruptionError(os.path.basename(path), 0, "the file has other names")


def _read_all(fd: int, offset: int, size: int) -> bytes:
    data = os.pread(fd, size, offset)
    if len(data) == size or not data:
        return data
    # One call moves at most about 2 GiB; only then is there more to read.
    parts = [data]
    while data:
        offset += len(data)
        size -= len(data)
        data = os.pread(fd, size, offset)
        parts.append(data)
    return b"".join(parts)


def _open_lock(path: str) -> tuple[int, bool]:
    """Open the lock file; return its descriptor, and whether it was made."""
    try:
        return os.open(path, _LOCK | os.O_EXCL, _FILE_MODE), True
    except FileExistsError:
        return os.open(path, _LOCK, _FILE_MODE), False


def _claim(fd: int, path: str, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            late = time.monotonic() - deadline
            if late >= 0:
                pid, host = _holder(fd)
                if late >= _GHOST_SECONDS or not _is_ghost(pid, host):
                    own = (pid, host) == (os.getpid(), socket.gethostname())
                    directory = os.path.dirname(path)
                    raise LockedError(directory, pid, host, timeout, own=own) from None
            time.sleep(_LOCK_POLL_SECONDS)
        else:
            return


def _holder(fd: int) -> tuple[int | None, str | None]:
    try:
        holder = json.loads(os.pread(fd, 4096, 0))
        return int(holder["pid"]), str(holder["host"])
    except (ValueError, KeyError, TypeError, RecursionError, OverflowError):
        # The holder is just writing it, or died while it did.
        return None, None


def _is_ghost(pid: int | None, host: str | None) -> bool:
    """Return whether the holder has died here, yet holds the lock.

    Killed while it started another program, it leaves a fork of itself that has all it had
    open until that program's first instruction.
    """
    return pid is not None and host == socket.gethostname() and _has_ended(pid)


def _has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        # Another user's, or no number that a process can have.
        pass
    return False
