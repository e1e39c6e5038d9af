"""What is measured: every workload at every scale, with the engines it is fair to ask.

A measurement's group is what `--only` names. The plan is data: `runner.py` carries it out, and
`page.py` shows it.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import Enum

from engines import BBOLT, COMPILED, PURE

COMPARED = ("blobkv", *COMPILED)
GROWTH = ("blobkv", "py-lmdb", BBOLT)
BATCHING = ("blobkv", BBOLT)
BLOBMAP = "blobmap"
BATCH = 1000
BATCH_SIZE_MAX = 1 << 20
CHURN_BATCH = 10
# At the most; fewer where a store holds fewer keys.
COMMITS = {1: 3200, 8: 6400, 32: 12_800}
GETS = 300_000
PREFIXES = 50_000
KILLED_PAIRS = 10_000
MIX_OPERATIONS = {"a": 6000, "b": 40_000, "e": 6000}


class Before(Enum):
    """What a measurement finds in its store's directory."""

    NOTHING = "an empty directory"
    LOADED = "the settled store that the load has left"
    COPY = "a copy of that, to be changed"
    KILLED = "such a copy, after a process that wrote to it was killed"


@dataclass(frozen=True, slots=True)
class Scale:
    """How much a store holds."""

    keys: int
    value_size: int = 100

    def __str__(self) -> str:
        return f"{self.keys}x{self.value_size}"

    @property
    def live_size(self) -> int:
        """Bytes of all keys and values."""
        return self.keys * (71 + self.value_size)

    @property
    def batch(self) -> int:
        """Pairs in a transaction of a load: 1,000, or about a megabyte if that is fewer."""
        return min(BATCH, max(1, BATCH_SIZE_MAX // self.value_size))

    def part(self, most: int) -> int:
        """A number of operations: `most`, or fewer where the store is small."""
        return max(*COMMITS, min(most, self.keys))


@dataclass(frozen=True, slots=True)
class Measurement:
    """One workload at one scale, for each of some engines.

    Attributes:
        inputs: For each part, a method of `Inputs` and its arguments.
        keeps: Whether the store is what others begin with.
    """

    group: str
    name: str
    workload: str
    scale: Scale
    engines: tuple[str, ...] = COMPARED
    before: Before = Before.NOTHING
    inputs: dict[str, tuple[str | int, ...]] = field(default_factory=dict)
    batch: int = 1
    threads: int = 1
    seconds: float = 0.0
    call: str = "update"
    keeps: bool = False
    rounds: int = 1


@dataclass(frozen=True, slots=True)
class Plan:
    """All measurements.

    Attributes:
        keys: In the main store.
        keys_max: Up to so many where growth is looked at.
        seconds: Of churn, for every engine.
        seconds_max: Of blobkv's long churn.
        rounds: Of everything that is measured more than once.
    """

    keys: int
    keys_max: int
    seconds: float
    seconds_max: float
    rounds: int

    def measurements(self) -> list[Measurement]:
        """Everything, in the order in which it is done."""
        main, peers = Scale(self.keys), Scale(max(self.keys // 50, 100))
        large = (
            Scale(max(self.keys // 10, 100), 1 << 10),
            Scale(max(self.keys // 250, 40), 1 << 16),
        )
        return [
            *self._commits(main),
            *self._changes(main, self._reads(main, ordered_too=True)),
            *(m for scale in large for m in self._reads(scale, "values")),
            *self._reads(peers, "peers", ("blobkv", *PURE)),
            self._commit(peers, group="peers", engines=("blobkv", *PURE)),
            self.churn,
            self.long_churn,
            self.blob_map,
            *(m for keys in self.growth if keys != self.keys for m in self._growth(keys)),
        ]

    @property
    def growth(self) -> list[int]:
        """The numbers of keys at which growth is looked at, `keys` among them."""
        return sorted({max(self.keys // 10, 100), self.keys, max(self.keys, self.keys_max)})

    def main(self) -> dict[str, Measurement]:
        """The measurements of the main store by name."""
        return {m.name: m for m in self.measurements() if m.scale == Scale(self.keys)}

    def growing(self) -> dict[int, dict[str, Measurement]]:
        """For each number of keys, the measurements by name that growth is read from."""
        return {keys: {m.name: m for m in self._growth(keys)} for keys in self.growth}

    @property
    def churn(self) -> Measurement:
        """Overwriting for a time, in a store that holds more than memory buffers."""
        scale = Scale(max(self.keys // 5, 100))
        return Measurement(
            "churn",
            "churn",
            "churn",
            scale,
            before=Before.COPY,
            inputs={"pairs": ("overwrites", 2 * scale.keys)},
            batch=CHURN_BATCH,
            seconds=self.seconds,
        )

    @property
    def long_churn(self) -> Measurement:
        """The same for blobkv alone, until what builds up slowly would have shown."""
        return replace(
            self.churn, name="long churn", engines=("blobkv",), seconds=self.seconds_max
        )

    @property
    def blob_map(self) -> Measurement:
        """What blobmap does, beside what its original did on bbolt."""
        scale = Scale(min(self.keys, 2000))
        engines = (BLOBMAP, BBOLT)
        return Measurement(BLOBMAP, "blob map", "blob map", scale, engines, rounds=self.rounds)

    def _commits(self, scale: Scale) -> list[Measurement]:
        found = []
        for threads in COMMITS:
            found.append(self._commit(scale, threads))
            if threads > 1:
                found.append(self._commit(scale, threads, "batch", engines=BATCHING))
        return found

    def _commit(
        self,
        scale: Scale,
        threads: int = 1,
        call: str = "update",
        *,
        group: str = "commits",
        engines: tuple[str, ...] = COMPARED,
    ) -> Measurement:
        return Measurement(
            group,
            f"{call}, {threads} thread{'s' * (threads > 1)}",
            "commits",
            scale,
            engines,
            inputs={"pairs": ("fresh", scale.part(COMMITS[threads]))},
            threads=threads,
            call=call,
            rounds=self.rounds,
        )

    def _reads(
        self,
        scale: Scale,
        group: str = "",
        engines: tuple[str, ...] = COMPARED,
        *,
        ordered_too: bool = False,
    ) -> list[Measurement]:
        """A load, and what is read from it."""
        keys = {"hits": ("hits", scale.part(GETS)), "misses": ("misses", scale.part(GETS))}
        prefixes = {"prefixes": ("prefixes", scale.part(PREFIXES))}
        load = Measurement(
            group or "load",
            "load",
            "load",
            scale,
            engines,
            inputs={"pairs": ("scattered",)},
            batch=scale.batch,
            keeps=True,
            rounds=self.rounds,
        )
        ordered = replace(
            load, name="load in order", inputs={"pairs": ("ordered",)}, keeps=False
        )
        reading = replace(load, before=Before.LOADED, batch=1, keeps=False)
        return [
            *([ordered] if ordered_too else []),
            load,
            replace(reading, group=group or "gets", name="gets", workload="gets", inputs=keys),
            replace(
                reading, group=group or "scans", name="scans", workload="scans", inputs=prefixes
            ),
        ]

    def _changes(self, scale: Scale, reads: list[Measurement]) -> list[Measurement]:
        """The reads, and what is done to copies of their store."""
        *_, reading = reads
        wanted = {"hits": ("hits", 1)}
        killed = {"pairs": ("fresh", KILLED_PAIRS), "hits": ("newest", KILLED_PAIRS)}
        opening = replace(reading, group="open", workload="opening", inputs=wanted)
        found = [
            *reads,
            replace(opening, name="open after a close"),
            replace(
                opening,
                name="open after a kill",
                before=Before.KILLED,
                inputs=killed,
                batch=BATCH,
            ),
        ]
        for name, most in MIX_OPERATIONS.items():
            mix = {"mix": ("mix", name, scale.part(most))}
            found.append(
                replace(
                    reading,
                    group="mix",
                    name=f"mix {name}",
                    workload="mix",
                    before=Before.COPY,
                    inputs=mix,
                )
            )
        return found

    def _growth(self, keys: int) -> list[Measurement]:
        """The reads at another number of keys; beyond the main one, once."""
        once = 1 if keys > self.keys else self.rounds
        reads = self._reads(Scale(keys), "growth", GROWTH)
        return [replace(measurement, rounds=once) for measurement in reads]
