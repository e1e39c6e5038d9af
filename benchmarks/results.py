"""What was measured: the rounds of each figure, read back and refused if the work differed."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING

from runner import result_path
from task import Outcome

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from plan import Measurement


@dataclass(frozen=True, slots=True)
class Figure:
    """The rounds of one measurement. What counts is their median."""

    rounds: tuple[float, ...]

    @property
    def best(self) -> float:
        """The least."""
        return min(self.rounds)

    @property
    def median(self) -> float:
        """As many rounds were better as were worse."""
        return median(self.rounds)

    @property
    def spread(self) -> float:
        """From the best to the worst round, as a part of the median."""
        return (max(self.rounds) - self.best) / self.median if self.median else 0.0


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times longer a peer took than we did, and how far the figures spread.

    `spread` is None where there was one round only.
    """

    value: float
    spread: float | None


class Results:
    """All outcomes under a root, by measurement and engine."""

    def __init__(self, root: Path) -> None:
        self._root = root

    def outcomes(self, measurement: Measurement) -> dict[str, list[Outcome]]:
        """Return the rounds of each engine that has any.

        Raises:
            ValueError: Two of them did different work, so that their times say nothing.
        """
        found: dict[str, list[Outcome]] = {}
        for engine in measurement.engines:
            folder = result_path(self._root, measurement, engine, 0).parent
            texts = [path.read_text("utf-8") for path in sorted(folder.glob("*.json"))]
            if texts:
                found[engine] = [Outcome.decode(text) for text in texts]
        prints = {f"{o.fingerprint:#010x}" for outcomes in found.values() for o in outcomes}
        if len(prints) > 1:
            raise ValueError(f"{measurement.name}: engines did different work: {prints}")
        return found

    def figure(self, measurement: Measurement, engine: str, name: str) -> Figure | None:
        """Return an engine's figure of that name, be it a time or another number."""
        outcomes = self.outcomes(measurement).get(engine)
        if not outcomes:
            return None
        return Figure(tuple(number(outcome, name) for outcome in outcomes))

    def names(self, measurement: Measurement) -> list[str]:
        """Return the names of a measurement's times."""
        found = self.outcomes(measurement)
        return list(next(iter(found.values()))[0].times) if found else []

    def versions(self, measurements: Iterable[Measurement]) -> dict[str, str]:
        """Return what the engines said of their versions."""
        return {
            engine: outcomes[-1].version
            for measurement in measurements
            for engine, outcomes in self.outcomes(measurement).items()
        }


def ratio(peer: Figure | None, ours: Figure | None) -> Ratio | None:
    """The peer's median by ours, if both were measured."""
    if peer is None or ours is None:
        return None
    once = len(peer.rounds) == len(ours.rounds) == 1
    spread = None if once else max(peer.spread, ours.spread)
    return Ratio(peer.median / ours.median, spread)


def number(outcome: Outcome, name: str) -> float:
    """A number of an outcome by its name."""
    if name == "memory":
        return outcome.memory
    if name == "disk":
        return outcome.disk_size
    return {**outcome.times, **outcome.others}[name]
