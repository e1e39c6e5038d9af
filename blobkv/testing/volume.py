"""The tree of nodes behind a simulated disk, its power switch, and the faults to come.

Every call of the disk and of its files passes `attempt` first, under one lock: that is where
the power is cut and where errors come from.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from threading import Condition, RLock
from typing import TYPE_CHECKING, Literal, NoReturn

from blobkv.testing.nodes import DirectoryNode, FileNode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from blobkv.testing.nodes import Node

Operation = Literal[
    "make_directory",
    "create",
    "append",
    "grow",
    "truncate",
    "sync",
    "rename",
    "link",
    "remove",
    "sync_directory",
    "lock",
    "names",
    "open",
    "map",
    "read",
    "identity",
]


class PowerCut(BaseException):
    """The simulated machine is off: this call and every later one raises.

    Not an `Exception`: code that survives errors must not survive this.
    """


@dataclass(slots=True)
class Fault:
    """One error to come: where, how often, and what of an append it leaves."""

    code: int
    at: int | None
    when: Callable[[Operation, str], bool] | None
    times: int | None
    kept_size: int

    def strikes(self, number: int | None, operation: Operation, path: str) -> bool:
        """Return whether this operation fails, and count it down if so."""
        if self.at is not None and self.at != number:
            return False
        if self.times == 0 or (self.when is not None and not self.when(operation, path)):
            return False
        if self.times is not None:
            self.times -= 1
        return True


class Volume:
    """What the disk, its open files, and its locks share.

    Invariant: every call is made with `lock` held.
    """

    def __init__(self, root: DirectoryNode, capacity: int | None, *, lie: bool) -> None:
        self.root = root
        self.capacity = capacity
        self.lie = lie
        self.lock = RLock()
        self.released = Condition(self.lock)
        self.operations = 0
        self.cut_at: int | None = None
        self.faults: list[Fault] = []
        self._off = False

    def attempt(self, operation: Operation, path: str, *, reads: bool = False) -> None:
        """Let one operation begin.

        Raises:
            PowerCut: The power is off, or goes off at this operation.
            OSError: An injected fault strikes it.
        """
        fault = self.begin(operation, path, reads=reads)
        if fault is not None:
            fail(fault.code, path)

    def begin(self, operation: Operation, path: str, *, reads: bool = False) -> Fault | None:
        """As `attempt`, for an operation that leaves something behind when it fails."""
        if not reads and not self._off:
            self.operations += 1
            self._off = self.cut_at is not None and self.operations >= self.cut_at
        if self._off:
            raise PowerCut(f"{path}: no power to {operation}, operation {self.operations}")
        number = None if reads else self.operations
        # Every fault is asked, so that none misses an operation that another one fails.
        struck = [fault for fault in self.faults if fault.strikes(number, operation, path)]
        return struck[0] if struck else None

    def find(self, path: str) -> Node:
        """Return the node at `path`; FileNotFoundError or NotADirectoryError if none is."""
        node: Node = self.root
        for name in split(path):
            if not isinstance(node, DirectoryNode):
                fail(errno.ENOTDIR, path)
            if name not in node.live:
                fail(errno.ENOENT, path)
            node = node.live[name]
        return node

    def file(self, path: str) -> FileNode:
        """Return the file at `path`; IsADirectoryError if it is a directory."""
        node = self.find(path)
        if not isinstance(node, FileNode):
            fail(errno.EISDIR, path)
        return node

    def directory(self, path: str) -> DirectoryNode:
        """Return the directory at `path`; NotADirectoryError if it is a file."""
        node = self.find(path)
        if not isinstance(node, DirectoryNode):
            fail(errno.ENOTDIR, path)
        return node

    def parent(self, path: str) -> tuple[DirectoryNode, str]:
        """Return the directory that holds, or would hold, the last name of `path`."""
        *names, name = split(path)
        return self.directory("/" + "/".join(names)), name

    def used_size(self) -> int:
        """Return the bytes of all files that have a name."""
        return sum(len(node.live) for node in _files(self.root))


def split(path: str) -> list[str]:
    """Return the names on an absolute path."""
    if not path.startswith("/"):
        fail(errno.ENOENT, path)
    return [name for name in path.split("/") if name]


def fail(code: int, path: str) -> NoReturn:
    """Raise the `OSError` that the device would."""
    raise OSError(code, errno.errorcode[code], path)


def _files(node: Node) -> Iterator[FileNode]:
    if isinstance(node, FileNode):
        yield node
    else:
        for child in node.live.values():
            yield from _files(child)
