"""Jobs are done when they are due, again until they succeed, and never twice at a time.

Method: small jobs that tell when they ran and wait for events; nothing here depends on how long
anything takes, only on what comes before what. `_backoff` is looked at by itself.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from threading import Event

import pytest

from blobmap._map import background as module
from blobmap._map.background import Background
from blobmap.deadlines import deadline
from blobmap.errors import DeadlineExceeded

PATIENCE_SECONDS = 30.0


@pytest.fixture
def background() -> Iterator[Background]:
    background = Background()
    yield background
    background.close()


def test_a_job_is_done_and_waited_for(background: Background) -> None:
    done: list[str] = []
    background.submit("a", lambda: not done.append("a"))

    assert background.wait(["a"], PATIENCE_SECONDS)
    assert done == ["a"]
    assert background.wait(["never submitted"], 0)


def test_a_job_that_fails_is_tried_again_until_it_succeeds(
    background: Background, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_backoff", lambda _: 0.001)
    tries: list[int] = []
    succeeded = Event()

    def job() -> bool:
        tries.append(len(tries))
        if len(tries) == 2:
            raise OSError("out of order")
        if len(tries) == 4:
            succeeded.set()
        return len(tries) == 4

    background.submit("a", job)
    assert succeeded.wait(PATIENCE_SECONDS)
    assert background.wait(["a"], PATIENCE_SECONDS)
    assert len(tries) == 4


def test_who_waits_for_a_job_that_failed_does_not_wait_for_its_next_try(
    background: Background,
) -> None:
    background.submit("a", lambda: False)

    assert background.wait(["a"], PATIENCE_SECONDS)


def test_pauses_grow_up_to_a_minute() -> None:
    pauses = [module._backoff(failures) for failures in (1, 2, 3, 4, 12, 1000)]

    assert pauses[:4] == sorted(pauses[:4])
    assert 0.05 < pauses[0] < 0.2
    assert 40 < pauses[4] < 80
    assert 40 < pauses[5] < 80


def test_a_job_that_hangs_holds_up_no_other(background: Background) -> None:
    release = Event()
    for name in ("hangs", "hangs too"):
        background.submit(name, lambda: release.wait(PATIENCE_SECONDS))
    done = Event()
    background.submit("a", lambda: not done.set())

    assert done.wait(PATIENCE_SECONDS)
    assert not background.wait(["hangs"], 0.01)
    release.set()
    assert background.wait(["hangs", "hangs too"], PATIENCE_SECONDS)


def test_a_job_that_hangs_leaves_a_thread_for_what_is_due_later(
    background: Background,
) -> None:
    release, done = Event(), Event()
    background.submit("later", lambda: not done.set(), delay=0.1)
    with background._condition:
        assert background._condition.wait_for(lambda: background._threads, PATIENCE_SECONDS)
    while not background._idle:
        time.sleep(0)
    # The thread that waits for the one takes the other.
    background.submit("hangs", lambda: release.wait(PATIENCE_SECONDS))

    assert done.wait(PATIENCE_SECONDS / 3)
    release.set()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_thread_that_does_not_start_is_not_waited_for(
    background: Background, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    def fail(thread: threading.Thread) -> None:
        raise error("no more threads")

    done: list[str] = []
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", fail)
        for name in "abcde":
            with suppress(KeyboardInterrupt):
                background.submit(name, lambda name=name: not done.append(name))
    background.submit("f", lambda: True)
    assert background.wait("abcdef", PATIENCE_SECONDS)
    assert sorted(done) == ["a", "b", "c", "d", "e"]


def test_a_job_submitted_while_it_runs_is_done_once_more_and_not_at_once(
    background: Background,
) -> None:
    begun, release = Event(), Event()
    running, most = [0], [0]
    runs: list[None] = []

    def job() -> bool:
        running[0] += 1
        most[0] = max(most[0], running[0])
        runs.append(None)
        begun.set()
        assert release.wait(PATIENCE_SECONDS)
        running[0] -= 1
        return True

    background.submit("a", job)
    assert begun.wait(PATIENCE_SECONDS)
    for _ in range(5):
        background.submit("a", job)
    release.set()

    assert background.wait(["a"], PATIENCE_SECONDS)
    assert (len(runs), most[0]) == (2, 1)


def test_a_job_that_is_not_due_waits_for_its_time(background: Background) -> None:
    done: list[str] = []
    background.submit("late", lambda: not done.append("late"), delay=3600)
    background.submit("soon", lambda: not done.append("soon"))
    assert background.wait(["soon"], PATIENCE_SECONDS)
    assert done == ["soon"]

    background.submit("late", lambda: not done.append("earlier"))
    assert background.wait(["late"], PATIENCE_SECONDS)
    assert done == ["soon", "earlier"]


def test_what_is_closed_begins_nothing_and_waits_for_what_runs_up_to_the_deadline() -> None:
    background, release, begun = Background(), Event(), Event()

    def hang() -> bool:
        begun.set()
        return release.wait(PATIENCE_SECONDS)

    background.submit("hangs", hang)
    assert begun.wait(PATIENCE_SECONDS)
    background.submit("late", lambda: True, delay=3600)
    with pytest.raises(DeadlineExceeded, match="under way: hangs"), deadline(0.01):
        background.close()
    done: list[str] = []
    background.submit("a", lambda: not done.append("a"))
    release.set()
    background.close()

    assert done == []
    assert background._tasks == {}


def test_threads_end_when_nothing_is_left_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_IDLE_SECONDS", 0.01)
    background = Background()
    for number in range(20):
        background.submit(f"{number}", lambda: True)
    while background._threads:
        thread = next(iter(background._threads.copy()), None)
        if thread is not None:
            thread.join(PATIENCE_SECONDS)

    assert background._tasks == {}
    assert not any(t.name == "blobmap background" for t in threading.enumerate())
