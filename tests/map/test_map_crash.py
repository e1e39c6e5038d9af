"""A crash at any moment of any call leaves a map as if the call were done, or not begun.

Method: a fixed workload that takes every path of more than one step runs once to count its
*moments*: before and after each call to the snapshotter and the content store, and each
operation of the disk under the map. Then it runs once more for each moment and dies there.
The map is opened anew over what survived (the fakes as they are; of the disk what a power cut
leaves) and must be as a plain model is before the interrupted step, or after it. Opening dies
too, at its first moment, then at its second, and so on, until it gets through.

In a second kind of run nothing dies, but one call fails. Then no blob may be lost or leaked.
"""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from support.fault_table import Note
from support.map_model import BLOBS, MapWorld, check_feed, state_of
from support.map_workload import WORKLOAD, acceptable, play

from blobkv.testing import PowerCut
from blobmap._map.work import Work
from blobmap.errors import BlobMapError


class Died(BaseException):
    """The process is gone; nothing catches this."""


class Hooks:
    """Counts the calls to both fakes, and strikes at one moment or from one moment on."""

    def __init__(self, world: MapWorld, strike: Callable[[int], None]) -> None:
        self.count = 0
        self._strike = strike
        world.inner.hook = world.content.hook = self._pass

    def _pass(self, moment: str, call: str, key: str) -> None:
        self.count += 1
        self._strike(self.count)


def dying_at(last: int) -> Callable[[int], None]:
    def strike(moment: int) -> None:
        if moment >= last:
            raise Died

    return strike


def never(moment: int) -> None:
    pass


def run(world: MapWorld) -> int:
    """Play the workload to its end, or to its death; return how many steps were done."""
    works: dict[str, Work] = {}
    for done, played in enumerate(WORKLOAD):
        try:
            play(world.snapshotter, world.clock, works, played)
        except (Died, PowerCut):
            return done
    return len(WORKLOAD)


def rehearsed() -> tuple[int, int, int]:
    """The moments of one whole run: calls, and the first and last disk operation."""
    world = MapWorld()
    opened = world.disk.operations
    hooks = Hooks(world, never)
    assert run(world) == len(WORKLOAD)
    moments = hooks.count, opened + 1, world.disk.operations
    assert state_of(world.snapshotter) in acceptable()[-1]
    return moments


def revive(world: MapWorld, seed: int) -> MapWorld:
    """The world after the crash: the same fakes, and what is left of the disk."""
    keep = ("random", "all", "none")[seed % 3]
    revived = MapWorld(opened=False)
    revived.inner, revived.content = world.inner, world.content
    revived.clock = world.clock
    revived.disk = world.disk.crash(random.Random(seed), keep=keep)
    return revived


@pytest.mark.slow
def test_dying_at_every_call(tried: Note) -> None:
    moments, _, _ = rehearsed()
    openings = 0
    for moment in range(1, moments + 1):
        world = MapWorld()
        Hooks(world, dying_at(moment))
        done = run(world)
        assert done < len(WORKLOAD)

        for last in range(1, 1000):
            world = revive(world, moment + last)
            hooks = Hooks(world, dying_at(last))
            openings += 1
            try:
                world.snapshotter = world.open()
            except Died:
                assert hooks.count == last
            else:
                break
        Hooks(world, never)
        assert state_of(world.snapshotter) in acceptable()[done], (
            f"step {WORKLOAD[done]}, call {moment}"
        )
        world.check()
        check_feed(world.snapshotter)
    tried("process dies at a call, and in what is opened then", moments + openings)


@pytest.mark.slow
def test_power_cut_at_every_disk_operation(tried: Note) -> None:
    _, first, final = rehearsed()
    openings = 0
    for operation in range(first, final + 1):
        world = MapWorld()
        Hooks(world, never)
        world.disk.cut_at = operation
        # The store makes room in a thread of its own: a run may have fewer operations.
        done = run(world)

        for last in range(1, 1000):
            world = revive(world, operation + last)
            world.disk.cut_at = last
            openings += 1
            try:
                world.snapshotter = world.open()
            except PowerCut:
                continue
            break
        world.disk.cut_at = None
        assert state_of(world.snapshotter) in acceptable()[done], f"step {done}, op {operation}"
        world.check()
        check_feed(world.snapshotter)
    tried("power cut under a map, and in what is opened then", final - first + 1 + openings)


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError, BlobMapError, RuntimeError])
def test_failing_at_every_call(tried: Note, error: type[Exception]) -> None:
    """One call fails and the process lives on: nothing that is mapped goes, nothing leaks."""
    moments, _, _ = rehearsed()
    for moment in range(1, moments + 1):
        world = MapWorld()

        def strike(count: int, moment: int = moment) -> None:
            if count == moment:
                raise error("out of order, once")

        hooks = Hooks(world, strike)
        works: dict[str, Work] = {}
        for played in WORKLOAD:
            try:
                play(world.snapshotter, world.clock, works, played)
            except (error, BlobMapError):
                # Later steps may miss what this one should have made.
                continue
            finally:
                # Until it fails, it is as in every other run.
                if hooks.count >= moment:
                    assert_nothing_lost(world)
        world.reopen()
        assert_nothing_lost(world)
        assert not world.queue()
        report = world.snapshotter.reconcile(force=True)
        assert report.ok, report
        world.check()
        check_feed(world.snapshotter)
    tried("one call of a map fails", moments)


def assert_nothing_lost(world: MapWorld) -> None:
    """Whatever a snapshot or an image stands for is in the content store."""
    present = {blob for blob in BLOBS if blob in world.content._blobs}
    assert {blob.digest for blob in world.snapshotter.blobs()} <= present
