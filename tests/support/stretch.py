"""A stretch of time, to tell whether what happened in it is recorded as such."""

from __future__ import annotations

from datetime import datetime
from types import TracebackType
from typing import Self

from blobmap.clock import utc_now


class Window:
    """The time that a with-block takes; `time in window` once it has ended."""

    def __init__(self) -> None:
        self._began = self._ended = utc_now()

    def __enter__(self) -> Self:
        self._began = utc_now()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._ended = utc_now()

    def __contains__(self, time: datetime | None) -> bool:
        return time is not None and self._began <= time <= self._ended
