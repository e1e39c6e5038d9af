"""Keeping work in the background out of the way of commits, within one process.

A thread that computes gives up the interpreter only when another has waited for it for a
switch interval, 5 ms, and a commit waits for it once for each of its system calls. So work
that is done in this process is cut into slices, and sleeps between them: then whoever waits
has the interpreter at once. (To sleep for 0 seconds does not hand it over.)
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

_SLICE_NS: Final = 1_000_000
_PAUSE_SECONDS: Final = 0.000_05


class Pace:
    """Called between the steps of some work; sleeps when a slice of it is over.

    Args:
        check: Called at each step; raises to end the work.

    Cost: a slice of 1 ms, then a pause of 0.05 ms, which becomes about 0.1.
    """

    def __init__(self, check: Callable[[], None]) -> None:
        self._check = check
        self._since = time.monotonic_ns()

    def __call__(self) -> None:
        """End a slice that has been long enough."""
        self._check()
        if time.monotonic_ns() - self._since >= _SLICE_NS:
            time.sleep(_PAUSE_SECONDS)
            self._since = time.monotonic_ns()
