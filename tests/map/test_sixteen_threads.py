"""Calls of sixteen threads could have been made one after another, and leave what they should.

Method: four families of names and blobs, four threads each, every call to the fakes delayed at
random. Each call is recorded with its begin, end, and outcome, and for each family an order is
looked for that explains them all, with and without a background. At the end every blob is
there that is held or that nobody ever held, and no other. `BLOBMAP_HISTORIES=5000` takes so
many histories, from `BLOBMAP_HISTORIES_SEED` on.

What hangs is then a call about one family's snapshot or blob: the others go on as if nothing
were.
"""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable

import pytest
from support.fault_table import Note
from support.map_histories import ABSENT, Call, Family, linearizes, looked, outcome_of
from support.map_model import MapWorld, check_feed

from blobmap import digest as digests
from blobmap.snapshotter import BlobSnapshotter

COUNT = int(os.environ.get("BLOBMAP_HISTORIES", "100"))
SEED = int(os.environ.get("BLOBMAP_HISTORIES_SEED", "0"))
LIMIT_SECONDS = 60.0
FAMILIES = "pqrs"
THREADS = 4
CALLS = 5
DATA = {
    digests.of(text.encode()): text for text in map("".join, itertools.product("pqrs", "xy"))
}
BLOBS = {family: [d for d, text in DATA.items() if text[0] == family] for family in FAMILIES}
DELAY_SECONDS = 0.0005


class World(MapWorld):
    """A world that waits no time, or the usual one, for what is done in the background."""

    patience = 0.0

    def open(self) -> BlobSnapshotter:
        self.inner.reopen()
        return BlobSnapshotter(
            self.inner,
            self.content,
            "/map",
            background=self.background,
            patience=self.patience,
            fs=self.disk,
        )


class Recorder:
    """Makes calls on a world, and keeps what came of them."""

    def __init__(self, world: MapWorld) -> None:
        self.world = world
        self.calls: dict[str, list[Call]] = {family: [] for family in FAMILIES}
        self._clock = itertools.count(1)

    def call(self, family: str, name: str, *args: str) -> None:
        began = next(self._clock)
        outcome = outcome_of(getattr(self, f"_{name}"), *args)
        self.calls[family].append(Call(began, next(self._clock), name, args, outcome))

    def _prepare(self, key: str, parent: str) -> str:
        self.world.snapshotter.prepare(key, parent)
        return ""

    def _view(self, key: str, parent: str) -> str:
        self.world.snapshotter.view(key, parent)
        return ""

    def _commit(self, name: str, key: str) -> str:
        self.world.snapshotter.commit(name, key)
        return ""

    def _remove(self, key: str) -> str:
        self.world.snapshotter.remove(key)
        return ""

    def _set_blob(self, key: str, digest: str, replace: str) -> str:
        self.world.snapshotter.set_blob(key, digest, replace=bool(replace))
        return ""

    def _unset_blob(self, key: str) -> str:
        self.world.snapshotter.unset_blob(key)
        return ""

    def _get_blob(self, key: str) -> str:
        blob = self.world.snapshotter.get_blob(key)
        return "" if blob is None else blob.digest

    def _add_blob(self, digest: str) -> str:
        self.world.content.add_blob(DATA[digest].encode())
        return ""

    def _reconcile(self) -> str:
        report = self.world.snapshotter.reconcile()
        wrong = set(report.counts) - {"removal open", "deletion open"}
        return " ".join(sorted(kind for kind in wrong if report.counts[kind]))

    def look(self, family: str) -> None:
        """Record what the family has come to, when all is quiet."""
        snapshotter = self.world.snapshotter
        infos = [info for info in snapshotter.walk() if info.name[0] == family]
        snapshots = {
            info.name: (info.kind.value, info.parent, info.blob.digest if info.blob else "")
            for info in infos
        }
        present = self.world.present() & set(BLOBS[family])
        outcome = looked(snapshots, present, self.world.queue() & set(BLOBS[family]))
        began = next(self._clock)
        self.calls[family].append(Call(began, next(self._clock), "look", (), outcome))


def drawn(rng: random.Random, family: str, *, reconciles: bool) -> tuple[str, ...]:
    """Return a call on the family."""
    names = [family + name for name in "abc"]
    key, other, digest = rng.choice(names), rng.choice(names), rng.choice(BLOBS[family])
    parent = rng.choice(("", "", other))
    calls = [
        ("prepare", key, parent),
        ("view", key, parent),
        ("commit", key, other),
        ("commit", key, other),
        ("remove", key),
        ("remove", key),
        ("unset_blob", key),
        ("get_blob", key),
        ("add_blob", digest),
        *[("set_blob", key, digest, rng.choice(("", "yes")))] * 4,
    ]
    if reconciles:
        calls.append(("reconcile",))
    return rng.choice(calls)


def delaying(seed: int) -> Callable[[str, str, str], None]:
    rng = random.Random(seed)

    def hook(moment: str, call: str, key: str) -> None:
        if rng.random() < 0.3:
            time.sleep(rng.random() * DELAY_SECONDS)

    return hook


def play(recorder: Recorder, seed: int, families: str, *, reconciles: bool) -> None:
    """Have the threads of these families make their calls, and wait for all of them."""
    failures: list[BaseException] = []

    def act(family: str, number: int) -> None:
        rng = random.Random(f"{seed} {family} {number}")
        try:
            for _ in range(CALLS):
                recorder.call(family, *drawn(rng, family, reconciles=reconciles))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [
        threading.Thread(target=act, args=(family, number), daemon=True)
        for family in families
        for number in range(THREADS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive(), f"seed {seed}: a call hangs"
    assert not failures, f"seed {seed}"


def begun(seed: int, *, background: bool) -> Recorder:
    """Return a world in which each family has two mapped snapshots, one on the other."""
    World.patience = (0.0, 0.5)[seed // 2 % 2]
    recorder = Recorder(World(background=background))
    for family in FAMILIES:
        first, second = BLOBS[family]
        for key, parent, digest in (("a", "", first), ("b", f"{family}a", second)):
            recorder.call(family, "prepare", f"{family}c", parent)
            recorder.call(family, "commit", family + key, f"{family}c")
            recorder.call(family, "add_blob", digest)
            recorder.call(family, "set_blob", family + key, digest, "")
    return recorder


def judge(recorder: Recorder, seed: int) -> None:
    """Bring the world to rest, and look for an order of each family's calls."""
    world = recorder.world
    world.inner.hook = world.content.hook = lambda moment, call, key: None
    world.snapshotter.close()
    world.background = False
    world.snapshotter = world.open()
    assert world.queue() == set()
    world.snapshotter._parts.refs.check()
    check_feed(world.snapshotter)
    for family in FAMILIES:
        recorder.look(family)
        calls = recorder.calls[family]
        start = Family(blobs=dict.fromkeys(BLOBS[family], ABSENT))
        assert linearizes(calls, start), (f"seed {seed}", calls)
    world.snapshotter.close()


@pytest.mark.slow
@pytest.mark.parametrize("background", [False, True])
def test_sixteen_threads_could_have_been_one(tried: Note, *, background: bool) -> None:
    for seed in range(SEED, SEED + COUNT):
        recorder = begun(seed, background=background)
        world = recorder.world
        world.inner.hook = world.content.hook = delaying(seed)
        play(recorder, seed, FAMILIES, reconciles=True)
        judge(recorder, seed)
    tried("history of sixteen threads on a map", COUNT)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("call", "subject", "first"),
    [
        ("delete", BLOBS["p"][1], ("remove", "pb")),
        ("info", BLOBS["p"][0], ("set_blob", "pb", BLOBS["p"][0], "yes")),
        ("remove", "pb", ("remove", "pb")),
        ("stat", "pb", ("unset_blob", "pb")),
        ("commit", "pd", ("commit", "pd", "pc")),
    ],
)
@pytest.mark.parametrize("background", [False, True])
def test_what_hangs_holds_up_its_own_family_only(
    call: str, subject: str, first: tuple[str, ...], *, background: bool
) -> None:
    recorder = begun(0, background=background)
    recorder.call("p", "prepare", "pc", "")
    if call == "stat":
        recorder.call("p", "unset_blob", "pb")
    hangs, goes_on = threading.Event(), threading.Event()

    def hook(moment: str, called: str, key: str) -> None:
        if (moment, called, key) == ("before", call, subject):
            hangs.set()
            assert goes_on.wait(LIMIT_SECONDS)

    recorder.world.inner.hook = recorder.world.content.hook = hook
    caller = threading.Thread(target=recorder.call, args=("p", *first), daemon=True)
    caller.start()
    try:
        assert hangs.wait(LIMIT_SECONDS)
        play(recorder, 0, FAMILIES.replace("p", ""), reconciles=False)
    finally:
        goes_on.set()
    caller.join(LIMIT_SECONDS)
    assert not caller.is_alive()
    judge(recorder, 0)
