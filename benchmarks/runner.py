"""Carries out a plan: each measurement in a fresh process, engines in turn, round by round.

    ROOT/inputs/                           what the workloads read
    ROOT/results/SCALE/NAME/ENGINE/N.json  the outcome of round N, which is never measured twice
    ROOT/stores/SCALE/ENGINE/              what the load has left, for those who read it
    ROOT/scratch/                          the store of the measurement under way

While a process runs, the runner looks at the memory of its children, which it adds, and in
churn at the space on disk.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import golang
from engines import BBOLT
from inputs import Inputs
from memory import children, peak_size
from plan import Before
from task import Outcome, Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from plan import Measurement

LOOK_SECONDS = 0.05
SPACE_LOOKS_MAX = 400
WORKER = Path(__file__).with_name("worker.py")


@dataclass(slots=True)
class Runner:
    """Measures under one root directory, which is on the disk that matters."""

    root: Path
    engines: frozenset[str]
    progress: Callable[[str], None]

    def run(self, measurements: Iterable[Measurement]) -> None:
        """Measure what has no result yet."""
        todo = list(measurements)
        for scale in dict.fromkeys(measurement.scale for measurement in todo):
            here = [measurement for measurement in todo if measurement.scale == scale]
            for number in range(max(measurement.rounds for measurement in here)):
                for measurement in here:
                    if number < measurement.rounds:
                        self._round(measurement, number)
            shutil.rmtree(self.root / "stores" / str(scale), ignore_errors=True)
        shutil.rmtree(self.root / "scratch", ignore_errors=True)

    def _round(self, measurement: Measurement, number: int) -> None:
        # Each round begins with another engine, so that none is always the first.
        turn = number % len(measurement.engines)
        for engine in measurement.engines[turn:] + measurement.engines[:turn]:
            result = result_path(self.root, measurement, engine, number)
            if engine not in self.engines or result.exists():
                continue
            began = time.monotonic()
            outcome = self._measure(measurement, engine)
            result.parent.mkdir(parents=True, exist_ok=True)
            partial = result.with_suffix(".partial")
            partial.write_text(outcome.encode(), encoding="utf-8")
            partial.replace(result)
            took = time.monotonic() - began
            times = ", ".join(f"{name} {t / 1000:.2f}" for name, t in outcome.times.items())
            what = f"{measurement.scale} {measurement.name}, round {number + 1}, {engine}"
            self.progress(f"{what}: {times} us ({took:.1f} s)")

    def _measure(self, measurement: Measurement, engine: str) -> Outcome:
        kept = self.root / "stores" / str(measurement.scale) / engine
        scratch = self.root / "scratch"
        shutil.rmtree(scratch, ignore_errors=True)
        if measurement.before is not Before.NOTHING and not kept.exists():
            # A result of the load is there, from a run before, and its store no longer.
            self._work(loading(measurement), engine, kept)
        store = scratch
        if measurement.keeps:
            shutil.rmtree(kept, ignore_errors=True)
            store = kept
        elif measurement.before is Before.LOADED:
            store = kept
        elif measurement.before is not Before.NOTHING:
            shutil.copytree(kept, scratch)
        if measurement.before is Before.KILLED:
            self._work(killing(measurement), engine, scratch)
        # What others have written must not wait for the first sync of this one.
        os.sync()
        outcome = self._work(measurement, engine, store)
        outcome.disk_size = disk_size(store)
        return outcome

    def _work(self, measurement: Measurement, engine: str, store: Path) -> Outcome:
        scale = measurement.scale
        inputs = Inputs(self.root / "inputs", scale.keys, scale.value_size)
        task = Task(
            workload=measurement.workload,
            engine=engine,
            store=str(store),
            inputs={
                part: str(getattr(inputs, method)(*arguments))
                for part, (method, *arguments) in measurement.inputs.items()
            },
            keys=scale.keys,
            value_size=scale.value_size,
            batch=measurement.batch,
            threads=measurement.threads,
            seconds=measurement.seconds,
            call=measurement.call,
        )
        outcome, space = self._process(task)
        if engine == BBOLT:
            outcome.version = f"{golang.version()}, {outcome.version}"
        outcome.space = space
        return outcome

    def _process(self, task: Task) -> tuple[Outcome, list[tuple[float, int]]]:
        """Run the task in a process and watch it."""
        bbolt = [str(self.root / golang.PROGRAM)]
        command = bbolt if task.engine == BBOLT else [sys.executable, str(WORKER)]
        space: list[tuple[float, int]] = []
        peaks: dict[int, int] = {}
        began, look = time.monotonic(), max(1.0, task.seconds / SPACE_LOOKS_MAX)
        command.append(task.encode())
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            while process.poll() is None:
                for pid in children(process.pid):
                    peaks[pid] = max(peaks.get(pid, 0), peak_size(pid))
                elapsed = time.monotonic() - began
                if task.seconds and elapsed >= look * len(space):
                    space.append((elapsed, disk_size(Path(task.store))))
                time.sleep(LOOK_SECONDS)
            assert process.stdout is not None
            printed = process.stdout.read()
        if task.workload == "kill":
            assert process.returncode == -signal.SIGKILL, "it was to die"
            return Outcome(), space
        if process.returncode:
            raise subprocess.CalledProcessError(process.returncode, command)
        outcome = Outcome.decode(printed)
        outcome.memory += max(peaks.values(), default=0)
        return outcome, space


def result_path(root: Path, measurement: Measurement, engine: str, number: int) -> Path:
    """Where the outcome of a round is kept."""
    folder = root / "results" / str(measurement.scale) / measurement.name.replace(" ", "-")
    return folder / engine / f"{number}.json"


def loading(measurement: Measurement) -> Measurement:
    """The load that a measurement at that scale begins with."""
    return replace(
        measurement,
        workload="load",
        inputs={"pairs": ("scattered",)},
        batch=measurement.scale.batch,
        seconds=0.0,
    )


def killing(measurement: Measurement) -> Measurement:
    """What comes before an opening after a kill."""
    return replace(measurement, workload="kill")


def disk_size(directory: Path) -> int:
    """Bytes that the files below a directory occupy, whatever their sizes say."""
    size = 0
    for path in directory.rglob("*"):
        try:
            size += path.stat().st_blocks * 512
        except FileNotFoundError:
            continue  # It has gone since it was listed.
    return size
