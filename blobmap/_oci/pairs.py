"""Two trees walked side by side: each path of either, with what both have there.

Directories come before what is in them, and names in the order of their bytes; a name that is
gone stands where its whiteout will. So the order is that of the members of the layer.

A name that is gone and too long for a whiteout, ".wh." before it, makes its directory
*opaque*: what the parent has there counts for nothing, and all that the child has is new.

No walk recurses: memory is for the names of the directories on the way to where it is.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blobmap._oci.tree import NAME_SIZE_MAX, Path, shown
from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator

    from blobmap._oci.side import Side

HIDDEN: Final = b".wh."
OPAQUE: Final = b".wh..wh..opq"


@dataclass(frozen=True, slots=True)
class Pair:
    """One path, and what is there.

    Attributes:
        path: Where, below the root.
        child: What the child has there; None if it is gone.
        parent: What the parent has there, or None.
        opaque: Whether it is a directory of which nothing of the parent's is kept.
    """

    path: Path
    child: os.stat_result | None
    parent: os.stat_result | None
    opaque: bool = False


def walk(child: Side, parent: Side | None) -> Iterator[Pair]:
    """Yield a pair for the root, and for each path that the child has or that is gone.

    Of a directory that is gone, or that gave way to something else, only itself is told.

    Raises:
        InvalidArgument: A name in either tree starts as the names of whiteouts do.
    """
    pending: list[tuple[Path, bool, bool]] = [((), True, parent is not None)]
    while pending:
        path, is_there, was_there = pending.pop()
        before = parent.status(path) if parent is not None and was_there else None
        after = child.status(path) if is_there else None
        if after is None or not stat.S_ISDIR(after.st_mode):
            yield Pair(path, after, before)
            continue
        names = set(child.names(path))
        base = before is not None and stat.S_ISDIR(before.st_mode)
        old = set(parent.names(path)) if parent is not None and base else set()
        _refuse_hidden(path, names | old)
        gone = old - names
        opaque = any(len(HIDDEN + name) > NAME_SIZE_MAX for name in gone)
        if opaque:
            gone, old = set(), set()
        order = [(name, name) for name in names] + [(HIDDEN + name, name) for name in gone]
        order.sort(reverse=True)
        yield Pair(path, after, before, opaque)
        pending += [((*path, name), name in names, name in old) for _, name in order]


def _refuse_hidden(path: Path, names: set[bytes]) -> None:
    for name in sorted(names):
        if name.startswith(HIDDEN):
            raise InvalidArgument(
                f"{shown((*path, name))}: no layer can hold a name that starts with .wh., for "
                "that hides what is there; rename it"
            )
