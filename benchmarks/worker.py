"""One measurement in a process of its own: a task as the argument, its outcome printed."""

from __future__ import annotations

import sys
from pathlib import Path

from memory import peak_size
from task import Task


def run(task: Task) -> str:
    """Do the task in this process and return its outcome, spelled."""
    bare = peak_size()
    if task.engine == "blobmap":
        from blob_map import blob_map, version

        outcome, outcome.version = blob_map(task), version
    else:
        from engines import adapter
        from workloads import WORKLOADS

        engine = adapter(task.engine)
        directory = Path(task.store)
        directory.mkdir(parents=True, exist_ok=True)
        outcome = WORKLOADS[task.workload](lambda: engine(directory), task)
        outcome.version = engine.version
    outcome.memory = (outcome.memory or peak_size()) - bare
    return outcome.encode()


if __name__ == "__main__":
    print(run(Task.decode(sys.argv[1])))
