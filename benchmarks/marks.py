"""The marks: how far ahead of each peer blobkv is meant to be, and where it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from results import Ratio, ratio

if TYPE_CHECKING:
    from plan import Measurement
    from results import Figure, Results

PEERS = ("py-lmdb", "bbolt", "SQLite", "LevelDB", "RocksDB")
MILLISECOND = 1e6
MEBIBYTE = 1 << 20


@dataclass(frozen=True, slots=True)
class Mark:
    """One kind of work: where it is measured, and the ratio wanted for each of `PEERS`.

    An engine with more than one way to do the work, as with commits that are shared or not, is
    taken at its best.
    """

    work: str
    measured: tuple[str, ...]
    figure: str
    wanted: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Bound:
    """A figure of blobkv alone that is to stay below a bound, in `unit`."""

    work: str
    measured: str
    figure: str
    most: float
    unit: float
    unit_name: str


MARKS = (
    Mark(
        "durable commit, 1 thread", ("update, 1 thread",), "commit", (1.8, 2.2, 1.3, 2.2, 1.0)
    ),
    Mark(
        "durable commits, 32 threads, total",
        ("update, 32 threads", "batch, 32 threads"),
        "commit",
        (5, 5, 5, 1.5, 1.5),
    ),
    Mark("random load, settled", ("load",), "settled", (2.0, 2.5, 2.0, 0.8, 0.6)),
    Mark("random get, one view", ("gets",), "get", (1.3, 1.5, 3, 6, 2.5)),
    Mark("random get, a view each", ("gets",), "get, a view each", (1.0, 1.2, 2.5, 5, 2)),
    Mark("get of a missing key", ("gets",), "get of a missing key", (2, 2, 4, 3, 3)),
    Mark("full scan", ("scans",), "scan", (1.0, 0.15, 2.5, 2, 2)),
    Mark("prefix scan of 10", ("scans",), "prefix scan", (0.8, 0.3, 2, 2, 2)),
)
BOUNDS = (
    Bound("open after a close", "open after a close", "open", 20, MILLISECOND, "ms"),
    Bound("peak memory of load and settling", "load", "memory", 120, MEBIBYTE, "MiB"),
)


def reached(
    results: Results, measurements: dict[str, Measurement], mark: Mark, peer: str
) -> Ratio | None:
    """Where blobkv is beside that peer, or None if it was not measured."""

    def best(engine: str) -> Figure | None:
        found = [
            figure
            for name in mark.measured
            if (figure := results.figure(measurements[name], engine, mark.figure))
        ]
        return min(found, key=lambda figure: figure.median, default=None)

    return ratio(best(peer), best("blobkv"))
