"""Which sequences are still being read, so that nothing a reader needs is forgotten.

A view may end in the middle of anything, when the interpreter drops it, so ending takes no
lock: it leaves a note, and the next call that holds the state lock reads the notes.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator


class Reading(Protocol):
    """Something that reads one state of the store."""

    sequence: int


class Views:
    """The open views, by age. Every method but `release` is called under the state lock."""

    def __init__(self) -> None:
        # In the order of their sequences, since each new view reads the newest.
        self._open: dict[Reading, None] = {}
        self._ended: deque[Reading] = deque()

    def add(self, view: Reading) -> None:
        """Note that `view` is open. O(1)."""
        self._drain()
        self._open[view] = None

    def release(self, view: Reading) -> None:
        """Note that `view` has ended. Takes no lock; idempotent. O(1)."""
        self._ended.append(view)

    def oldest(self) -> int | None:
        """Return the sequence of the oldest open view, or None. O(1)."""
        self._drain()
        first = next(iter(self._open), None)
        return None if first is None else first.sequence

    def __len__(self) -> int:
        self._drain()
        return len(self._open)

    def __iter__(self) -> Iterator[Reading]:
        self._drain()
        return iter(list(self._open))

    def _drain(self) -> None:
        while self._ended:
            self._open.pop(self._ended.popleft(), None)
