"""How much memory processes hold at their peak, mapped files included."""

from __future__ import annotations

import resource
import sys
from contextlib import suppress
from pathlib import Path


def peak_size(pid: int | None = None) -> int:
    """The peak resident bytes of this process, or of a live other one on Linux; 0 if gone.

    Linux's own account starts anew with each program, and that of `getrusage` does not: there
    a child begins with its parent's peak.
    """
    with suppress(OSError):
        for line in Path(f"/proc/{pid or 'self'}/status").read_text("ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) << 10
    if pid is not None:
        return 0
    unit = 1 if sys.platform == "darwin" else 1 << 10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def children(pid: int) -> set[int]:
    """The live processes below a process, on Linux."""
    found: set[int] = set()
    with suppress(OSError):
        for thread in Path(f"/proc/{pid}/task").iterdir():
            for child in map(int, (thread / "children").read_text("ascii").split()):
                found |= {child, *children(child)}
    return found
