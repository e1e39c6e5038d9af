"""What the fakes share: a hook around every call, a clock that counts, and being closed."""

from __future__ import annotations

import functools
import itertools
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

from blobmap.errors import FailedPrecondition

Hook = Callable[[str, str, str], None]
Clock = Callable[[], datetime]

P = ParamSpec("P")
R = TypeVar("R")


def counting_clock() -> Clock:
    """Return a clock that starts at 2000-01-01 and is a second later at each call."""
    seconds = itertools.count(1)
    return lambda: datetime(2000, 1, 1, tzinfo=UTC) + timedelta(seconds=next(seconds))


def no_hook(moment: str, call: str, key: str) -> None:
    """Do nothing."""


class Hooked:
    """What both fakes share: the hook, the clock, the lock, and being closed."""

    def __init__(self, *, clock: Clock | None = None, hook: Hook = no_hook) -> None:
        self.hook = hook
        self.closed = False
        self._clock = clock or counting_clock()
        self._lock = threading.RLock()

    def close(self) -> None:
        self.closed = True

    def reopen(self) -> None:
        """Undo `close`: the same state, as after a restart."""
        self.closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _require_open(self) -> None:
        if self.closed:
            raise FailedPrecondition(f"this {type(self).__name__} is closed")


def keyed(
    method: Callable[Concatenate[Any, str, P], R],
) -> Callable[Concatenate[Any, str, P], R]:
    """Run a call about one key inside the hook, and under the fake's lock."""

    @functools.wraps(method)
    def call(self: Any, key: str, /, *args: P.args, **kwargs: P.kwargs) -> R:
        return hooked(self, method.__name__, key, lambda: method(self, key, *args, **kwargs))

    return call


def hooked(fake: Hooked, call: str, key: str, method: Callable[[], R]) -> R:
    fake.hook("before", call, key)
    with fake._lock:
        fake._require_open()
        result = method()
    fake.hook("after", call, key)
    return result
