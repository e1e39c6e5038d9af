"""Work that waits for its time, in threads of its own.

A job has a name, and is done once at a time. One that says that it is not done is tried again,
each time after twice as long, up to a minute; that it may be tried for ever is the point. A job
that hangs keeps one thread; others have the other threads. Threads end when nothing is left to
do, so a map that needs none has none, and are daemons: no process waits for them to end.

Source: the backoff with jitter is the usual one, as in gRPC's connection backoff.
"""

from __future__ import annotations

import logging
import random
import time
from dataclasses import dataclass
from threading import Condition, Thread, current_thread
from typing import TYPE_CHECKING, Final

from blobmap.deadlines import remaining
from blobmap.errors import DeadlineExceeded

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    Job = Callable[[], bool]

_THREADS_MAX: Final = 4
_IDLE_SECONDS: Final = 5.0
_BACKOFF_SECONDS_MIN: Final = 0.1
_BACKOFF_SECONDS_MAX: Final = 60.0
_JITTER: Final = 0.2

_LOG: Final = logging.getLogger("blobmap")


@dataclass(slots=True)
class _Task:
    """A job and when it is due; `again` is when it was submitted anew while it ran."""

    job: Job
    due: float
    failures: int = 0
    running: bool = False
    again: float | None = None


class Background:
    """Does jobs. Safe to call from many threads.

    Invariants:

    * A task is there exactly as long as its job is due, running, or to be tried again.
    * `_idle` counts the threads that wait. While a job waits, so does a thread, up to the
      bound: the one that waited may take another job, and hang.
    """

    def __init__(self) -> None:
        self._condition = Condition()
        self._tasks: dict[str, _Task] = {}
        self._threads: set[Thread] = set()
        self._idle = 0
        self._closed = False

    def submit(self, name: str, job: Job, *, delay: float = 0.0) -> None:
        """Have the job done in `delay` seconds, or earlier if it is due earlier already.

        Args:
            name: What it is known by; while one of that name waits, no second one does.
            job: Returns whether it is done; else it is tried again.
            delay: In seconds.
        """
        due = time.monotonic() + delay
        with self._condition:
            if self._closed:
                return
            task = self._tasks.setdefault(name, _Task(job, due))
            task.job = job
            if task.running:
                task.again = due if task.again is None else min(task.again, due)
            else:
                task.due = min(task.due, due)
            self._staff()
            self._condition.notify()

    def wait(self, names: Collection[str], seconds: float) -> bool:
        """Wait until none of the jobs is to be done now; return whether that came to be.

        One that failed, and is to be tried again later, is not waited for.
        """
        end = time.monotonic() + seconds

        def settled() -> bool:
            tasks = [self._tasks[name] for name in names if name in self._tasks]
            now = time.monotonic()
            return not any(t.running or not t.failures or t.due <= now for t in tasks)

        with self._condition:
            if current_thread() in self._threads:
                return settled()
            return self._condition.wait_for(settled, max(end - time.monotonic(), 0.0))

    def close(self) -> None:
        """Begin nothing more, and wait until what is running has ended. Idempotent.

        Raises:
            DeadlineExceeded: The caller's deadline was over before that.
        """
        with self._condition:
            self._closed = True
            self._tasks = {name: task for name, task in self._tasks.items() if task.running}
            self._condition.notify_all()
            threads = self._threads - {current_thread()}
        for thread in threads:
            thread.join(remaining())
            if thread.is_alive():
                running = ", ".join(self._tasks)
                raise DeadlineExceeded(f"still under way: {running}; close again later")

    def _staff(self) -> None:
        """Start a thread if a job waits and no thread does. The caller has the condition."""
        waits = any(not task.running for task in self._tasks.values())
        if not waits or self._idle or len(self._threads) >= _THREADS_MAX:
            return
        thread = Thread(target=self._work, name="blobmap background", daemon=True)
        self._threads.add(thread)
        try:
            thread.start()
        except RuntimeError:
            _LOG.warning("cannot start a thread; what is to be done waits", exc_info=True)
        finally:
            if thread.ident is None:
                self._threads.discard(thread)

    def _work(self) -> None:
        try:
            while (found := self._take()) is not None:
                name, task = found
                self._finish(name, task, done=self._is_done(name, task.job))
        finally:
            with self._condition:
                self._threads.discard(current_thread())

    def _take(self) -> tuple[str, _Task] | None:
        """Return the next job when it is due, or None to end this thread."""
        with self._condition:
            end = time.monotonic() + _IDLE_SECONDS
            while not self._closed:
                waiting = [item for item in self._tasks.items() if not item[1].running]
                name, task = min(waiting, key=lambda item: item[1].due, default=("", None))
                now = time.monotonic()
                if task is not None and task.due <= now:
                    task.running = True
                    self._staff()
                    return name, task
                if task is None and now >= end:
                    break
                self._idle += 1
                try:
                    self._condition.wait((end if task is None else task.due) - now)
                finally:
                    self._idle -= 1
            return None

    def _finish(self, name: str, task: _Task, *, done: bool) -> None:
        with self._condition:
            task.running = False
            task.failures = 0 if done else task.failures + 1
            if self._closed or (done and task.again is None):
                del self._tasks[name]
            elif done and task.again is not None:
                task.due = task.again
            else:
                task.due = time.monotonic() + _backoff(task.failures)
            task.again = None
            self._condition.notify_all()

    def _is_done(self, name: str, job: Job) -> bool:
        try:
            return job()
        except Exception:  # noqa: BLE001  # A thread that died of a job would do no other.
            # The map itself failed; whoever uses it next hears so, too.
            _LOG.exception("could not %s", name)
            return self._closed


def _backoff(failures: int) -> float:
    seconds = min(_BACKOFF_SECONDS_MIN * 2.0 ** min(failures - 1, 20), _BACKOFF_SECONDS_MAX)
    return seconds * random.uniform(1 - _JITTER, 1 + _JITTER)  # noqa: S311  # No secret.
