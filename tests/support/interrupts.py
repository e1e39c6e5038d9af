"""Ctrl-C wherever the interpreter would take one: counted in one run, struck in the next.

CPython looks for signals as a Python function begins, and as a call of a C function returns;
a profile function is called at exactly these places. (It looks at the end of a loop's body,
too, which is not tried here.) What a signal handler raises comes out there, so raising from
the profile function is the same as a signal that came at the worst moment.
"""

from __future__ import annotations

import gc
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import sortedcontainers

import blobkv

SOURCES = tuple(str(Path(made.__file__).parent) for made in (blobkv, sortedcontainers))
SIMULATOR = str(Path(SOURCES[0], "testing"))


class Interrupts:
    """Places in the code of blobkv, and of what it uses, where an interrupt may come.

    Args:
        strike_at: The place that is interrupted, counted from 1; None for none.
        first: Called there before KeyboardInterrupt is raised.

    Attributes:
        met: How many places were met.
    """

    def __init__(
        self, strike_at: int | None = None, first: Callable[[], object] = bool
    ) -> None:
        self.met = 0
        self._strike_at = strike_at
        self._first = first

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Watch this thread within the block.

        Nothing is collected there: a generator that an earlier run left, and that is closed
        in passing, is a place, too, and drops the interrupt.
        """
        gc.disable()
        sys.setprofile(self._meet)
        try:
            yield
        finally:
            sys.setprofile(None)
            gc.enable()

    def _meet(self, frame: FrameType, event: str, _: object) -> None:
        if event not in {"call", "c_return"} or not _is_a_place(frame):
            return
        self.met += 1
        if self.met == self._strike_at:
            self._first()
            raise KeyboardInterrupt


def _is_a_place(frame: FrameType) -> bool:
    source = frame.f_code.co_filename
    return source.startswith(SOURCES) and not source.startswith(SIMULATOR)
