"""dbm.dumb, the one `dbm` that every Python has: a data file, and its keys in a text file.

It promises nothing about power loss. As near as its files allow, a commit here writes the key
file and syncs both: that is O(keys) a commit, and a cut in the middle still leaves the two
disagreeing. It keeps no order: a scan sorts the keys first. It has no views.
"""

from __future__ import annotations

import dbm.dumb
import os
import platform
from bisect import bisect_left
from contextlib import contextmanager
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from engines.engine import Pair


class DumbDbm:
    version: ClassVar[str] = f"Python {platform.python_version()}"

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._db = dbm.dumb.open(str(directory / "db"), "c")  # noqa: SIM115  # `close` closes it.

    def commit(self, pairs: Sequence[Pair]) -> None:
        for key, value in pairs:
            self._db[key] = value
        self._db.sync()
        for suffix in (".dat", ".dir"):
            with self._directory.joinpath(f"db{suffix}").open("rb") as file:
                os.fsync(file.fileno())

    def get(self, key: bytes) -> bytes | None:
        return self._db.get(key)

    def get_each(self, keys: Iterable[bytes]) -> list[bytes | None]:
        get = self._db.get
        return [get(key) for key in keys]

    @contextmanager
    def scan(self, *, reverse: bool = False) -> Iterator[Iterable[Pair]]:
        yield ((key, self._db[key]) for key in sorted(self._db.keys(), reverse=reverse))

    def prefixes(self, prefixes: Iterable[bytes]) -> Iterator[list[Pair]]:
        ordered = sorted(self._db.keys())
        for prefix in prefixes:
            first = bisect_left(ordered, prefix)
            last = bisect_left(ordered, prefix + b"\xff")
            yield [(key, self._db[key]) for key in ordered[first:last]]

    def page(self, start: bytes, count: int) -> list[Pair]:
        ordered = sorted(self._db.keys())
        first = bisect_left(ordered, start)
        return [(key, self._db[key]) for key in ordered[first : first + count]]

    def settle(self) -> None:
        pass

    def close(self) -> None:
        self._db.close()
