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

import copy
import random
from collections.abc import Callable
from functools import cache

import pytest
from support.map_model import (
    BLOBS,
    DATA,
    MapModel,
    MapWorld,
    State,
    image_of,
    state_of,
    state_wanted,
)

from blobkv.testing import PowerCut
from blobmap._map.work import Work
from blobmap.errors import BlobMapError

X, Y, Z, MANIFEST, FOREIGN, ABSENT = BLOBS

Step = tuple[str, tuple[object, ...], dict[str, object]]


def step(call: str, *args: object, **options: object) -> Step:
    return call, args, options


def layer(key: str, name: str, parent: str, digest: str) -> tuple[Step, ...]:
    return (
        step("add_blob", digest),
        step("prepare", key, parent),
        step("commit", name, key),
        step("set_blob", name, digest, replace=False),
    )


TWO_IMAGES = (
    # The second shares a layer with the first, and is made by work in flight.
    *layer("\x00", "a", "", X),
    *layer("\x00", "a-", "a", Y),
    step("add_blob", MANIFEST),
    step("set_image", image_of("i", (MANIFEST,), ("a", "a-"))),
    step("begin_work", "w"),
    step("hold", "w", Z),
    step("add_blob", Z),
    step("scratch", "w", "-"),
    step("prepare", "-", "a"),
    step("commit", "\xff", "-"),
    step("set_blob", "\xff", Z, replace=False),
    step("set_image", image_of("j", (MANIFEST,), ("a", "\xff"))),
    step("end_work", "w"),
)
WORK_THAT_FAILS = (
    step("begin_work", "w"),
    step("scratch", "w", "\x00\xff"),
    step("prepare", "\x00\xff", "a-"),
    step("end_work", "w"),
    step("begin_work", "w"),
    step("add_blob", FOREIGN),
    step("hold", "w", FOREIGN),
    step("hold", "w", ABSENT),
    step("add_blob", ABSENT),
    step("end_work", "w"),
)
TAKEN_APART = (
    step("set_image", image_of("i", (), ("a",))),
    step("remove_image", "j"),
    step("add_blob", Y),
    step("set_blob", "a", Y, replace=True),
    step("unset_blob", "a"),
    step("add_blob", X),
    step("set_blob", "a", X, replace=False),
    step("remove_image", "i"),
)
KEYS_USED_AGAIN = (
    *layer("-", "a", "", X),
    step("vanish", "a"),
    *layer("-", "a", "", Y),
    step("vanish", "a"),
    step("prepare", "a", ""),
    step("commit", "-", "a"),
    step("add_blob", Y),
    step("set_blob", "-", Y, replace=False),
    step("remove", "-"),
)
WORKLOAD = TWO_IMAGES + WORK_THAT_FAILS + TAKEN_APART + KEYS_USED_AGAIN


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


def play(world: MapWorld, works: dict[str, Work], played: Step) -> None:
    """Do one step of the workload for real."""
    call, args, options = played
    if call == "add_blob":
        world.content.add_blob(DATA[str(args[0])])
    elif call == "vanish":
        world.inner.remove(str(args[0]))
    elif call == "begin_work":
        works["w"] = world.snapshotter.work()
    elif call == "end_work":
        works["w"].close()
    elif call in {"hold", "scratch"}:
        getattr(works["w"], call)(args[1])
    else:
        getattr(world.snapshotter, call)(*args, **options)


def play_model(model: MapModel, played: Step) -> None:
    """Do one step of the workload in the model."""
    call, args, options = played
    if call == "add_blob":
        model.content.add(str(args[0]))
    else:
        getattr(model, call)(*args, **options)


@cache
def acceptable() -> tuple[tuple[State, ...], ...]:
    """For each step, the states that may be found when it was interrupted."""
    found = []
    model = MapModel()
    for played in WORKLOAD:
        models = [copy.deepcopy(model)]
        if played[0] == "commit":
            # What was under the key from an earlier life is dropped before, on its own.
            half = copy.deepcopy(model)
            half.drop_stale(str(played[1][1]))
            models.append(half)
        play_model(model, played)
        models.append(copy.deepcopy(model))
        for reopened in models:
            reopened.reopen()
        found.append(tuple(map(state_wanted, models)))
    return tuple(found)


def run(world: MapWorld) -> int:
    """Play the workload to its end, or to its death; return how many steps were done."""
    works: dict[str, Work] = {}
    for done, played in enumerate(WORKLOAD):
        try:
            play(world, works, played)
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
    assert state_of(world) in acceptable()[-1]
    return moments


def revive(world: MapWorld, seed: int) -> MapWorld:
    """The world after the crash: the same fakes, and what is left of the disk."""
    keep = ("random", "all", "none")[seed % 3]
    revived = MapWorld(opened=False)
    revived.inner, revived.content = world.inner, world.content
    revived.disk = world.disk.crash(random.Random(seed), keep=keep)
    return revived


@pytest.mark.slow
def test_dying_at_every_call() -> None:
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
        assert state_of(world) in acceptable()[done], f"step {WORKLOAD[done]}, call {moment}"
        world.check()
    print(f"{moments} moments to die at, {openings} openings")


@pytest.mark.slow
def test_power_cut_at_every_disk_operation() -> None:
    _, first, final = rehearsed()
    openings = 0
    for operation in range(first, final + 1):
        world = MapWorld()
        Hooks(world, never)
        world.disk.cut_at = operation
        done = run(world)
        assert done < len(WORKLOAD)

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
        assert state_of(world) in acceptable()[done], f"step {WORKLOAD[done]}, op {operation}"
        world.check()
    print(f"{final - first + 1} operations to cut at, {openings} openings")


@pytest.mark.slow
@pytest.mark.parametrize("error", [OSError, BlobMapError, RuntimeError])
def test_failing_at_every_call(error: type[Exception]) -> None:
    """One call fails and the process lives on: nothing that is mapped goes, nothing leaks."""
    moments, _, _ = rehearsed()
    for moment in range(1, moments + 1):
        world = MapWorld()

        def strike(count: int, moment: int = moment) -> None:
            if count == moment:
                raise error("out of order, once")

        Hooks(world, strike)
        works: dict[str, Work] = {}
        for played in WORKLOAD:
            try:
                play(world, works, played)
            except (error, BlobMapError):
                # Later steps may miss what this one should have made.
                continue
            finally:
                assert_nothing_lost(world)
        world.reopen()
        assert_nothing_lost(world)
        assert not world.queue()
        report = world.snapshotter.reconcile(force=True)
        assert report.ok, report
        world.check()


def assert_nothing_lost(world: MapWorld) -> None:
    """Whatever a snapshot or an image stands for is in the content store."""
    present = {blob for blob in BLOBS if blob in world.content._blobs}
    assert {blob.digest for blob in world.snapshotter.blobs()} <= present
