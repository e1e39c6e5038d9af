"""What `keys`, `values`, and `items` return: a part of a mapping, read when it is looped over.

In an update each loop, each `len`, and each `in` sees the changes made so far.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, ValuesView
from operator import itemgetter
from typing import TYPE_CHECKING, Final

from blobkv.cursor import as_key, bounds

if TYPE_CHECKING:
    from blobkv.cursor import KeyRange, Pair

_KEY: Final = itemgetter(0)
_VALUE: Final = itemgetter(1)


class _Span:
    """The keys in [start, stop) of a mapping that start with a prefix."""

    def __init__(
        self,
        entries: KeyRange,
        prefix: bytes,
        start: bytes | None,
        stop: bytes | None,
        *,
        reverse: bool,
    ) -> None:
        self._entries = entries
        self._start, self._stop = bounds(prefix, start, stop)
        self._reverse = reverse
        entries._check_open()

    def __len__(self) -> int:
        return self._entries._count(self._start, self._stop)

    def __repr__(self) -> str:
        return f"<blobkv.{type(self).__name__} of {self._entries!r}>"

    def _pairs(self, *, backward: bool = False) -> Iterator[Pair]:
        reverse = self._reverse is not backward
        return self._entries._pairs(self._start, self._stop, reverse=reverse)

    def _get(self, key: object) -> bytes | None:
        """Return the value of a key in the span; None where there is none."""
        found = as_key(key)
        if found is None or found < self._start:
            return None
        return self._entries.get(found) if self._stop is None or found < self._stop else None


class Keys(_Span, KeysView[bytes]):
    """The keys of a span, in key order."""

    def __iter__(self) -> Iterator[bytes]:
        return map(_KEY, self._pairs())

    def __reversed__(self) -> Iterator[bytes]:
        return map(_KEY, self._pairs(backward=True))

    def __contains__(self, key: object) -> bool:
        return self._get(key) is not None


class Values(_Span, ValuesView[bytes]):
    """The values of a span, in the order of its keys."""

    def __iter__(self) -> Iterator[bytes]:
        return map(_VALUE, self._pairs())

    def __reversed__(self) -> Iterator[bytes]:
        return map(_VALUE, self._pairs(backward=True))

    def __contains__(self, value: object) -> bool:
        return any(value == found for found in self)


class Items(_Span, ItemsView[bytes, bytes]):
    """The pairs of a span, in key order."""

    def __iter__(self) -> Iterator[Pair]:
        return self._pairs()

    def __reversed__(self) -> Iterator[Pair]:
        return self._pairs(backward=True)

    def __contains__(self, pair: object) -> bool:
        if not isinstance(pair, tuple) or len(pair) != 2:
            return False
        found = self._get(pair[0])
        return found is not None and found == pair[1]
