"""A snapshot's tree, as its mounts show it: the one place where the suites mount anything.

One bind mount shows what its source holds, so the source stands for it, and nothing need be
mounted. Whatever else a snapshotter answers is mounted, which takes root; so is a bind of
which it matters that it cannot be written to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import machine, volumes

from blobmap.contracts import Mount


@contextmanager
def tree_of(mounts: Sequence[Mount], directory: Path) -> Iterator[Path]:
    """Have the tree at a path: where it is bound from, or mounted below `directory`."""
    if [mount.type for mount in mounts] == ["bind"]:
        yield Path(mounts[0].source)
        return
    with mounted(mounts, directory) as path:
        yield path


@contextmanager
def mounted(mounts: Sequence[Mount], directory: Path) -> Iterator[Path]:
    """Have the mounts mounted, one after the other, in a new directory below `directory`."""
    machine.require_mounts()
    root = Path(tempfile.mkdtemp(dir=directory))
    targets: list[Path] = []
    try:
        for mount in mounts:
            target = root / mount.target.lstrip("/")
            _mount(mount, target)
            targets.append(target)
        yield root
    finally:
        for target in reversed(targets):
            machine.run("umount", target)
        root.rmdir()


def _mount(mount: Mount, target: Path) -> None:
    try:
        if mount.type == "bind":
            machine.run("mount", "--rbind", mount.source, target)
            if "ro" in mount.options:
                # The kernel makes a bind read-only in a second step only.
                machine.run("mount", "-o", "remount,bind,ro", target)
        else:
            options = ["-o", ",".join(mount.options)] if mount.options else []
            machine.run("mount", "-t", mount.type, *options, mount.source, target)
    except OSError as error:
        if not volumes.refused(str(error)):
            raise
        pytest.skip(f"this machine does not let root mount: {error}")
