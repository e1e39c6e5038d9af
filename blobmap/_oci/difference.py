"""What one tree has that another has not, as the changes that a layer is made of.

A path is changed when the parent has nothing there, or when the two differ in type,
permission bits, owner, device numbers, modification time, extended attributes, a symlink's
target, or a file's size or bytes. (A root's time does not count, for it is that of its making.)

**Bytes decide.** Files that agree in all else are read and compared, unless both are the very
same inode. Trusting size and time would lose changes: builders that aim at the same bytes
each time set every time to the same, and tools restore the time of what they edited. That
costs a pass over both trees, which is the price for losing nothing.

**Hard links.** The names of one file are one group. If any name of it is new or changed, or
the parent groups the names otherwise, the whole group is told: its first name with the bytes,
the others as links to it. So a link never leads to a lower layer, which not everything that
applies layers can do. Finding the groups takes a walk of its own, before the one that tells.

Directories on the way to a change are told as well: who applies a layer alone, apart from
those below, would else make them up.

Source: containerd's fs.Changes and archive.ChangeWriter, which compare bytes only where a
time has no part below the second, and umoci's repack.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blobmap._oci.pairs import HIDDEN, OPAQUE, Pair, walk

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from blobmap._oci.side import Side
    from blobmap._oci.tree import Path

_CHUNK_SIZE: Final = 1 << 20
# What a root without a parent is compared with.
_ROOT: Final = (stat.S_IFDIR | 0o755, 0, 0)

Inode = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Change:
    """One member of a layer.

    Attributes:
        path: Its path.
        status: What is there; None for a whiteout.
        link: For a further name of a file told before, the first; else None.
    """

    path: Path
    status: os.stat_result | None
    link: Path | None = None


@dataclass(slots=True)
class _Groups:
    """The files with several names, in either tree.

    Attributes:
        first: Where each of the child's is met first.
        judged: All of the child's that are in a group here or were in the parent.
        changed: Those of them that are to be told.
    """

    first: dict[Inode, Path] = field(default_factory=dict)
    judged: set[Inode] = field(default_factory=set)
    changed: set[Inode] = field(default_factory=set)


class Difference:
    """What the child has that the parent has not; and what it has no longer.

    Args:
        child: A tree that nobody changes meanwhile.
        parent: Likewise; or None, and all is new.
    """

    def __init__(self, child: Side, parent: Side | None) -> None:
        self._child = child
        self._parent = parent

    def changes(self) -> Iterator[Change]:
        """Yield the changes, in the order of their paths, name by name.

        Raises:
            InvalidArgument: A tree holds a name that starts with ".wh.".
            FailedPrecondition: A file changes while it is read.

        Cost: two walks of both trees; a pass over the bytes of files that agree in all else.
            Memory for the names on the way, and for each file with several names.
        """
        groups = self._groups()
        way: list[Pair] = []
        for pair in walk(self._child, self._parent):
            while way and pair.path[: len(way[-1].path)] != way[-1].path:
                way.pop()
            told = list(self._told(pair, groups))
            if told:
                # The root is told for its own sake only: it is there before any layer.
                yield from (Change(above.path, above.child) for above in way if above.path)
                way.clear()
                yield from told
            elif pair.child is not None and stat.S_ISDIR(pair.child.st_mode):
                way.append(pair)

    def _told(self, pair: Pair, groups: _Groups) -> Iterator[Change]:
        """Yield what is to be told of one path itself."""
        after = pair.child
        if after is None:
            yield Change((*pair.path[:-1], HIDDEN + pair.path[-1]), None)
            return
        inode = _inode(after)
        if inode in groups.judged and not stat.S_ISDIR(after.st_mode):
            first = groups.first.get(inode, pair.path)
            if inode in groups.changed:
                yield Change(pair.path, after, None if first == pair.path else first)
        elif pair.opaque or self._differs(pair):
            yield Change(pair.path, after)
            if pair.opaque:
                yield Change((*pair.path, OPAQUE), None)

    def _groups(self) -> _Groups:
        """Return the files with several names, and which of them are changed.

        One that has the names of several of the parent's is changed. Of several that have
        names of one of the parent's, at most one is not.
        """
        groups = _Groups()
        origins: dict[Inode, Inode] = {}
        heirs: dict[Inode, Inode] = {}
        for pair in walk(self._child, self._parent):
            after, before = pair.child, pair.parent
            if after is None or stat.S_ISDIR(after.st_mode):
                continue
            if after.st_nlink == 1 and (before is None or before.st_nlink == 1):
                continue
            inode = _inode(after)
            groups.first.setdefault(inode, pair.path)
            groups.judged.add(inode)
            if before is None or inode in groups.changed or self._differs(pair):
                groups.changed.add(inode)
                continue
            origin = _inode(before)
            heir = heirs.get(origin)
            if heir is None or heir in groups.changed:
                heirs[origin] = inode
            elif heir != inode:
                groups.changed.add(inode)
            if origins.setdefault(inode, origin) != origin:
                groups.changed.add(inode)
        return groups

    def _differs(self, pair: Pair) -> bool:
        """Return whether the child has at this path what the parent has not."""
        after, before, path = pair.child, pair.parent, pair.path
        assert after is not None
        if not path:
            return self._root_differs(after, before)
        if before is None or self._parent is None:
            return True
        if _inode(after) == _inode(before):
            return False
        if _facts(after) != _facts(before):
            return True
        if self._child.xattrs(path) != self._parent.xattrs(path):
            return True
        if stat.S_ISLNK(after.st_mode):
            return self._child.target(path) != self._parent.target(path)
        return stat.S_ISREG(after.st_mode) and not self._same_bytes(path, after.st_size)

    def _root_differs(self, after: os.stat_result, before: os.stat_result | None) -> bool:
        old = _ROOT if before is None else (before.st_mode, before.st_uid, before.st_gid)
        if (after.st_mode, after.st_uid, after.st_gid) != old:
            return True
        xattrs = {} if self._parent is None else self._parent.xattrs(())
        return self._child.xattrs(()) != xattrs

    def _same_bytes(self, path: Path, size: int) -> bool:
        assert self._parent is not None
        with self._child.open(path) as one, self._parent.open(path) as two:
            offset = 0
            while offset < size:
                data = one.read(_CHUNK_SIZE)
                if not data:
                    raise self._child.changed(path)
                if data != two.read(len(data)):
                    return False
                offset += len(data)
        return True


def _inode(status: os.stat_result) -> Inode:
    return status.st_dev, status.st_ino


def _facts(status: os.stat_result) -> tuple[int, ...]:
    """Return what a layer says of a file and its status tells."""
    kind = stat.S_IFMT(status.st_mode)
    device = status.st_rdev if kind in {stat.S_IFCHR, stat.S_IFBLK} else 0
    size = status.st_size if kind == stat.S_IFREG else 0
    owner = status.st_uid, status.st_gid
    return status.st_mode, *owner, device, size, status.st_mtime_ns
