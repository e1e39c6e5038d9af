"""A snapshot's tree, as its mounts show it: the one place where the suites mount anything.

One bind mount shows what its source holds, so the source stands for it, and nothing need be
mounted. Whatever else a snapshotter answers is mounted, which takes root; so is a bind of
which it matters that it cannot be written to.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest
from support import machine, volumes

from blobmap.contracts import Mount

# The options of an overlay that are paths, or several with colons between them.
_PATHS = {"lowerdir", "upperdir", "workdir"}


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
            directory, options = _shortened(mount.options)
            options = ["-o", ",".join(options)] if options else []
            machine.run(
                "mount", "-t", mount.type, *options, mount.source, target, directory=directory
            )
    except OSError as error:
        if not volumes.refused(str(error)):
            raise
        pytest.skip(f"this machine does not let root mount: {error}")


def _shortened(options: Sequence[str]) -> tuple[str | None, list[str]]:
    """Return a directory, and the options with paths relative to it.

    The kernel takes a page of options, which a hundred whole paths do not fit into.
    """
    named = [option.partition("=") for option in options]
    paths = [value.split(":") for name, _, value in named if name in _PATHS]
    if not paths:
        return None, list(options)
    common = os.path.commonpath([str(Path(path).parent) for some in paths for path in some])
    shorter = [
        f"{name}=" + ":".join(os.path.relpath(path, common) for path in value.split(":"))
        if name in _PATHS
        else name + equals + value
        for name, equals, value in named
    ]
    return common, shorter
