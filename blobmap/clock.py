"""Time that never repeats: what tells two things of the same name apart.

A snapshot removed and made again under its old key is known by its new creation time, so no
two times given out may be equal, however coarse the clock is and even if it is set back.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Final

Clock = Callable[[], datetime]
"""The time now, in UTC."""

_TICK: Final = timedelta(microseconds=1)


def utc_now() -> datetime:
    """Return the time now, in UTC."""
    return datetime.now(UTC)


class Ticker:
    """A clock that moves forward with every call. Safe to call from many threads.

    Invariants:

    * Every time returned is later than all before it, than `floor`, and than `after`.
    * While the clock itself moves forward, the time returned is the clock's own.
    """

    def __init__(self, clock: Clock = utc_now, floor: datetime | None = None) -> None:
        self._clock = clock
        self._last = floor
        self._lock = threading.Lock()

    def now(self, after: datetime | None = None) -> datetime:
        """Return the time now, or a tick past the last one if the clock has not moved.

        Args:
            after: A time that was given out before, perhaps by an earlier clock.
        """
        with self._lock:
            now = self._clock()
            for past in (self._last, after):
                if past is not None and now <= past:
                    now = past + _TICK
            self._last = now
            return now
