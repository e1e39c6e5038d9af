"""The snapshotters that keep trees in a directory, so that a test can run over each of them.

    @pytest.fixture(params=KINDS)
    def kind(request, tmp_path): return local_kind(request.param, tmp_path)

Whatever the kind, `seen` shows the tree of a snapshot: where it is a bind by its source, else
by a mount, which skips the test where none can be made.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import machine

from blobmap.contracts import Snapshotter
from blobmap.local import NativeSnapshotter, OverlaySnapshotter, mounted

KINDS = {"native": NativeSnapshotter, "overlay": OverlaySnapshotter}
Local = NativeSnapshotter | OverlaySnapshotter
LocalKind = type[NativeSnapshotter] | type[OverlaySnapshotter]


def require_overlays(place: Path) -> None:
    """Skip the test unless overlays can be mounted there.

    In CI, root must be able to wherever mount(8) is: what a machine forbids even root, as a
    container does, skips the test; a check that is wrong must not.
    """
    reason = OverlaySnapshotter.obstacle(place)
    if reason is None:
        return
    if "CI" in os.environ and os.geteuid() == 0 and can_mount(place):
        pytest.fail(f"mount(8) can mount overlays here: {reason}")
    pytest.skip(f"no overlay can be mounted here: {reason}")


def can_mount(place: Path) -> bool:
    """Return whether mount(8) mounts an overlay of directories in `place`."""
    parts = [place / f"probe-{name}" for name in ("lower", "upper", "work", "mount")]
    for part in parts:
        part.mkdir()
    lower, upper, work, target = parts
    try:
        options = f"lowerdir={lower},upperdir={upper},workdir={work}"
        machine.run("mount", "-t", "overlay", "-o", options, "overlay", target)
        machine.run("umount", target)
    except OSError:
        return False
    finally:
        for part in parts:
            shutil.rmtree(part)
    return True


def kind_of(name: str, place: Path) -> LocalKind:
    """Return the class of that name; skip the test where its trees cannot be seen."""
    if name == "overlay":
        require_overlays(place)
    return KINDS[name]


@contextmanager
def seen(snapshotter: Snapshotter, key: str) -> Iterator[Path]:
    """Have the tree of an active snapshot or a view in a directory."""
    with mounted(snapshotter.mounts(key)) as path:
        yield Path(path)
