"""Moments inside a call: what another thread does there, and a process that ends there.

A race is not waited for. The hook of a fake stands still at the moment that matters, another
thread does its part from beginning to end, and then the call goes on. That somebody would have
to wait is told by a deadline of no time at all: who needs a lock that is taken fails at once.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from threading import Thread
from typing import TypeVar

import pytest
from support.fakes import Hook, no_hook
from support.map_model import MapWorld

from blobkv import BlobKVError
from blobkv.testing import PowerCut
from blobmap.deadlines import deadline
from blobmap.errors import DeadlineExceeded

R = TypeVar("R")

# A call that takes so long hangs.
LIMIT_SECONDS = 60.0


class Died(BaseException):
    """The process is gone; nothing catches this."""


def at(moment: str, call: str, act: Callable[[], object], *, key: str | None = None) -> Hook:
    """Return a hook that acts at that moment of that call, the first time it comes."""
    left = [act]

    def hook(when: str, called: str, about: str) -> None:
        if (when, called) == (moment, call) and key in {None, about} and left:
            left.pop()()

    return hook


def die() -> None:
    """End here, as by kill -9."""
    raise Died


def elsewhere(call: Callable[[], R]) -> R:
    """Return what the call returns, or raise what it raises, in a thread of its own."""
    outcome: Future[R] = Future()

    def run() -> None:
        try:
            outcome.set_result(call())
        except BaseException as error:  # noqa: BLE001  # It is raised where it is waited for.
            outcome.set_exception(error)

    Thread(target=run, daemon=True).start()
    return outcome.result(LIMIT_SECONDS)


def in_no_time(call: Callable[[], R]) -> R:
    """Make the call with a deadline that is over at once."""
    with deadline(0.0):
        return call()


def has_to_wait(call: Callable[[], object]) -> None:
    """Assert that another thread cannot make the call now."""
    with pytest.raises(DeadlineExceeded):
        elsewhere(lambda: in_no_time(call))


def commit_count(world: MapWorld) -> int:
    """How many commits the map has made; the disk itself is also written to beside them."""
    return world.snapshotter._parts.refs._store.sequence


def restart(world: MapWorld, *, seed: int = 0) -> None:
    """Go on as after a crash: fakes as they are, and of the disk what a power cut leaves."""
    world.inner.hook = world.content.hook = no_hook
    survivor = world.disk.crash(random.Random(seed), keep="none")
    # What the old process does from here on changes nothing; it only must not linger.
    with suppress(PowerCut, BlobKVError, OSError):
        world.snapshotter.close()
    world.disk = survivor
    world.snapshotter = world.open()
