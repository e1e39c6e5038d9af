"""Which snapshotter a root has: the one that is there, or, for a new root, the one wanted.

    ROOT/native/        a `NativeSnapshotter`
    ROOT/overlay/       an `OverlaySnapshotter`

A root has one of them for good: snapshots do not move from one to the other.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blobmap.errors import FailedPrecondition, InvalidArgument, NotImplementedHere
from blobmap.local.native import NativeSnapshotter
from blobmap.local.overlay import OverlaySnapshotter

if TYPE_CHECKING:
    from pathlib import Path

AUTO: Final = "auto"
DEFAULT: Final = "native"
SNAPSHOTTERS: Final = {"native": NativeSnapshotter, "overlay": OverlaySnapshotter}


def choose(root: Path, wanted: str | None = None) -> str:
    """Return the name of the snapshotter in the directory `root`, or of the one to make there.

    Args:
        root: An existing directory.
        wanted: Its name, or "auto": any that is there, and in a new root overlay where this
            machine can mount overlays, else native. None: any that is there, or native.

    Raises:
        InvalidArgument: There is no snapshotter of that name.
        FailedPrecondition: Another one is there.
        NotImplementedHere: Overlay is wanted in a new root, and cannot be mounted there.

    Cost: of a new root where overlay or "auto" is wanted, a mount.
    """
    if wanted not in {None, AUTO, *SNAPSHOTTERS}:
        names = ", ".join((AUTO, *SNAPSHOTTERS))
        raise InvalidArgument(f"no snapshotter is called {wanted!r}; there are: {names}")
    there = [name for name in SNAPSHOTTERS if (root / name).is_dir()]
    if len(there) > 1:
        raise FailedPrecondition(
            f"{root}: has snapshots of {' and of '.join(there)}; move one of them away"
        )
    if not there:
        return _choose_new(root, wanted)
    if wanted not in {None, AUTO, there[0]}:
        raise FailedPrecondition(
            f"{root}: its snapshots are {there[0]}, not {wanted}; "
            f"say {there[0]} or nothing, or give another root"
        )
    return there[0]


def _choose_new(root: Path, wanted: str | None) -> str:
    if wanted is None:
        return DEFAULT
    if wanted == "native":
        return wanted
    obstacle = OverlaySnapshotter.obstacle(root)
    if obstacle is None:
        return "overlay"
    if wanted == AUTO:
        return "native"
    raise NotImplementedHere(f"{root}: no overlay can be mounted here: {obstacle}")
