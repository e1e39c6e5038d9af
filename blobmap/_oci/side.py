"""One directory tree, read by paths that nothing in it can lead out of it.

As in `tree`, a path is a tuple of names below the tree's root, and each step of it is opened
from the descriptor of the step before, as a directory and not through a symlink. Descriptors
of the upper steps are kept, so that going on beside a deep place does not start at the root;
only so many, so that no depth runs out of them. Below those the way up is "..", and what that
leads to must be what the way down came through.

An unprivileged owner may read what its mode keeps them from, as where trees are copied.

Sockets are in no tree here: they mean nothing without their process, and no layer has them.
"""

from __future__ import annotations

import errno
import logging
import os
import stat
import sys
from typing import TYPE_CHECKING, Final

from blobmap._oci.tree import Path, shown
from blobmap.closing import Closing
from blobmap.errors import FailedPrecondition
from blobmap.local.tree import open_own, status_of

if TYPE_CHECKING:
    from io import FileIO

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# What became a FIFO since it was looked at must not block the reader.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KEPT_COUNT_MAX: Final = 64

# What a machine or a mount keeps there for itself, and what would mean nothing elsewhere.
_LOCAL: Final = frozenset(
    {"security.selinux", "security.ima", "security.evm", "system.nfs4_acl"}
)
_LOCAL_PREFIXES: Final = ("trusted.overlay.", "user.overlay.")

_LOG: Final = logging.getLogger("blobmap")


class Side(Closing):
    """One open tree. A context manager that closes it; for one thread at a time.

    Args:
        root: The tree's directory.
        logs: Whether to log the sockets that are passed over.

    Invariants:
        `_fd` is the directory at `_at`; `_kept` has the descriptors of its first steps, and
        `_passed` the inodes of the steps after those.
    """

    def __init__(self, root: str | os.PathLike[str], *, logs: bool = False) -> None:
        self._name = os.fspath(root)
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._kept: list[int] = []
        self._passed: list[tuple[int, int]] = []
        self._at: Path = ()
        self._fd = self._root
        self._logs = logs

    def names(self, path: Path) -> list[bytes]:
        """Return the names in the directory at `path`, in no order."""
        found = []
        with os.scandir(self._enter(path)) as entries:
            for entry in entries:
                name = os.fsencode(entry.name)
                # Nearly all are of a kind that the listing itself tells.
                if (
                    entry.is_file(follow_symlinks=False)
                    or entry.is_dir(follow_symlinks=False)
                    or entry.is_symlink()
                    or not stat.S_ISSOCK(entry.stat(follow_symlinks=False).st_mode)
                ):
                    found.append(name)
                elif self._logs:
                    where = shown((*path, name))
                    _LOG.warning("%s: left out, as it is a socket: %s", self._name, where)
        return found

    def status(self, path: Path) -> os.stat_result:
        """Return what is at `path`, a symlink itself and not its target."""
        if not path:
            return os.fstat(self._root)
        return status_of(path[-1], self._enter(path[:-1]))

    def target(self, path: Path) -> bytes:
        """Return where the symlink at `path` leads."""
        return os.readlink(path[-1], dir_fd=self._enter(path[:-1]))

    def xattrs(self, path: Path) -> dict[str, bytes]:
        """Return the extended attributes that a layer keeps, of what is at `path`."""
        if sys.platform != "linux":
            return {}
        # They are read by path alone; this one starts at the open directory.
        where = (
            b"/proc/self/fd/%d/%s" % (self._enter(path[:-1]), path[-1])
            if path
            else b"/proc/self/fd/%d/." % self._root
        )
        try:
            names = os.listxattr(where, follow_symlinks=False)
        except OSError as error:
            # A file system that keeps none.
            if error.errno != errno.ENOTSUP:
                raise
            return {}
        return {
            name: os.getxattr(where, name, follow_symlinks=False)
            for name in names
            if name not in _LOCAL and not name.startswith(_LOCAL_PREFIXES)
        }

    def open(self, path: Path) -> FileIO:
        """Return the regular file at `path`, open, the caller's to close."""
        fd = open_own(path[-1], _FILE, directory=self._enter(path[:-1]))
        return os.fdopen(fd, "rb", buffering=0)

    def changed(self, path: Path) -> FailedPrecondition:
        """Return the error that the tree is not at rest."""
        return FailedPrecondition(
            f"{self._name}: {shown(path)} changes while it is read; let nothing write to it"
        )

    def close(self) -> None:
        """Release the tree. Idempotent."""
        if self._root >= 0:
            self._return_to(0)
            os.close(self._root)
            self._root = self._fd = -1

    def _enter(self, path: Path) -> int:
        """Return a descriptor of the directory at `path`, valid until the next call."""
        depth = len(self._at)
        if path[:depth] != self._at:
            common = 0
            while common < len(path) and path[common] == self._at[common]:
                common += 1
            self._return_to(common)
        for name in path[len(self._at) :]:
            fd = open_own(name, _DIRECTORY, directory=self._fd)
            self._hold((*self._at, name), fd)
        return self._fd

    def _hold(self, path: Path, fd: int) -> None:
        """Have the directory be where this is, one step below where it was."""
        if len(path) <= _KEPT_COUNT_MAX:
            self._kept.append(fd)
        else:
            self._passed.append(_inode(fd))
            if len(path) > _KEPT_COUNT_MAX + 1:
                os.close(self._fd)
        self._at, self._fd = path, fd

    def _return_to(self, depth: int) -> None:
        """Go up to a step on the way here: by "..", or to one whose descriptor is kept."""
        while len(self._at) > max(depth, _KEPT_COUNT_MAX):
            self._passed.pop()
            below = self._fd
            if self._passed:
                self._fd = os.open("..", _DIRECTORY, dir_fd=below)
            else:
                self._fd = self._kept[-1]
            os.close(below)
            self._at = self._at[:-1]
            if self._passed and _inode(self._fd) != self._passed[-1]:
                raise self.changed(self._at)
        if depth < len(self._kept):
            for fd in self._kept[depth:]:
                os.close(fd)
            del self._kept[depth:]
            self._at = self._at[:depth]
            self._fd = self._kept[-1] if self._kept else self._root


def _inode(fd: int) -> tuple[int, int]:
    there = os.fstat(fd)
    return there.st_dev, there.st_ino
