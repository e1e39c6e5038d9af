"""Locks by name come free, even where an interrupt cut their taking or giving back short."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import FrameType

import pytest

from blobmap import locks
from blobmap.locks import Locks

NAMES = (locks.image("i"), locks.snapshot("s"), locks.blob("b"))
LIMIT_SECONDS = 10


class Strike:
    """Raises KeyboardInterrupt at the place of that number in the module of locks."""

    def __init__(self, at: int) -> None:
        self._left = at

    def meet(self, frame: FrameType, event: str, _called: object) -> None:
        """Count a place where CPython would take a signal: for `sys.setprofile`."""
        if Path(frame.f_code.co_filename) != Path(locks.__file__):
            return
        if event in {"call", "c_return"}:
            self._left -= 1
            if self._left == 0:
                raise KeyboardInterrupt


def interrupted(table: Locks, at: int) -> bool:
    """Hold all names, with an interrupt at that place; return whether there is such a place."""
    sys.setprofile(Strike(at).meet)
    try:
        with table.hold(*NAMES):
            pass
    except KeyboardInterrupt:
        return True
    finally:
        sys.setprofile(None)
    return False


def hold_all(table: Locks) -> None:
    with table.hold(*NAMES):
        pass


def test_a_lock_whose_holder_was_interrupted_can_be_had_again() -> None:
    at = 1
    while interrupted(table := Locks(), at):
        # By its own thread first, which frees what the interrupt left; then by any other.
        hold_all(table)
        with ThreadPoolExecutor(1) as pool:
            pool.submit(hold_all, table).result(LIMIT_SECONDS)
        at += 1

    assert at > len(NAMES)


def test_a_lock_excludes_others_after_an_interrupt() -> None:
    table = Locks()
    at = 1
    while interrupted(table, at):
        at += 1

    with ThreadPoolExecutor(1) as pool:
        with table.hold(*NAMES):
            other = pool.submit(hold_all, table)
            with pytest.raises(TimeoutError):
                other.result(0.05)
        other.result(LIMIT_SECONDS)
