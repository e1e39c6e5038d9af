"""Photographs of a directory before every change to it: what a kill there would leave.

    with photographs(root, album) as photos:
        ...                         # the operation under test, which succeeds
    for photo in photos:            # each is a copy of root at one moment
        ...                         # open it, and check what must always hold

A kill loses nothing that a system call did, so the directory as it stood before each call
that changes something, and after the last, is every state a kill can leave. The calls are
caught where Python makes them, in the module `os`; only those of the thread that takes the
photographs count. Calls that only make things durable change nothing a kill could show.
"""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

CHANGES = (
    "chmod",
    "chown",
    "copy_file_range",
    "fchmod",
    "ftruncate",
    "link",
    "mkdir",
    "mkfifo",
    "mknod",
    "open",
    "pwrite",
    "rename",
    "replace",
    "rmdir",
    "setxattr",
    "symlink",
    "truncate",
    "unlink",
    "utime",
    "write",
)


@contextmanager
def photographs(root: Path, album: Path) -> Iterator[list[Path]]:
    """Copy `root` into `album` before each change made within the with-block, and after."""
    photos: list[Path] = []
    photographer = threading.get_ident()
    busy = False

    def photograph() -> None:
        nonlocal busy
        busy = True
        photo = album / f"{len(photos):04}"
        shutil.copytree(root, photo, symlinks=True)
        photos.append(photo)
        busy = False

    def watched(call: Callable[..., Any]) -> Callable[..., Any]:
        def changing(*args: Any, **kwargs: Any) -> Any:
            if not busy and threading.get_ident() == photographer:
                photograph()
            return call(*args, **kwargs)

        return changing

    with ExitStack() as patches:
        for name in CHANGES:
            if hasattr(os, name):
                patches.enter_context(mock.patch.object(os, name, watched(getattr(os, name))))
        yield photos
    photograph()
