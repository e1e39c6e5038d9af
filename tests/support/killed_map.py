"""Processes that work on a map in a real directory and end at a given change to the disk.

    python -m support.killed_map BASE FIRST LAST STEP

For each number from FIRST to LAST, STEP apart, a process of its own plays the steps of
`map_workload` in the directory BASE/number and ends by `os._exit` right before the change of
that number. The number of the step in which that was is printed behind it; a process that
needs fewer changes closes the map and prints how many steps there are.
"""

from __future__ import annotations

import itertools
import os
import sys
from pathlib import Path

from support.map_model import Clock
from support.map_workload import WORKLOAD, play

import blobkv
import blobmap
from blobmap._map.work import Work
from blobmap.local import LocalContent, NativeSnapshotter
from blobmap.snapshotter import BlobSnapshotter

_CHANGES = {
    *("fdatasync", "fsync", "ftruncate", "link", "mkdir", "open", "pwrite", "rename", "rmdir"),
    *("syncfs", "unlink", "utime", "write"),
}
_FOLDERS = tuple(
    str(Path(str(package.__file__)).parent / folder)
    for package, folder in ((blobkv, "_engine"), (blobmap, "local"))
)


def open_at(root: Path, clock: Clock) -> BlobSnapshotter:
    """Open the map over the embedded snapshotter and content store in that directory."""
    content = LocalContent(root / "content")
    inner = NativeSnapshotter(root / "native")
    return BlobSnapshotter(
        inner, content, root / "map", close_content=True, background=False, clock=clock
    )


def live(root: Path, number: int) -> None:
    """Play the steps, and end at that change."""
    done = 0
    target = open_at(root, clock := Clock())
    changes = itertools.count(1)

    def count(frame, event, called):  # noqa: ANN001, ANN202  # As `sys.setprofile` calls it.
        if (
            event == "c_call"
            and called.__name__ in _CHANGES
            and frame.f_code.co_filename.startswith(_FOLDERS)
            and next(changes) == number
        ):
            end(number, done)

    works: dict[str, Work] = {}
    sys.setprofile(count)
    for played in WORKLOAD:
        play(target, clock, works, played)
        done += 1
    sys.setprofile(None)
    target.close()
    end(number, done)


def end(number: int, done: int) -> None:
    os.write(1, f"{number} {done}\n".encode())
    os._exit(0)


def main(base: str, first: int, last: int, step: int) -> None:
    for number in range(first, last + 1, step):
        child = os.fork()
        if not child:
            try:
                live(Path(base) / str(number), number)
            finally:
                # Only an error comes here; its traceback is printed by whoever sees the code.
                sys.excepthook(*sys.exc_info())  # type: ignore[arg-type]
                os._exit(1)
        _, status = os.waitpid(child, 0)
        if status:
            sys.exit(f"the process to end at change {number} failed")


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
