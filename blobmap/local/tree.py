"""Directory trees as a copying snapshotter needs them: copy, measure, remove.

No symlink is ever followed, and no walk recurses, so neither a link nor a depth that an
image brings can lead out of a tree or out of stack.
"""

# ruff: noqa: PTH101, PTH102, PTH115, PTH118, PTH208, PTH211
# Paths are str here, made by joining names: a tree has too many for an object each, and half
# of the calls go by descriptor, where pathlib cannot.

from __future__ import annotations

import errno
import logging
import os
import secrets
import stat
import sys
import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final

from blobmap.contracts import Usage
from blobmap.local.durable import DIRECTORY, opened

if TYPE_CHECKING:
    from collections.abc import Iterator

_SOURCE: Final = os.O_RDONLY | os.O_NOFOLLOW
_TARGET: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
_CHUNK_SIZE: Final = 1 << 20

_NO_COPY_RANGE: Final = {errno.EXDEV, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL, errno.EPERM}
# What overlayfs notes of a directory holds in its own place only.
_OVERLAY: Final = ("trusted.overlay.", "user.overlay.")
_NO_XATTR: Final = {errno.ENOTSUP, errno.EPERM, errno.EACCES}

_LOG: Final = logging.getLogger("blobmap")

# Held while a mode is lifted and while one is looked at, so that none is taken for another.
_MODES: Final = threading.Lock()

Inode = tuple[int, int]


def copy(source: str, target: str) -> None:
    """Make `target`, a directory that must not exist, the same tree as `source`.

    Kept are types, contents with their holes, permission bits, times of access and change,
    hard links within the tree, link targets, device numbers, and extended attributes as far
    as the system lets us set them; with the privileges of root, owners too.

    Raises:
        OSError: The device failed, or the tree holds something that may not be read or made
            without privileges, such as a device, or a directory that its owner may not
            search. `target` is then half made; remove it.

    Cost: O(entries + bytes); no bytes where the file system shares extents.
    """
    links: dict[Inode, str] = {}
    directories = [(source, target)]
    # The list grows while it is walked, so directories come before what they hold.
    for original, made in directories:
        os.mkdir(made, 0o700)
        with _reading(original, DIRECTORY) as fd, os.scandir(fd) as entries:
            for entry in entries:
                path, copied = (os.path.join(top, entry.name) for top in (original, made))
                if entry.is_dir(follow_symlinks=False):
                    directories.append((path, copied))
                else:
                    _copy_entry(path, copied, links)
    # Filling a directory changes its time and needs its permission, so its own come last.
    for original, made in directories:
        _copy_attributes(original, made, _status(original))


def copy_root(source: str, target: str) -> None:
    """Make `target`, a directory that must not exist, with the attributes of `source`.

    That is what `copy` keeps of a directory, but for what overlayfs notes of it, and nothing
    of what it holds.

    Raises:
        OSError: The device failed. `target` is then half made; remove it.
    """
    os.mkdir(target, 0o700)
    _copy_attributes(source, target, _status(source), leave_out=_OVERLAY)


def measure(tree: str, base: str | None = None) -> Usage:
    """Return what `tree` holds that `base`, or nothing at all, does not.

    An entry is the base's own if the base has one of the same path, type, permission bits,
    owner, and device numbers, and, of a file, the same size and modification time, of a
    symlink, the same target. All others count: an inode each, and for regular files their
    size. An inode with several names counts once, and not at all if the base has one of them.
    Extended attributes and the times of directories alone make no difference.

    What vanishes during the walk is not counted.

    Cost: O(entries) calls of lstat; no contents are read.
    """
    own: dict[Inode, int] = {}
    shared: set[Inode] = set()
    for path, status in _entries(tree):
        inode = (status.st_dev, status.st_ino)
        if base is not None and _same(tree, base, path, status):
            shared.add(inode)
        else:
            own[inode] = status.st_size if stat.S_ISREG(status.st_mode) else 0
    for inode in shared:
        own.pop(inode, None)
    return Usage(size=sum(own.values()), inodes=len(own))


def remove(directory: str, name: str) -> None:
    """Remove the tree `directory/name`, however deep it is and whatever its permissions.

    Subdirectories are first moved up beside the tree, under names that start with `name`, so
    that two descriptors and short paths do for any depth. If this fails half-way, what is
    left is under such names; remove it the same way.

    Raises:
        OSError: The device failed, or something may not be removed, such as a mount point.

    Cost: O(entries), at most one rename and one rmdir a directory.
    """
    with opened(directory, DIRECTORY) as top:
        pending = [name]
        while pending:
            current = pending.pop()
            pending += _empty(top, current, name)
            os.rmdir(current, dir_fd=top)


def status_of(name: bytes, directory: int) -> os.stat_result:
    """Return what is in the open directory under that name, a symlink itself."""
    with _MODES:
        return os.lstat(name, dir_fd=directory)


def open_own(path: str | bytes, flags: int, *, directory: int | None = None) -> int:
    """Open what is the caller's own, even where its mode keeps them out.

    Args:
        path: Where it is; below `directory`, if that is given.
        flags: As for `os.open`; links must not be followed.
        directory: An open directory.

    Returns:
        A descriptor.

    Raises:
        PermissionError: It is somebody else's, and not for the caller to read.
    """
    try:
        return os.open(path, flags, dir_fd=directory)
    except PermissionError:
        # Only an unprivileged owner comes here, who may always change the mode. A process
        # that is killed in between leaves the owner's read permission behind.
        with _MODES:
            mode = stat.S_IMODE(os.lstat(path, dir_fd=directory).st_mode)
            os.chmod(path, mode | stat.S_IRUSR, dir_fd=directory)
            try:
                return os.open(path, flags, dir_fd=directory)
            finally:
                os.chmod(path, mode, dir_fd=directory)


def _copy_entry(source: str, target: str, links: dict[Inode, str]) -> None:
    status = _status(source)
    if status.st_nlink > 1:
        first = links.setdefault((status.st_dev, status.st_ino), target)
        if first != target:
            os.link(first, target, follow_symlinks=False)
            return
    if stat.S_ISREG(status.st_mode):
        _copy_file(source, target, status.st_size)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(source), target)
    elif stat.S_ISFIFO(status.st_mode):
        os.mkfifo(target, 0o600)
    else:
        os.mknod(target, stat.S_IFMT(status.st_mode) | 0o600, status.st_rdev)
    _copy_attributes(source, target, status)


def _copy_file(source: str, target: str, size: int) -> None:
    with _reading(source, _SOURCE) as reader, opened(target, _TARGET) as writer:
        for start, end in _extents(reader, size):
            at = start
            while at < end:
                moved = _move(reader, writer, at, end - at)
                if not moved:
                    raise OSError(
                        errno.EIO, f"shrank below {end} bytes while it was read", source
                    )
                at += moved
        # A hole at the end has no bytes to copy.
        os.ftruncate(writer, size)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the half-open ranges of the file that hold data."""
    end = 0
    while end < size:
        try:
            start = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:
                return
            raise
        end = os.lseek(fd, start, os.SEEK_HOLE)
        yield start, min(end, size)


def _move(reader: int, writer: int, at: int, size: int) -> int:
    if sys.platform == "linux":
        try:
            return os.copy_file_range(reader, writer, size, at, at)
        except OSError as error:
            if error.errno not in _NO_COPY_RANGE:
                raise
    return os.pwrite(writer, os.pread(reader, min(size, _CHUNK_SIZE), at), at)


def _copy_attributes(
    source: str, target: str, status: os.stat_result, *, leave_out: tuple[str, ...] = ()
) -> None:
    # In this order: a change of owner clears the set-id bits and capabilities, and without
    # write permission no attribute of an unprivileged owner can be set.
    if os.geteuid() == 0:
        os.chown(target, status.st_uid, status.st_gid, follow_symlinks=False)
    _copy_xattrs(source, target, leave_out)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(target, stat.S_IMODE(status.st_mode))
    os.utime(target, ns=(status.st_atime_ns, status.st_mtime_ns), follow_symlinks=False)


def _copy_xattrs(source: str, target: str, leave_out: tuple[str, ...]) -> None:
    if sys.platform != "linux":
        return
    with _as_far_as_allowed(source):
        for name in os.listxattr(source, follow_symlinks=False):
            if name.startswith(leave_out):
                continue
            with _as_far_as_allowed(source, name):
                value = os.getxattr(source, name, follow_symlinks=False)
                os.setxattr(target, name, value, follow_symlinks=False)


@contextmanager
def _as_far_as_allowed(path: str, name: str = "all") -> Iterator[None]:
    """Go on where the system keeps no such attribute, or keeps it for the privileged."""
    try:
        yield
    except OSError as error:
        if error.errno not in _NO_XATTR:
            raise
        _LOG.debug("%s: left out extended attribute %s: %s", path, name, error)


def _entries(tree: str) -> Iterator[tuple[str, os.stat_result]]:
    """Yield the tree's root as "" and each path below it, with its lstat."""
    pending = [""]
    while pending:
        path = pending.pop()
        full = os.path.join(tree, path)
        with suppress(FileNotFoundError, NotADirectoryError):
            status = _status(full)
            if stat.S_ISDIR(status.st_mode):
                with _reading(full, DIRECTORY) as fd:
                    pending += [os.path.join(path, name) for name in os.listdir(fd)]
            yield path, status


def _same(tree: str, base: str, path: str, status: os.stat_result) -> bool:
    full, original_full = os.path.join(tree, path), os.path.join(base, path)
    try:
        original = _status(original_full)
        if _identity(status) != _identity(original):
            return False
        if stat.S_ISLNK(status.st_mode):
            return os.readlink(full) == os.readlink(original_full)
    except (FileNotFoundError, NotADirectoryError):
        return False
    if stat.S_ISREG(status.st_mode):
        return (status.st_size, status.st_mtime_ns) == (original.st_size, original.st_mtime_ns)
    return True


def _status(path: str) -> os.stat_result:
    with _MODES:
        return os.lstat(path)


@contextmanager
def _reading(path: str, flags: int) -> Iterator[int]:
    """Open what is the caller's own for a with-block, even where its mode keeps them out."""
    fd = open_own(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _identity(status: os.stat_result) -> tuple[int, int, int, int]:
    return status.st_mode, status.st_uid, status.st_gid, status.st_rdev


def _empty(top: int, name: str, prefix: str) -> list[str]:
    """Unlink what the directory holds, and move its directories up; return their new names."""
    lifted: list[str] = []
    fd = _open_directory(top, name)
    try:
        with os.scandir(fd) as entries:
            found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
        for entry_name, is_directory in found:
            if is_directory:
                beside = f"{prefix}-{secrets.token_hex(8)}"
                _lift(fd, entry_name, top, beside)
                lifted.append(beside)
            else:
                os.unlink(entry_name, dir_fd=fd)
    finally:
        os.close(fd)
    return lifted


def _open_directory(top: int, name: str) -> int:
    try:
        fd = os.open(name, DIRECTORY, dir_fd=top)
    except PermissionError:
        # Only an unprivileged owner comes here, who may always change the mode.
        os.chmod(name, 0o700, dir_fd=top)
        fd = os.open(name, DIRECTORY, dir_fd=top)
    os.fchmod(fd, 0o700)
    return fd


def _lift(fd: int, name: str, top: int, beside: str) -> None:
    try:
        os.rename(name, beside, src_dir_fd=fd, dst_dir_fd=top)
    except PermissionError:
        # Moving a directory rewrites its "..", which takes permission to write in it.
        os.chmod(name, 0o700, dir_fd=fd)
        os.rename(name, beside, src_dir_fd=fd, dst_dir_fd=top)
