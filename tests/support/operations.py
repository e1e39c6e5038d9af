"""What a disk was asked to do, in order: for tests of what must come before what."""

from __future__ import annotations

from typing import NamedTuple

from blobkv.testing import Operation, SimulatedDisk


class Done(NamedTuple):
    """One operation: what it was, and of which file or directory (a rename: its target)."""

    operation: Operation
    path: str


def record(disk: SimulatedDisk) -> list[Done]:
    """Return a list to which every later operation of the disk is added."""
    done: list[Done] = []

    def note(operation: Operation, path: str) -> bool:
        done.append(Done(operation, path))
        return False

    disk.fail(when=note, times=None)
    return done
