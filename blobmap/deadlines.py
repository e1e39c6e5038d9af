"""Deadlines: how long a caller is willing to wait, for whatever they call.

    with blobmap.deadline(2.0):
        snapshotter.set_blob(key, digest)

A deadline is the calling thread's own (or asyncio task's), and holds for every call inside the
with-block: whoever waits for a lock there waits no longer than until then, and implementations
of the protocols that call a server pass on what `remaining` says. Work that has begun is not
broken off: a deadline bounds waiting, it does not undo.

Source: the context that containerd's interfaces hand down, as Trio's cancel scopes spell it.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Iterator

_END: Final[ContextVar[float | None]] = ContextVar("blobmap_deadline", default=None)


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Let no call inside the with-block wait beyond `seconds` from now.

    Nested, the earliest counts.

    Raises:
        InvalidArgument: `seconds` is negative, or not a number.
    """
    if not seconds >= 0:
        raise InvalidArgument(f"a deadline in {seconds!r} seconds: give 0 or more")
    end = time.monotonic() + seconds
    outer = _END.get()
    token = _END.set(end if outer is None else min(end, outer))
    try:
        yield
    finally:
        _END.reset(token)


def remaining() -> float | None:
    """Return the seconds that are left, 0.0 if none are, or None if there is no deadline."""
    end = _END.get()
    return None if end is None else max(end - time.monotonic(), 0.0)
