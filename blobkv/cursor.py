"""A position among ordered keys, moved step by step.

A cursor is *between* keys as much as on one: after a delete it rests where the key was, so
the next step goes to its neighbor and skips nothing. It is before every key, on a key, in a
gap, or past every key; only on a key have `key` and `value` a meaning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from blobkv.errors import UsageError
from blobkv.keys import prefix_end

if TYPE_CHECKING:
    from collections.abc import Iterator

Pair = tuple[bytes, bytes]


class KeyRange(Protocol):
    """What a cursor moves over: the keys of a transaction or of a bucket."""

    def _count(self, start: bytes, stop: bytes | None) -> int: ...

    def _pairs(self, start: bytes, stop: bytes | None, *, reverse: bool) -> Iterator[Pair]: ...

    def _check_open(self) -> None: ...

    def get(self, key: bytes, /) -> bytes | None:
        """Return the key's value, or None."""

    def delete(self, key: bytes) -> None:
        """Delete the key."""


class Cursor:
    """Moves over the keys in [start, stop) that start with a prefix.

    A new cursor has no position: `next` then goes to the first key and `prev` to the last. In
    an update it sees the transaction's own changes, those made since it was opened included.
    Iterating yields `(key, value)` pairs from the position on: first the current pair, unless
    iteration already gave it.

    Not to be shared between threads. Made by `Transaction.cursor` and `Bucket.cursor`.

    Every method raises `ClosedError` once the transaction has ended.
    """

    def __init__(
        self, entries: KeyRange, prefix: bytes, start: bytes | None, stop: bytes | None
    ) -> None:
        self._entries = entries
        self._start, self._stop = bounds(prefix, start, stop)
        self._pair: Pair | None = None
        # Where the cursor rests when it is on no key: steps start from here. None: nowhere yet.
        self._gap: bytes | None = None
        self._past_end = False
        self._given = False
        self._ahead: Iterator[Pair] | None = None

    @property
    def key(self) -> bytes:
        """The key under the cursor.

        Raises:
            UsageError: The cursor is on no key.
        """
        return self._current()[0]

    @property
    def value(self) -> bytes:
        """The value under the cursor, as it was when the cursor came to it.

        Raises:
            UsageError: The cursor is on no key.
        """
        return self._current()[1]

    def first(self) -> bool:
        """Move to the first key; return whether there is one. O(log n)."""
        return self._seek(self._start)

    def last(self) -> bool:
        """Move to the last key; return whether there is one. O(log n)."""
        return self._step_back(self._stop)

    def seek(self, key: bytes) -> bool:
        """Move to the smallest key in range that is at or past `key`.

        Args:
            key: Any bytes; the key need not exist.

        Returns:
            Whether the cursor now rests on a key; if not, it is past every key in range.

        Cost: O(log n), at most one block read a table.
        """
        return self._seek(max(as_bytes(key, "key"), self._start))

    def next(self) -> bool:
        """Move to the next key; return whether there is one.

        Cost: O(1) after another `next`, else O(log n).
        """
        self._entries._check_open()
        if self._past_end:
            return False
        if self._pair is not None:
            position = self._pair[0] + b"\x00"
        else:
            position = self._start if self._gap is None else self._gap
        if self._ahead is None:
            return self._seek(position)
        return self._arrive(next(self._ahead, None), position)

    def prev(self) -> bool:
        """Move to the key before; return whether there is one. O(log n).

        Before the first key, the cursor is on no key, and `next` goes to the first again.
        """
        if self._pair is not None:
            return self._step_back(self._pair[0])
        return self._step_back(self._stop if self._past_end or self._gap is None else self._gap)

    def delete(self) -> None:
        """Delete the key under the cursor, which then rests where the key was.

        Raises:
            UsageError: The cursor is on no key.
            ReadOnlyError: The transaction is a view.
        """
        key = self._current()[0]
        self._entries.delete(key)
        self._pair = None
        self._gap = key + b"\x00"

    def __iter__(self) -> Iterator[Pair]:
        return self

    def __next__(self) -> Pair:
        if self._pair is None or self._given:
            self.next()
        else:
            self._entries._check_open()
        if self._pair is None:
            raise StopIteration
        self._given = True
        return self._pair

    def _current(self) -> Pair:
        self._entries._check_open()
        if self._pair is None:
            raise UsageError("the cursor is on no key; move it with first, last, or seek")
        return self._pair

    def _seek(self, position: bytes) -> bool:
        self._ahead = self._entries._pairs(position, self._stop, reverse=False)
        return self._arrive(next(self._ahead, None), position)

    def _step_back(self, position: bytes | None) -> bool:
        self._ahead = None
        pairs = self._entries._pairs(self._start, position, reverse=True)
        self._pair = next(pairs, None)
        self._gap = self._start
        self._past_end = False
        self._given = False
        return self._pair is not None

    def _arrive(self, pair: Pair | None, position: bytes) -> bool:
        self._pair = pair
        self._gap = position
        self._past_end = pair is None
        self._given = False
        return pair is not None


def bounds(
    prefix: bytes, start: bytes | None, stop: bytes | None
) -> tuple[bytes, bytes | None]:
    """Return [start, stop) cut to the keys that start with `prefix`.

    Raises:
        UsageError: One of them is not bytes.
    """
    if type(prefix) is not bytes:
        prefix = as_bytes(prefix, "prefix")
    low = prefix if start is None else max(prefix, as_bytes(start, "start"))
    end = prefix_end(prefix)
    if stop is None:
        return low, end
    stop = as_bytes(stop, "stop")
    return low, stop if end is None else min(stop, end)


def as_key(data: object) -> bytes | None:
    """Return what may be a key as bytes, or None for what no key equals.

    Raises:
        UsageError: It is text. A quiet "not there" would hide the slip of whoever comes from
            `dbm`, which takes text, too.
    """
    if isinstance(data, str | bytes | bytearray | memoryview):
        return as_bytes(data, "key")
    return None


def as_bytes(data: object, what: str) -> bytes:
    """Return `data` as bytes.

    Raises:
        UsageError: It is neither bytes, bytearray, nor memoryview.
    """
    if isinstance(data, bytes):
        return data
    if isinstance(data, bytearray | memoryview):
        return bytes(data)
    raise UsageError(f"{what} must be bytes, not {type(data).__name__}; encode text first")
