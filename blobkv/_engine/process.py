"""What the engine asks of its own process and of others. POSIX."""

from __future__ import annotations

import os
import weakref
from typing import Final, Protocol


class Forkable(Protocol):
    """Something that must not be used in a forked child."""

    def forget_in_child(self) -> None:
        """Called once in the child, where no other thread exists. Must take no lock."""


def on_fork(subject: Forkable) -> None:
    """Call `subject.forget_in_child` in every forked child, while the subject lives."""
    _FORKABLE.add(subject)


def processor_count() -> int:
    """Return how many processors this process may use, or has where that is not told."""
    return len(getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0))


def has_ended(pid: int) -> bool:
    """Return whether no process of this machine has this number, by what can be seen."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (OSError, OverflowError):
        # It is another user's, or no number of a process.
        return False
    return False


_FORKABLE: Final[weakref.WeakSet[Forkable]] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for subject in list(_FORKABLE):
        subject.forget_in_child()


os.register_at_fork(after_in_child=_after_fork_in_child)
