"""Errors and kills at a chosen system call of a real process, by strace.

Only calls that name or hold a file of one store, or of its backup, count, so that the Nth is
about the same in every run: "about", since threads of the store work beside the commits. strace
counts the calls of each thread by itself, so a small number may strike in two of them.
"""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from support import children, machine

# More than a short run makes.
_FILES_MAX = 40
# Not the second half of a call that another thread's came in between of.
_CALL = re.compile(r"^\d+ +(\w+?)(?:at2?)?\(")
# Processors differ in which of these have "at" behind their name.
_SELECTED = {"open": "/^openat", "rename": "/^rename", "unlink": "/^unlink"}


class Told(NamedTuple):
    """What came of a run.

    Attributes:
        lines: What it printed.
        status: Its exit code.
        calls: How many system calls of each name it made on the store.
        injected: The lines that strace wrote of those that were made to fail.
    """

    lines: list[str]
    status: int
    calls: Counter[str]
    injected: list[str]

    @property
    def acknowledged(self) -> int:
        """The last change that was acknowledged as durable."""
        return max((int(line) for line in self.lines if line.isdigit()), default=0)


def traced(path: Path, seed: int, calls: str, injection: str | None = None) -> Told:
    """Run `history_script` on the store at `path` under strace.

    Args:
        path: The store's directory.
        seed: Of its history.
        calls: The system calls to watch, by their names, with commas.
        injection: What to do at which of them, as strace spells it, or nothing.
    """
    log = path.with_name("strace")
    watched = ",".join(_SELECTED.get(call, call) for call in calls.split(","))
    options = ["-f", "-qq", "-y", "-o", log, "-e", f"trace={watched}"]
    if injection is not None:
        options += ["-e", f"inject={watched}:{injection}"]
    if injection is None or "signal" not in injection:
        # Quicker, since no other call is stopped; signals do not come then.
        options.append("--seccomp-bpf")
    for file in _files(path):
        options += ["-P", file]
    lines, status = children.run(
        "history_script", path, seed, before=machine.command("strace", *options)
    )
    text = log.read_text(errors="replace").splitlines()
    counted = Counter(match[1] for line in text if (match := _CALL.match(line)))
    return Told(lines, status, counted, [line for line in text if "INJECTED" in line])


def spread(count: int, limit: int | None) -> list[int]:
    """Return the numbers from 1 to `count`, or `limit` of them, from the first to the last."""
    if limit is None or count <= limit:
        return list(range(1, count + 1))
    return sorted({1 + i * (count - 1) // (limit - 1) for i in range(limit)})


def _files(path: Path) -> list[Path]:
    names = [".", "LOCK", "MANIFEST", "MANIFEST.new", "BALLAST"]
    names += [f"{number:06d}.{kind}" for number in range(_FILES_MAX) for kind in ("log", "tbl")]
    directories = (path, path.with_name("backup"))
    return [path.parent, *(directory / name for directory in directories for name in names)]
