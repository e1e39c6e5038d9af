r"""What the workloads read: files of seeded records, the same for every engine and language.

A driver needs no generator of its own, so that a Go program and a Python one cannot differ,
and a load needs no memory for its data. Records have a fixed size, back to back:

    pairs       key (71) value (n)           in scattered order, in key order, and to come
    keys        key (71)                     to be found, and to be missed
    prefixes    prefix (66)                  each shared by ten keys
    mix         call (1) count (2) key (71) value (n)

Keys come in groups of ten: "sha256:", 59 hexadecimal digits of the group's digest, five of the
member. Half of a value is random and half one letter, as in LevelDB's own benchmark, so that
compression finds what it finds in such data. Zipfian choices are YCSB's (0.99), scattered.

Source: B. F. Cooper et al., Benchmarking Cloud Serving Systems with YCSB, 2010.
"""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass
from functools import cache
from hashlib import sha256, shake_128
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING
from zlib import crc32

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

# Of this file: what it writes changes with it.
EDITION = f"{crc32(Path(__file__).read_bytes()):08x}"
KEY_SIZE = 71
PREFIX_SIZE = KEY_SIZE - 5
GROUP = 10
ZIPF = 0.99
PAGE_MAX = 100
PRIME = 2_654_435_761
# Of a hundred calls of each mix, how many are reads, updates, scans and insertions.
MIXES = {"a": (50, 50, 0, 0), "b": (95, 5, 0, 0), "e": (0, 0, 95, 5)}
CALLS = b"rusi"


def key(number: int) -> bytes:
    """The key of that number."""
    return b"%b%05d" % (prefix(number // GROUP), number % GROUP)


def prefix(group: int) -> bytes:
    """What the ten keys of that group begin with."""
    return b"sha256:" + sha256(b"%d" % group).hexdigest()[:59].encode()


def value(number: int, size: int) -> bytes:
    """The value of that number."""
    return shake_128(b"%d" % number).digest(size // 2) + b"v" * (size - size // 2)


def scatter(index: int, count: int) -> int:
    """A permutation of range(count), without a table: multiplication by a prime."""
    return index * PRIME % count


@dataclass(frozen=True, slots=True)
class Inputs:
    """The files for stores of so many keys and values of that size, made when asked for."""

    directory: Path
    keys: int
    value_size: int

    def scattered(self) -> Path:
        """Every pair, in no order."""
        return self._pairs("scattered", (scatter(i, self.keys) for i in range(self.keys)))

    def ordered(self) -> Path:
        """Every pair, in key order."""

        def numbers() -> Iterator[int]:
            for group in sorted(range(-(-self.keys // GROUP)), key=prefix):
                yield from range(group * GROUP, min(group * GROUP + GROUP, self.keys))

        return self._pairs("ordered", numbers())

    def fresh(self, count: int) -> Path:
        """Pairs of which the store holds none."""
        return self._pairs(f"fresh-{count}", range(self.keys, self.keys + count))

    def overwrites(self, count: int) -> Path:
        """Pairs that the store holds already."""
        chosen = random.Random("overwrites")
        return self._pairs(f"overwrites-{count}", chosen.choices(range(self.keys), k=count))

    def hits(self, count: int) -> Path:
        """Keys that the store holds."""
        chosen = random.Random("hits").choices(range(self.keys), k=count)
        return self._write(f"hits-{count}", map(key, chosen))

    def newest(self, count: int) -> Path:
        """The key of the last of so many fresh pairs."""
        return self._write(f"newest-{count}", [key(self.keys + count - 1)])

    def misses(self, count: int) -> Path:
        """Keys that the store does not hold, each of another group, so in no order."""
        first = 2 * self.keys
        numbers = range(first, first + GROUP * count, GROUP)
        return self._write(f"misses-{count}", map(key, numbers))

    def prefixes(self, count: int) -> Path:
        """Prefixes that ten keys share."""
        chosen = random.Random("prefixes").choices(range(self.keys // GROUP), k=count)
        return self._write(f"prefixes-{count}", map(prefix, chosen))

    def mix(self, name: str, count: int) -> Path:
        """The calls of a YCSB-like workload."""

        def calls() -> Iterator[bytes]:
            rng = random.Random(f"mix {name}")
            record = struct.Struct(f"<cH{KEY_SIZE}s{self.value_size}s")
            chosen = rng.choices(CALLS, MIXES[name], k=count)
            ranks = rng.choices(range(self.keys), cum_weights=zipfian(self.keys), k=count)
            for index, (call, rank) in enumerate(zip(chosen, ranks, strict=True)):
                number = self.keys + index if call == CALLS[3] else scatter(rank, self.keys)
                size = rng.randint(1, PAGE_MAX) if call == CALLS[2] else 0
                data = value(self.keys + index, self.value_size)
                yield record.pack(bytes([call]), size, key(number), data)

        return self._write(f"mix-{name}-{count}", calls())

    def _pairs(self, name: str, numbers: Iterable[int]) -> Path:
        size = self.value_size
        return self._write(name, (key(number) + value(number, size) for number in numbers))

    def _write(self, name: str, records: Iterable[bytes]) -> Path:
        path = self.directory / f"{self.keys}x{self.value_size}-{name}"
        if not path.exists():
            self.directory.mkdir(parents=True, exist_ok=True)
            partial = path.with_suffix(".partial")
            with partial.open("wb", buffering=1 << 20) as file:
                file.writelines(records)
            partial.replace(path)
        return path


@cache
def zipfian(count: int) -> list[float]:
    """The cumulative weights of the ranks, most popular first."""
    return list(accumulate(1 / rank**ZIPF for rank in range(1, count + 1)))
