"""Directory trees, told so that two can be compared."""

from __future__ import annotations

import os
import stat
from pathlib import Path


def describe(path: Path) -> dict[str, tuple[object, ...]]:
    """Return what is to be equal of every path, hard links as the first path of their group."""
    described: dict[str, tuple[object, ...]] = {}
    first: dict[int, str] = {}
    for directory, names, files in os.walk(path):
        for name in sorted([*names, *files, "."]):
            full = Path(directory, name)
            status = full.lstat()
            relative = os.path.normpath(full.relative_to(path))
            described[relative] = (
                oct(status.st_mode),
                status.st_uid,
                status.st_gid,
                status.st_rdev,
                status.st_mtime_ns,
                first.setdefault(status.st_ino, relative) if not full.is_dir() else None,
                str(full.readlink()) if full.is_symlink() else None,
                full.read_bytes() if stat.S_ISREG(status.st_mode) else None,
            )
    return described


def without_times(path: Path) -> dict[str, tuple[object, ...]]:
    """Describe the tree as `describe` does, but for its modification times."""
    return {name: (*row[:4], *row[5:]) for name, row in describe(path).items()}
