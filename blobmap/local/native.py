"""A snapshotter that copies: it needs no mount, no privileges, and no special file system.

    ROOT/snapshots/<id>/            the tree of an active or committed snapshot

An active snapshot starts as a full copy of its parent's tree, so a tree never depends on
another. Its mount is a bind of its own directory. A view of a committed snapshot has no
tree: its mount is a read-only bind of the parent's, which cannot change, nor go while the
view is its child. Where nothing is ever mounted, the mount's `source` is the tree itself;
who writes into a view's source writes into its parent.

All else is in `blobmap.local.snapshotter`.

Source: containerd's native snapshotter (plugins/snapshots/native). Views without a copy are
this module's own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blobmap.clock import Clock, utc_now
from blobmap.contracts import Kind, Mount
from blobmap.local import tree
from blobmap.local.durable import sync_directory, sync_tree
from blobmap.local.snapshotter import LocalSnapshotter

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from pathlib import Path

    from blobmap.contracts import Usage

_ROOT_MODE: Final = 0o755


class NativeSnapshotter(LocalSnapshotter):
    """The copying snapshotter under one root. Safe to call from many threads.

    A prepare costs a copy of the parent's tree, and its sync; a usage, an lstat of each entry
    of the tree and its parent's, as `tree.measure` compares them.

    Args:
        root: The directory; made if it does not exist.
        clock: Tells the time; for tests.
        lock_timeout: How long to wait for another who has it open, in seconds.

    Raises:
        blobkv.LockedError: Another has it open.
        FailedPrecondition: Another version of blobmap made it, or another snapshotter.

    Cost: O(snapshots), and the size of the trees that a crash left, which are removed.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, clock: Clock = utc_now, lock_timeout: float = 0.0
    ) -> None:
        super().__init__(root, _Copies(), clock=clock, lock_timeout=lock_timeout)


class _Copies:
    """Trees that are copies of their parents' trees, changed; see `snapshotter.Trees`."""

    name = "native"

    def make(self, path: Path, below: Sequence[Path], kind: Kind) -> None:  # noqa: ARG002
        """Copy the parent's tree; without one, make an empty directory."""
        if below:
            tree.copy(str(below[0]), str(path))
            sync_tree(str(path))
        else:
            path.mkdir()
            path.chmod(_ROOT_MODE)
            sync_directory(path)

    def mounts(self, path: Path, below: Sequence[Path], kind: Kind) -> list[Mount]:
        """Return a bind of the tree, or, for a view, a read-only one of the parent's."""
        if kind is Kind.ACTIVE:
            return [Mount("bind", str(path), options=("rbind", "rw"))]
        return [Mount("bind", str(below[0] if below else path), options=("rbind", "ro"))]

    def measure(self, path: Path, below: Sequence[Path]) -> Usage:
        """Compare the tree with the parent's."""
        return tree.measure(str(path), str(below[0]) if below else None)

    def top(self, path: Path) -> Path:
        """Return the tree's directory itself."""
        return path

    def leftovers(self, path: Path) -> list[str]:  # noqa: ARG002
        """Return nothing: a tree is all that there is."""
        return []
