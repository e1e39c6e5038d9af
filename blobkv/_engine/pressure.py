"""Slowing commits down, gently and early, when flushes or merges cannot keep pace.

A commit that has to wait for a flush waits for as long as that takes. So before it comes to
that, commits are delayed by their size: a little at first, and the more the further behind the
work in the background is, until what is committed is as much as can be flushed and merged.

Delays are gathered until they are worth a sleep, and one is never long: what is left of it is
slept off by the commits that follow.

Source: RocksDB's delayed write rate.
"""

from __future__ import annotations

import time
from typing import Final

# What a byte costs to flush and to merge, in nanoseconds: half way behind, commits are slowed
# down by as much. Measured: 3 us for an entry of 179 bytes.
_BYTE_NS: Final = 16
_SLEEP_NS_MIN: Final = 1_000_000
_SLEEP_NS_MAX: Final = 50_000_000
# So that the delay of what is altogether behind is long, not endless.
_BEHIND_MAX: Final = 0.99


class Pressure:
    """Delays the commits of one store. Called under its write lock.

    Attributes:
        stalls: How often commits were delayed so far.
        stall_ns: For how long, in all.
    """

    def __init__(self) -> None:
        self.stalls = 0
        self.stall_ns = 0
        self._owed_ns = 0

    def delay(self, size: int, behind: float) -> None:
        """Have commits of `size` bytes wait.

        Args:
            size: Bytes committed since the last call.
            behind: How far the work is behind: 0 not at all, 1 as far as may be.

        Cost: up to 50 ms.
        """
        if behind <= 0:
            self._owed_ns = 0
            return
        behind = min(behind, _BEHIND_MAX)
        self._owed_ns += int(size * _BYTE_NS * behind / (1 - behind))
        if self._owed_ns >= _SLEEP_NS_MIN:
            start = time.monotonic_ns()
            time.sleep(min(self._owed_ns, _SLEEP_NS_MAX) / 1e9)
            self.note(start)

    def note(self, start_ns: int) -> None:
        """Count a wait that began then, by the monotonic clock, and is over now."""
        waited = time.monotonic_ns() - start_ns
        self.stalls += 1
        self.stall_ns += waited
        self._owed_ns = max(self._owed_ns - waited, 0)
