"""One directory, changed by paths that nothing in them can lead out of it.

A path is a tuple of names below the directory, as bytes; `()` is the directory itself. Every
step of a path is opened from the descriptor of the step before, as a directory and not through
a symlink, so neither a planted link nor a race can send a write elsewhere. A symlink's target
is text to keep, never a way to go.

What a change does to the directory around it is undone: `settle` gives every directory that
was touched its mode and its modification time, the deepest first, so that a tree depends on
what was put in it and not on when.

Source: the walk is openat(2) with O_NOFOLLOW, as in libarchive's secure extraction.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from blobmap.closing import Closing
from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

Path = tuple[bytes, ...]

NAME_SIZE_MAX: Final = 255
PATH_SIZE_MAX: Final = 4095
# Deeper than any real tree, and shallow enough for removal to recurse.
DEPTH_MAX: Final = 256

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_IMPLIED_MODE: Final = 0o755


def parse_path(text: str) -> Path:
    """Return the path that a tar's member or link name spells.

    Args:
        text: Names with "/" between them; "." and empty names are dropped.

    Raises:
        InvalidArgument: It is absolute, holds ".." or NUL, or is too long or too deep.
    """
    data = text.encode("utf-8", "surrogateescape")
    path = tuple(name for name in data.split(b"/") if name not in {b"", b"."})
    reason = ""
    if data.startswith(b"/"):
        reason = "is absolute"
    elif b".." in path:
        reason = 'holds ".."'
    elif b"\0" in data:
        reason = "holds a NUL"
    elif len(data) > PATH_SIZE_MAX or len(path) > DEPTH_MAX:
        reason = f"is longer than {PATH_SIZE_MAX} bytes or {DEPTH_MAX} names"
    elif any(len(name) > NAME_SIZE_MAX for name in path):
        reason = f"holds a name longer than {NAME_SIZE_MAX} bytes"
    if reason:
        raise InvalidArgument(f"the name {shown(data)} {reason}")
    return path


def shown(path: Path | bytes) -> str:
    """Return the path as printable text for a message, cut when very long."""
    data = path if isinstance(path, bytes) else b"/".join(path)
    return ascii(data[:200].decode("utf-8", "backslashreplace"))


class Tree(Closing):
    """One open directory. A context manager that closes it; for one thread at a time.

    Attributes:
        removed: The directories that were removed here. What was below them is gone, whatever
            is in their place now.

    Invariants:
        The held descriptor is that of the directory at `_at`, reached without a symlink.
        `_settled` holds every directory whose time a change here has spoiled.
    """

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self._root = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._at: Path = ()
        self._fd = self._root
        self._settled: dict[Path, tuple[int, int]] = {}
        self._privileged = os.geteuid() == 0
        self.removed: set[Path] = set()

    def enter(self, path: Path, *, make_ns: int | None = None) -> int:
        """Return a descriptor of the directory at `path`, valid until the next call.

        Args:
            path: Where it is.
            make_ns: Missing directories are made with this modification time.

        Raises:
            FileNotFoundError: It is missing, and `make_ns` is None.
            InvalidArgument: A step is something else than a directory.
        """
        if path[: len(self._at)] != self._at:
            self._move((), self._root)
        for name in path[len(self._at) :]:
            if make_ns is not None:
                self._make_missing(name, make_ns)
            try:
                fd = os.open(name, _DIRECTORY, dir_fd=self._fd)
            except OSError as error:
                if error.errno not in {errno.ENOTDIR, errno.ELOOP}:
                    raise
                raise InvalidArgument(
                    f"{shown(path)} leads through {shown((*self._at, name))}, "
                    "which is no directory; links are not followed"
                ) from error
            self._move((*self._at, name), fd)
        return self._fd

    def stat(self, path: Path) -> os.stat_result | None:
        """Return what is at `path`, a symlink itself and not its target; None for nothing."""
        if not path:
            return os.fstat(self._root)
        with suppress(FileNotFoundError):
            return os.lstat(path[-1], dir_fd=self.enter(path[:-1]))
        return None

    def touch(self, path: Path) -> int:
        """Enter a directory to change it, noting the mode and time it is to have again."""
        fd = self.enter(path)
        if path not in self._settled:
            self._note(path, fd)
        return fd

    def settle_later(self, path: Path, mode: int, time_ns: int) -> None:
        """Have `settle` give the directory this mode and modification time."""
        self._settled[path] = (mode, time_ns)

    def settle(self) -> None:
        """Give every touched directory its mode and time, the deepest first.

        Cost: a few system calls for each.
        """
        # A path sorts before what is below it, so backwards is from the leaves to the root.
        for path in sorted(self._settled, reverse=True):
            mode, time_ns = self._settled[path]
            fd = self.enter(path)
            os.fchmod(fd, mode)
            os.utime(fd, ns=(time_ns, time_ns))
        self._settled.clear()

    def make_directory(self, path: Path) -> int:
        """Have a directory at `path`, keeping one that is there; return it entered."""
        there = self.stat(path)
        if there is None or not stat.S_ISDIR(there.st_mode):
            self.remove(path)
            os.mkdir(path[-1], 0o700, dir_fd=self.touch(path[:-1]))
        return self.enter(path)

    def make_file(self, path: Path) -> int:
        """Return a descriptor of a new, empty file in the place of what is at `path`."""
        self.remove(path)
        return os.open(path[-1], _NEW_FILE, 0o600, dir_fd=self.touch(path[:-1]))

    def make_symlink(self, path: Path, target: bytes) -> None:
        """Put a symlink in the place of what is at `path`."""
        self.remove(path)
        os.symlink(target, path[-1], dir_fd=self.touch(path[:-1]))

    def make_node(self, path: Path, mode: int, device: int) -> None:
        """Put a device or a fifo in the place of what is at `path`."""
        self.remove(path)
        os.mknod(path[-1], mode, device, dir_fd=self.touch(path[:-1]))

    def make_link(self, path: Path, target: Path) -> None:
        """Put another name of the file at `target` in the place of what is at `path`.

        Raises:
            FileNotFoundError: There is no file at `target`.
            PermissionError: It is a directory.
        """
        self.remove(path)
        source = os.dup(self.enter(target[:-1]))
        try:
            os.link(
                target[-1],
                path[-1],
                src_dir_fd=source,
                dst_dir_fd=self.touch(path[:-1]),
                follow_symlinks=False,
            )
        finally:
            os.close(source)

    def remove(self, path: Path, *, keep: AbstractSet[Path] = frozenset()) -> None:
        """Remove what is at `path`, if anything.

        Args:
            path: Not the root itself.
            keep: Paths that stay, with the directories on the way to them.

        Raises:
            FileNotFoundError: The directory that would hold it is missing.
        """
        if self.stat(path) is None:
            return
        fd = os.dup(self.touch(path[:-1]))
        try:
            self._prune(fd, path, keep)
        finally:
            os.close(fd)

    def remove_children(self, path: Path, *, keep: AbstractSet[Path]) -> None:
        """Remove what is in the directory at `path`, but for `keep` as in `remove`."""
        fd = os.dup(self.touch(path))
        try:
            self._prune_children(fd, path, keep)
        finally:
            os.close(fd)

    def close(self) -> None:
        """Release the directory. Idempotent."""
        if self._root >= 0:
            self._move((), self._root)
            os.close(self._root)
            self._root = self._fd = -1

    def _move(self, path: Path, fd: int) -> None:
        if self._fd != self._root:
            os.close(self._fd)
        self._at, self._fd = path, fd

    def _make_missing(self, name: bytes, time_ns: int) -> None:
        try:
            os.lstat(name, dir_fd=self._fd)
        except FileNotFoundError:
            self.touch(self._at)
            os.mkdir(name, 0o700, dir_fd=self._fd)
            self.settle_later((*self._at, name), _IMPLIED_MODE, time_ns)

    def _note(self, path: Path, fd: int) -> None:
        there = os.fstat(fd)
        mode = stat.S_IMODE(there.st_mode)
        self.settle_later(path, mode, there.st_mtime_ns)
        if not self._privileged and mode & 0o700 != 0o700:
            os.fchmod(fd, mode | 0o700)

    def _prune(self, parent: int, path: Path, keep: AbstractSet[Path]) -> bool:
        """Remove `path` from its open parent; return whether it is gone."""
        name = path[-1]
        if not stat.S_ISDIR(os.lstat(name, dir_fd=parent).st_mode):
            if path in keep:
                return False
            os.unlink(name, dir_fd=parent)
            return True
        fd = os.open(name, _DIRECTORY, dir_fd=parent)
        try:
            emptied = self._prune_children(fd, path, keep)
        finally:
            os.close(fd)
        if not emptied or path in keep:
            return False
        self._forget(path)
        os.rmdir(name, dir_fd=parent)
        self.removed.add(path)
        return True

    def _prune_children(self, fd: int, path: Path, keep: AbstractSet[Path]) -> bool:
        """Remove what is in the open directory at `path`; return whether it is empty."""
        if path not in self._settled:
            self._note(path, fd)
        emptied = True
        for name in os.listdir(fd):
            emptied &= self._prune(fd, (*path, os.fsencode(name)), keep)
        return emptied

    def _forget(self, path: Path) -> None:
        """Drop what is held of a directory about to go, and of all below it."""
        if self._at[: len(path)] == path:
            self._move((), self._root)
        # Whatever was below it went, and was forgotten, before it.
        self._settled.pop(path, None)
