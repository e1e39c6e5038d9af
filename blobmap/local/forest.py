"""The directories under one root that hold trees: named by id, made whole, removed whole.

    ROOT/<id>/              the tree of a snapshot
    ROOT/new-<id>/          a tree being made
    ROOT/rm-<id>.../        a tree being removed

A tree gets its own name when it is whole and durable, and loses it before the first thing in
it is removed. So what stands under a plain id is whole, and what no record names is garbage.
"""

from __future__ import annotations

import logging
import re
import threading
from typing import TYPE_CHECKING, Final

from blobmap.errors import BlobMapError
from blobmap.local import tree
from blobmap.local.durable import sync_directory

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_NEW: Final = "new-"
_REMOVED: Final = "rm-"
_TREE: Final = re.compile(rf"(?:{_REMOVED})?(?:{_NEW})?(?P<id>\d+)(?:-[0-9a-f]+)?")

_LOG: Final = logging.getLogger("blobmap")


class Forest:
    """The trees under one root. Safe to call from many threads.

    Invariants:

    * A tree under a plain id is whole.
    * A tree whose id neither a record nor `_busy` has is garbage; whoever makes or removes one
      has its id in `_busy` meanwhile.

    Args:
        root: An existing directory.
        next_id: The first id to give out; none is given out twice.
    """

    def __init__(self, root: Path, next_id: int) -> None:
        self._root = root
        self._next_id = next_id
        self._busy: set[int] = set()
        self._mutex = threading.Lock()

    def path(self, id_: int) -> Path:
        """Return where the tree of that id is, or would be."""
        return self._root / str(id_)

    def take_id(self) -> int:
        """Return a new id, which is busy until it is released or discarded."""
        with self._mutex:
            id_, self._next_id = self._next_id, self._next_id + 1
            self._busy.add(id_)
            return id_

    def release(self, id_: int) -> None:
        """Say that nobody makes or removes the tree any more."""
        with self._mutex:
            self._busy.discard(id_)

    def grow(self, id_: int, make: Callable[[Path], None]) -> None:
        """Have `make` make a tree, whole and durable, and name it; if it fails, discard it.

        Cost: what `make` costs, and a sync of the directory.
        """
        fresh = self._root / f"{_NEW}{id_}"
        try:
            make(fresh)
            fresh.rename(self.path(id_))
            sync_directory(self._root)
        except (BlobMapError, OSError):
            self.discard(id_)
            raise

    def discard(self, id_: int) -> None:
        """Remove the tree of a busy id, named or not, and release the id."""
        for name in (f"{_NEW}{id_}", str(id_)):
            self._remove(name)
        self.release(id_)

    def reclaim(self, id_: int) -> None:
        """Remove the tree that no record names any more."""
        self._reclaim(id_, str(id_))

    def reclaim_all(self, known: Callable[[], set[int]]) -> None:
        """Remove every tree whose id is neither busy nor known; log what cannot be removed.

        Args:
            known: Returns the ids that records name; called after the names are read.
        """
        # In this order, so that a tree recorded meanwhile is known by one or the other.
        found = [
            match for path in self._root.iterdir() if (match := _TREE.fullmatch(path.name))
        ]
        with self._mutex:
            kept = set(self._busy)
        kept |= known()
        for match in found:
            if int(match["id"]) not in kept:
                self._reclaim(int(match["id"]), match[0])

    def prune(self, id_: int, names: list[str]) -> None:
        """Remove these directories from within a tree; log what cannot be removed."""
        for name in names:
            try:
                tree.remove(str(self.path(id_)), name)
            except OSError as error:
                _LOG.warning("%s: left for the next cleanup: %s", self.path(id_) / name, error)

    def _reclaim(self, id_: int, name: str) -> None:
        """Remove a tree, unless another thread is doing so."""
        with self._mutex:
            if id_ in self._busy:
                return
            self._busy.add(id_)
        self._remove(name)
        self.release(id_)

    def _remove(self, name: str) -> None:
        if not (self._root / name).exists():
            return
        aside = name if name.startswith(_REMOVED) else f"{_REMOVED}{name}"
        try:
            (self._root / name).rename(self._root / aside)
            tree.remove(str(self._root), aside)
        except OSError as error:
            _LOG.warning("%s: left for the next cleanup: %s", self._root / name, error)
