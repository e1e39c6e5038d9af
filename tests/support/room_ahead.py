"""Room ahead in logs from the first commit on, made where and when a test can count on it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future

import pytest

from blobkv._engine import room


class AtOnce:
    """Runs in the calling thread what a pool of one thread would run in its own."""

    def __init__(self, max_workers: int, thread_name_prefix: str) -> None:
        assert max_workers == 1
        assert thread_name_prefix

    def submit(self, fn: Callable[..., None], *args: object) -> Future[None]:
        future: Future[None] = Future()
        try:
            future.set_result(fn(*args))
        except BaseException as error:  # noqa: BLE001  # As a pool keeps it.
            future.set_exception(error)
        return future

    def shutdown(self, *, wait: bool) -> None:
        assert wait


def make_in_turn(patch: pytest.MonkeyPatch) -> None:
    """Have every log grow right after a commit: then operations of the disk can be counted."""
    patch.setattr(room, "ThreadPoolExecutor", AtOnce)


def make_at_once(patch: pytest.MonkeyPatch) -> None:
    """Have every log grow by some hundred bytes at a time, right after the commit."""
    make_in_turn(patch)
    patch.setattr(room, "_LOG_SIZE_MIN", 0)
    patch.setattr(room, "_STEP_MIN", 300)
    patch.setattr(room, "_STEP_MAX", 1000)
