"""One measurement, as it is handed to a driver: a line of JSON that Python and Go both read."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field


@dataclass(frozen=True, slots=True)
class Task:
    """What one process does with one engine.

    Attributes:
        workload: A name that the drivers know.
        engine: An engine's name.
        store: The directory of its store.
        inputs: Files of records, by their part in the workload.
        keys: How many pairs a full store holds.
        value_size: Bytes of a value.
        batch: Pairs in a transaction, where the workload writes many.
        threads: How many threads call.
        seconds: How long, where the workload does not end by itself.
        call: "update" or "batch", where there are two ways to write.
    """

    workload: str
    engine: str
    store: str
    inputs: dict[str, str] = field(default_factory=dict)
    keys: int = 0
    value_size: int = 0
    batch: int = 1
    threads: int = 1
    seconds: float = 0.0
    call: str = "update"

    @classmethod
    def decode(cls, line: str) -> Task:
        """Read a task from its line."""
        return cls(**json.loads(line))

    def encode(self) -> str:
        """Spell the task as a line."""
        return json.dumps(asdict(self))


@dataclass(slots=True)
class Outcome:
    """What a process found out.

    Attributes:
        times: Nanoseconds an operation, by the name of the figure.
        fingerprint: A checksum of what was read or written; those of all engines must agree.
        memory: Peak resident bytes above the bare program.
        version: The engine's.
        others: Figures that are not times an operation.
        disk_size: Bytes that the store occupies afterwards; the runner looks.
        space: Seconds and bytes, where the runner looked while it ran.
    """

    times: dict[str, float] = field(default_factory=dict)
    fingerprint: int = 0
    memory: int = 0
    version: str = ""
    others: dict[str, float] = field(default_factory=dict)
    disk_size: int = 0
    space: list[tuple[float, int]] = field(default_factory=list)

    @classmethod
    def decode(cls, text: str) -> Outcome:
        """Read an outcome from JSON."""
        return cls(**json.loads(text))

    def encode(self) -> str:
        """Spell the outcome as JSON."""
        return json.dumps(asdict(self))
