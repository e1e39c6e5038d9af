"""Calls that take every path of more than one step, and what may be found if they break off.

The same steps are played on a wrapper and on the model; `acceptable` says, for each step, how
the map may be when it is opened anew after a crash in that step.
"""

from __future__ import annotations

import copy
from contextlib import suppress
from functools import cache

from support.fakes import FakeContentStore
from support.map_model import BLOBS, DATA, HOUR, Clock, State, image_of
from support.plain_map import MapModel, state_wanted

from blobmap._map.leases import Lease
from blobmap._map.work import Work
from blobmap.contracts import ContentStore, Policy
from blobmap.errors import AlreadyExists
from blobmap.snapshotter import BlobSnapshotter

X, Y, Z, MANIFEST, FOREIGN, ABSENT = BLOBS

RETAIN, KNOW = Policy.RETAIN, Policy.KNOW

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
OTHER_ROLES = (
    *layer("-", "a", "", X),
    step("set_metadata", "a", "m", [1]),
    step("add_blob", Y),
    step("add_blob", Z),
    step("set_reference", "a", "build", Y, policy=RETAIN, replace=False),
    step("set_reference", "a", "zstd", Z, policy=KNOW, replace=False),
    step("set_reference", "a", "zstd", Z, policy=RETAIN, replace=True),
    step("set_reference", "a", "build", Y, policy=KNOW, replace=True),
    step("set_reference", "a", "build", X, policy=RETAIN, replace=True),
    step("unset_reference", "a", "build"),
    step("set_metadata", "a", "m", None),
    step("set_metadata", "a", "n", ""),
    step("remove", "a", wait=True),
    step("prepare", "a", ""),
    step("set_metadata", "a", "m", {}),
    step("commit", "-", "a"),
    step("remove", "-", wait=True),
)
LEASED = (
    *layer("-", "a", "", X),
    step("lease", "l", 1),
    step("lease_hold", "l", X),
    step("lease_hold", "l", Y),
    step("add_blob", Y),
    step("remove", "a"),
    step("lease_renew", "l", 2),
    step("tick"),
    step("lease_drop", "l", X),
    step("tick"),
    step("cleanup"),
    step("lease", "l", 5),
    step("lease_hold", "l", Y),
    step("add_blob", Y),
    step("lease_release", "l"),
    step("lease", "left", 9),
    step("lease_hold", "left", Z),
    step("add_blob", Z),
)
RECONCILED = (
    *layer("-", "a", "", X),
    step("vanish", "a"),
    step("reconcile"),
)
WORKLOAD = (
    TWO_IMAGES
    + WORK_THAT_FAILS
    + TAKEN_APART
    + KEYS_USED_AGAIN
    + OTHER_ROLES
    + LEASED
    + RECONCILED
)


def play(target: BlobSnapshotter, clock: Clock, works: dict[str, Work], played: Step) -> None:
    """Do one step of the workload for real."""
    call, args, options = played
    if call == "add_blob":
        add_blob(target.content, str(args[0]))
    elif call == "vanish":
        target.inner.remove(str(args[0]))
    elif call == "begin_work":
        works["w"] = target.work()
    elif call == "end_work":
        works["w"].close()
    elif call == "tick":
        clock.now += HOUR
    elif call == "lease":
        target.lease(str(args[0]), lifetime=int(str(args[1])) * HOUR)
    elif call == "lease_renew":
        Lease(target._leases, str(args[0])).renew(int(str(args[1])) * HOUR)
    elif call.startswith("lease_"):
        getattr(Lease(target._leases, str(args[0])), call.removeprefix("lease_"))(*args[1:])
    elif call == "reconcile":
        target.reconcile(force=True)
    elif call in {"hold", "scratch"}:
        getattr(works["w"], call)(args[1])
    else:
        getattr(target, call)(*args, **options)


def play_model(model: MapModel, played: Step) -> None:
    """Do one step of the workload in the model."""
    call, args, options = played
    if call == "add_blob":
        model.content.add(str(args[0]))
    else:
        getattr(model, call)(*args, **options)


def add_blob(content: ContentStore, digest: str) -> None:
    """Put the blob there, as an import does, unless it is there."""
    if isinstance(content, FakeContentStore):
        content.add_blob(DATA[digest])
        return
    with suppress(AlreadyExists), content.writer(digest, digest=digest) as writer:
        writer.truncate(0)
        writer.write(DATA[digest])
        writer.commit(digest=digest)


@cache
def acceptable() -> tuple[tuple[State, ...], ...]:
    """For each step, the states that may be found when it was interrupted; then the last."""
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
    model.reopen()
    found.append((state_wanted(model),))
    return tuple(found)
