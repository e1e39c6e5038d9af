"""What makes files, directories, and whole trees survive a power cut.

A file's bytes are durable after `sync_file`; a name created, renamed, or removed, after
`sync_directory` of the directory that holds it. Everything blobmap writes goes in that
order: bytes, then the name, then the record that says so.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import stat
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_REGULAR: Final = os.O_RDONLY | os.O_NOFOLLOW


def sync_file(fd: int) -> None:
    """Make the open file's bytes and attributes durable."""
    if sys.platform == "darwin":
        # fsync there stops at the drive's cache.
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)
    else:
        os.fsync(fd)


def sync_directory(path: str | Path) -> None:
    """Make the names in the directory durable."""
    with opened(path, DIRECTORY) as fd:
        sync_file(fd)


def sync_tree(path: str) -> None:
    """Make the directory, everything below it, and every attribute there durable.

    One `syncfs` does it where there is one: a tree of ten thousand files would take as many
    flushes one by one, and `os.sync` would neither wait for other systems' sake nor report an
    error. It also flushes what others wrote to the same file system, which is the price.

    Raises:
        OSError: The device failed; nothing about the tree is then known to be durable.

    Cost: one flush on Linux; elsewhere one for each file and directory.
    """
    if _SYNCFS is None:
        _sync_each(path)
        return
    with opened(path, DIRECTORY) as fd:
        if _SYNCFS(fd) != 0:
            code = ctypes.get_errno()
            raise OSError(code, os.strerror(code), path)


def resolved(root: str | os.PathLike[str]) -> Path:
    """Return the absolute path of a root without symlinks, which no sync here follows.

    A path that leads round in circles comes back as it is, for the system to refuse.
    """
    # `Path.resolve` raises RuntimeError for such a path, up to Python 3.12.
    return Path(os.path.realpath(root))


def make_directory(path: Path) -> None:
    """Make the directory and those missing above it, private and durable, unless it exists."""
    if path.is_dir():
        return
    make_directory(path.parent)
    # Another process may be making the same one.
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)


@contextmanager
def opened(path: str | Path, flags: int, mode: int = 0o600) -> Iterator[int]:
    """Open a descriptor for the length of a with-block."""
    fd = os.open(path, flags, mode)
    try:
        yield fd
    finally:
        os.close(fd)


def write_at(fd: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`, however little of it the system takes at once."""
    rest = memoryview(data)
    while rest:
        written = os.pwrite(fd, rest, offset)
        rest = rest[written:]
        offset += written


def _find_syncfs() -> ctypes._NamedFuncPointer | None:
    if sys.platform != "linux":
        return None
    function = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None)
    if function is not None:
        function.argtypes = (ctypes.c_int,)
        function.restype = ctypes.c_int
    return function


_SYNCFS: Final = _find_syncfs()


def _sync_each(path: str) -> None:
    for directory, _, files in os.walk(path, onerror=_raise):
        for file in (Path(directory, name) for name in files):
            if stat.S_ISREG(file.lstat().st_mode):
                with opened(file, _REGULAR) as fd:
                    sync_file(fd)
        sync_directory(directory)


def _raise(error: OSError) -> None:
    raise error
