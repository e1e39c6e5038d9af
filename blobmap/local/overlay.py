"""A snapshotter that lays trees one over the other: it copies nothing.

    ROOT/snapshots/<id>/fs          what a snapshot changes of its parent
    ROOT/snapshots/<id>/work        what overlayfs needs beside it, while the snapshot is active

What a snapshot shows is its own `fs` over those of its parents. An active snapshot without a
parent, and a view of one that has none, are binds of an `fs`; all others are overlay mounts,
and the kernel writes what is removed as whiteouts, and what hides all below it as opaque
directories. Such a mount has no directory that can be looked into before it is mounted:
`blobmap.local.mounting` does that, or the caller.

The mount's paths are absolute, as containerd's are. The kernel takes one page of them, some
sixty parents where the root has a long name: who has more makes them relative to the
directory they have in common, as `mounting` does, and comes to some five hundred.

As with any overlay, a rename of a parent's directory fails with EXDEV, upon which mv(1) copies
it; and a parent's file parts from its other names when one of them is changed or linked anew.

A tree is measured alone: it holds what its snapshot changed, and the parents hold the rest.
Whiteouts count as what they are, inodes; the kernel may give all of a tree one inode.

All else is in `blobmap.local.snapshotter`.

Source: containerd's overlay snapshotter (plugins/snapshots/overlay); the kernel's
Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import os
import stat
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blobmap.clock import Clock, utc_now
from blobmap.contracts import Kind, Mount
from blobmap.errors import BlobMapError, InvalidArgument
from blobmap.local import tree
from blobmap.local.durable import resolved, sync_directory
from blobmap.local.mounting import held
from blobmap.local.snapshotter import LocalSnapshotter

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobmap.contracts import Usage

_FS: Final = "fs"
_WORK: Final = "work"
_ROOT_MODE: Final = 0o755

# What has a meaning of its own among a mount's options.
_SPECIAL: Final = frozenset(":,\\")
_PARAMETERS: Final = Path("/sys/module/overlay/parameters")
_ID_MAP: Final = Path("/proc/self/uid_map")
_ALL_IDS: Final = ["0", "0", str(2**32 - 1)]
_OPAQUE: Final = ("trusted.overlay.opaque", "user.overlay.opaque")


class OverlaySnapshotter(LocalSnapshotter):
    """The overlay snapshotter under one root. Safe to call from many threads.

    It mounts nothing itself, so it works wherever directories can be made; whether somebody
    can mount what it returns, `obstacle` tells. A prepare costs a few directories, whatever
    the parent holds.

    Args:
        root: The directory; made if it does not exist.
        clock: Tells the time; for tests.
        lock_timeout: How long to wait for another who has it open, in seconds.

    Raises:
        blobkv.LockedError: Another has it open.
        FailedPrecondition: Another version of blobmap made it, or another snapshotter.
        InvalidArgument: The root's path holds ":", ",", or a backslash, which mean something
            else in the options of a mount.

    Cost: O(snapshots), and the size of the trees that a crash left, which are removed.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, clock: Clock = utc_now, lock_timeout: float = 0.0
    ) -> None:
        _require_plain(resolved(root))
        super().__init__(
            root, _Overlays(_usual_options()), clock=clock, lock_timeout=lock_timeout
        )

    @staticmethod
    def obstacle(root: str | os.PathLike[str]) -> str | None:
        """Return why this process cannot mount overlays under `root`, or None if it can.

        It tries: one overlay is mounted there, a file and a directory in it are replaced, and
        the marks are looked for that this must leave. If there is no such directory yet, that
        is done in the next one above it.

        Cost: a mount, and a few files made and removed.
        """
        if sys.platform != "linux":
            return "overlays are a file system of Linux"
        place = resolved(root)
        try:
            _require_plain(place)
            while not place.is_dir():
                place = place.parent
            with tempfile.TemporaryDirectory(prefix="overlay-", dir=place) as directory:
                return _try(Path(directory))
        except (BlobMapError, OSError) as error:
            return str(error)


class _Overlays:
    """Trees that hold what their snapshots change; see `snapshotter.Trees`.

    Args:
        options: What every overlay is mounted with.
    """

    name = "overlay"

    def __init__(self, options: tuple[str, ...]) -> None:
        self._options = options

    def make(self, path: Path, below: Sequence[Path], kind: Kind) -> None:
        """Make an empty directory with the attributes of the parent's root."""
        path.mkdir(mode=0o700)
        own = path / _FS
        if below:
            # The root of an overlay is shown with the attributes of its upper directory.
            tree.copy_root(str(below[0] / _FS), str(own))
        else:
            own.mkdir()
            own.chmod(_ROOT_MODE)
        if kind is Kind.ACTIVE:
            (path / _WORK).mkdir(mode=0o700)
        sync_directory(own)
        sync_directory(path)

    def mounts(self, path: Path, below: Sequence[Path], kind: Kind) -> list[Mount]:
        """Return a bind where one directory shows all there is, else an overlay."""
        lower = [str(tree / _FS) for tree in below]
        if kind is Kind.ACTIVE and not lower:
            return [Mount("bind", str(path / _FS), options=("rbind", "rw"))]
        if kind is Kind.ACTIVE:
            return [_overlay(self._options, lower, path / _FS, path / _WORK)]
        if len(lower) <= 1:
            only = lower[0] if lower else str(path / _FS)
            return [Mount("bind", only, options=("rbind", "ro"))]
        return [_overlay(self._options, lower)]

    def measure(self, path: Path, below: Sequence[Path]) -> Usage:  # noqa: ARG002
        """Count what the tree holds."""
        return tree.measure(str(path / _FS))

    def top(self, path: Path) -> Path:
        """Return what others are laid over."""
        return path / _FS

    def leftovers(self, path: Path) -> list[str]:
        """Return all but the tree itself."""
        return [name for name in os.listdir(path) if name != _FS]  # noqa: PTH208


def _overlay(
    options: Sequence[str],
    lower: Sequence[str],
    upper: Path | None = None,
    work: Path | None = None,
) -> Mount:
    own = () if upper is None else (f"workdir={work}", f"upperdir={upper}")
    return Mount("overlay", "overlay", options=(*options, *own, f"lowerdir={':'.join(lower)}"))


def _usual_options() -> tuple[str, ...]:
    """Return the options that this kernel has, and this process needs, for any overlay."""
    options = []
    if _PARAMETERS.joinpath("index").exists():
        # With an index the kernel may refuse a directory that another overlay uses already.
        options.append("index=off")
    if _ID_MAP.exists() and _ID_MAP.read_text(encoding="ascii").split() != _ALL_IDS:
        # Within a user namespace nobody may set the attributes that overlayfs uses else.
        options.append("userxattr")
    return tuple(options)


def _require_plain(root: Path) -> None:
    found = sorted(_SPECIAL.intersection(str(root)))
    if found:
        raise InvalidArgument(
            f"{root}: holds {' and '.join(found)}, which the options of an overlay cannot; "
            "give another root"
        )


def _try(directory: Path) -> str | None:
    """Mount an overlay of directories in `directory`; return what is wrong with it, if any."""
    lower, upper, work = (directory / name for name in ("lower", "upper", "work"))
    for path in (lower, upper, work, lower / "replaced"):
        path.mkdir()
    (lower / "removed").touch()
    with held([_overlay(_usual_options(), [str(lower)], upper, work)]) as root:
        Path(root, "removed").unlink()
        Path(root, "replaced").rmdir()
        Path(root, "replaced").mkdir()
    left = (upper / "removed").lstat()
    if not stat.S_ISCHR(left.st_mode) or left.st_rdev != 0:
        return f"{directory}: the file system makes no whiteouts"
    if not set(_OPAQUE).intersection(os.listxattr(upper / "replaced")):
        return f"{directory}: the file system keeps no mark of an opaque directory"
    return None
