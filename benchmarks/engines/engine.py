"""What an engine must offer to be compared: one open store, its calls as its users make them.

Each adapter uses the calls that its library's documentation recommends for the purpose, and
does nothing else between the clock's two readings. All commits are durable when they return.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

Pair = tuple[bytes, bytes]

# What knobs are set to, where an engine is tuned; docs/benchmarks.md says which are.
WRITE_BUFFER_SIZE = 16 << 20
CACHE_SIZE = 256 << 20
MAP_SIZE = 1 << 36
BLOOM_BITS = 10


class Engine(Protocol):
    """One open store in a directory of its own, which exists."""

    version: ClassVar[str]

    def __init__(self, directory: Path) -> None: ...

    def commit(self, pairs: Sequence[Pair]) -> None:
        """Put the pairs in one durable transaction."""

    def get(self, key: bytes) -> bytes | None:
        """Return the value of the key, or None, in a view of its own."""

    def get_each(self, keys: Iterable[bytes]) -> list[bytes | None]:
        """Return the values of the keys, read one by one within one view."""

    def scan(self, *, reverse: bool = False) -> AbstractContextManager[Iterable[Pair]]:
        """Give every pair in key order, in one view, one by one."""

    def prefixes(self, prefixes: Iterable[bytes]) -> Iterator[list[Pair]]:
        """Yield, for each prefix, the pairs whose keys begin with it, within one view."""

    def page(self, start: bytes, count: int) -> list[Pair]:
        """Return the first pairs from `start` on, in a view of their own."""

    def settle(self) -> None:
        """Pay what the writes so far still owe: flush and compact, where the engine does."""

    def close(self) -> None:
        """Release the store."""


class Batching(Engine, Protocol):
    """An engine with a call by which concurrent writers share a commit."""

    def batch(self, pair: Pair) -> None:
        """Put one pair durably, in a commit that may be shared."""
