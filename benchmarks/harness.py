"""What every benchmark shares: seeded data, timing, and a table that says how sure it is.

A figure is the best of several rounds, beside the median and the spread: the best says what
the code costs, the spread how far to trust it. A fingerprint of the work stands beside each:
if two runs differ in it, they did different work and must not be compared.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from hashlib import sha256
from statistics import median
from typing import TYPE_CHECKING, TypeVar
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

T = TypeVar("T")

VALUE_SIZE = 100


def key(number: int) -> bytes:
    """The key of that number: 71 bytes in no order, as content digests are."""
    return b"sha256:" + sha256(b"%d" % number).hexdigest().encode()


def value(number: int) -> bytes:
    """The value of that number: 100 bytes."""
    return (b"%d." % number).ljust(VALUE_SIZE, b"v")


def pairs(first: int, last: int) -> Iterator[tuple[bytes, bytes]]:
    for number in range(first, last):
        yield key(number), value(number)


def checksum(parts: Iterable[bytes | None]) -> int:
    """A fingerprint of what was read."""
    return crc32(b"".join(part or b"-" for part in parts))


def timed(work: Callable[[], T]) -> tuple[int, T]:
    """How long `work` took, in nanoseconds, and what it returned."""
    start = time.perf_counter_ns()
    result = work()
    return time.perf_counter_ns() - start, result


@dataclass(frozen=True, slots=True)
class Figure:
    """The rounds of one measurement, in nanoseconds an operation."""

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least time an operation took."""
        return min(self.rounds)

    @property
    def spread(self) -> float:
        """How far the median is above the best, as a part of the best."""
        return median(self.rounds) / self.best - 1

    def __str__(self) -> str:
        return f"{self.best / 1000:.2f} us +{self.spread:.0%}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as aligned text, the first row as its head."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
