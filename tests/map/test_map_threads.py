"""Many threads on few names lose no blob, leak no blob, and never wait for each other for ever.

Method: first, schedules that broke earlier designs, forced step by step with events in the
fakes' hooks. Then eight threads make, map, and remove at random what they can get hold of,
while one reads: a snapshot that lives must keep its blob, and the blob must be there. At the
end everything is removed, and nothing may be left. A hang is a failure by the join's limit.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from support.map_model import BLOBS, DATA, IMAGES, NAMES, MapWorld, image_of

from blobmap import locks
from blobmap.contracts import Info, Kind
from blobmap.errors import (
    AlreadyExists,
    BlobMapError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from blobmap.locks import Locks

X, Y = BLOBS[:2]
LIMIT_SECONDS = 60
EXPECTED = (AlreadyExists, FailedPrecondition, InvalidArgument, NotFound)


@pytest.fixture
def world() -> Iterator[MapWorld]:
    world = MapWorld()
    yield world
    world.check()
    assert world.snapshotter._parts.locks._users == {}
    world.snapshotter.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


def waits(call: Future[None]) -> bool:
    """Whether the call still waits for a lock after everything else had time to happen."""
    time.sleep(0.02)
    return not call.done()


def test_a_blob_that_was_seen_is_not_deleted_before_it_is_mapped(
    world: MapWorld, pool: ThreadPoolExecutor
) -> None:
    world.make("first", X)
    world.make("second")
    removed = threading.Event()
    removals: list[Future[None]] = []

    def remove_first_meanwhile(moment: str, call: str, key: str) -> None:
        if (moment, call, key) == ("after", "info", X) and not removals:
            removals.append(pool.submit(world.snapshotter.remove, "first"))
            assert removed.wait(LIMIT_SECONDS)

    world.content.hook = remove_first_meanwhile
    world.inner.hook = on("after", "remove", removed.set)
    world.snapshotter.set_blob("second", X)
    removals[0].result(LIMIT_SECONDS)

    assert X in world.present()
    assert list(world.snapshotter.snapshots_of(X)) == ["second"]


def test_a_blob_that_is_being_deleted_cannot_be_mapped(
    world: MapWorld, pool: ThreadPoolExecutor
) -> None:
    world.make("first", X)
    world.make("second")
    mappings: list[Future[None]] = []

    def map_second_meanwhile() -> None:
        mappings.append(pool.submit(world.snapshotter.set_blob, "second", X))
        assert waits(mappings[0])

    world.content.hook = on("before", "delete", map_second_meanwhile)
    world.snapshotter.remove("first")

    with pytest.raises(NotFound):
        mappings[0].result(LIMIT_SECONDS)
    assert world.snapshotter.get_blob("second") is None


def test_two_removals_at_once_delete_the_blob_they_share(
    world: MapWorld, pool: ThreadPoolExecutor
) -> None:
    world.make("first", X)
    world.make("second", X)
    both = threading.Barrier(2)
    world.inner.hook = on("after", "remove", lambda: both.wait(LIMIT_SECONDS))

    removals = [pool.submit(world.snapshotter.remove, name) for name in ("first", "second")]
    for removal in removals:
        removal.result(LIMIT_SECONDS)

    assert X not in world.present()


def test_of_two_removals_of_one_snapshot_one_finds_nothing(
    world: MapWorld, pool: ThreadPoolExecutor
) -> None:
    world.make("first", X)
    others: list[Future[None]] = []

    def remove_it_too() -> None:
        if not others:
            others.append(pool.submit(world.snapshotter.remove, "first"))
            assert waits(others[0])

    world.inner.hook = on("before", "remove", remove_it_too)
    world.snapshotter.remove("first")

    with pytest.raises(NotFound):
        others[0].result(LIMIT_SECONDS)


def test_a_snapshot_that_is_being_removed_cannot_be_mapped(
    world: MapWorld, pool: ThreadPoolExecutor
) -> None:
    world.make("first", X)
    world.content.add_blob(DATA[Y])
    mappings: list[Future[None]] = []

    def map_it_meanwhile() -> None:
        mappings.append(pool.submit(map_first_to_y))
        assert waits(mappings[0])

    def map_first_to_y() -> None:
        world.snapshotter.set_blob("first", Y, replace=True)

    world.inner.hook = on("before", "remove", map_it_meanwhile)
    world.snapshotter.remove("first")

    with pytest.raises(NotFound):
        mappings[0].result(LIMIT_SECONDS)
    assert world.snapshotter.references(Y) == 0


@pytest.mark.parametrize(
    "ask",
    [
        lambda world: world.snapshotter.get_blob("first"),
        lambda world: world.snapshotter.stat("first").blob,
        lambda world: world.snapshotter.update(Info("first", "", Kind.COMMITTED)).blob,
        lambda world: world.snapshotter.references_of("first"),
        lambda world: world.snapshotter.metadata("first"),
    ],
)
def test_a_snapshot_that_is_removed_meanwhile_is_not_told_to_have_had_nothing(
    world: MapWorld, ask: Callable[[MapWorld], object]
) -> None:
    world.make("first", X)
    world.snapshotter.set_metadata("first", "m", 1)
    wanted = ask(world)

    def remove_it_meanwhile(moment: str, call: str, key: str) -> None:
        if moment == "after" and call in {"stat", "update"}:
            world.inner.hook = on("never", "", lambda: None)
            world.snapshotter.remove("first")

    world.inner.hook = remove_it_meanwhile
    assert ask(world) == wanted
    assert wanted


def test_what_an_image_is_made_of_stays_until_it_is_recorded(
    world: MapWorld, pool: ThreadPoolExecutor
) -> None:
    world.make("first", X)
    world.make("second", Y, parent="first")
    removals: list[Future[None]] = []

    def remove_it_meanwhile(moment: str, call: str, key: str) -> None:
        # All of it was looked at by now.
        if (moment, call, key) == ("after", "info", Y) and not removals:
            removals.append(pool.submit(world.snapshotter.remove, "second"))
            assert all(map(waits, removals))

    world.content.hook = remove_it_meanwhile
    world.snapshotter.set_image(image_of("i", (X, Y), ("first", "second")))
    assert world.snapshotter.references(X) == 2
    for removal in removals:
        removal.result(LIMIT_SECONDS)

    assert X in world.present()
    assert Y in world.present()


def test_locks_asked_for_in_any_order_are_had(pool: ThreadPoolExecutor) -> None:
    table = Locks()
    names = [locks.blob("a"), locks.image("a"), locks.snapshot("a"), locks.snapshot("b")]

    def hold_all(seed: int) -> None:
        rng = random.Random(seed)
        for _ in range(200):
            with table.hold(*rng.sample(names, 3)):
                time.sleep(0)

    for held in [pool.submit(hold_all, seed) for seed in range(8)]:
        held.result(LIMIT_SECONDS)
    assert table._users == {}


def test_a_snapshotter_that_hangs_holds_up_nobody_else(
    world: MapWorld, pool: ThreadPoolExecutor
) -> None:
    world.make("hangs", X)
    world.make("works")
    goes_on = threading.Event()
    hangs = threading.Event()

    def hang() -> None:
        hangs.set()
        assert goes_on.wait(LIMIT_SECONDS)

    world.inner.hook = on("before", "remove", hang)
    removal = pool.submit(world.snapshotter.remove, "hangs")
    assert hangs.wait(LIMIT_SECONDS)
    world.content.add_blob(DATA[Y])
    world.snapshotter.set_blob("works", Y)
    world.snapshotter.set_blob("works", X, replace=True)
    assert world.snapshotter.stat("hangs").blob is not None
    goes_on.set()
    removal.result(LIMIT_SECONDS)

    assert X in world.present()


def on(moment: str, call: str, act: Callable[[], object]) -> Callable[[str, str, str], None]:
    """A hook that acts at one moment of one call, whatever it is about."""

    def hook(at: str, called: str, key: str) -> None:
        if (at, called) == (moment, call):
            act()

    return hook


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
def test_eight_threads_on_few_names(world: MapWorld, seed: int) -> None:
    stop = threading.Event()
    failures: list[BaseException] = []
    world.inner.hook = world.content.hook = dawdle

    def guarded(act: Callable[[random.Random], None], rng: random.Random) -> None:
        try:
            for _ in range(60):
                try:
                    act(rng)
                except EXPECTED:
                    continue
        except BaseException as error:
            failures.append(error)
            raise

    def read() -> None:
        try:
            while not stop.is_set():
                for info in world.snapshotter.walk():
                    assert_blob_stays(world, info.name)
        except BaseException as error:
            failures.append(error)
            raise

    acts = (import_layer, import_layer, import_image, remove, remove, remove_image, work, retag)
    threads = [
        threading.Thread(
            target=guarded,
            args=(lambda rng, act=act: act(world, rng), random.Random(seed * 100 + number)),
        )
        for number, act in enumerate(acts)
    ]
    reader = threading.Thread(target=read)
    for thread in (*threads, reader):
        thread.start()
    for thread in threads:
        thread.join(LIMIT_SECONDS)
        assert not thread.is_alive(), "a thread hangs"
    stop.set()
    reader.join(LIMIT_SECONDS)

    assert failures == []
    world.check()
    assert world.queue() == set()
    assert {info.digest for info in world.content.walk()} == {
        blob.digest for blob in world.snapshotter.blobs()
    }
    tear_down(world)
    assert list(world.content.walk()) == []


def dawdle(moment: str, call: str, key: str) -> None:
    """Let another thread go first."""
    time.sleep(0)


def assert_blob_stays(world: MapWorld, key: str) -> None:
    """As long as one snapshot lives, its blob is there."""
    try:
        before = world.snapshotter.stat(key)
        if before.blob is None:
            return
        try:
            world.content.info(before.blob.digest)
        except NotFound:
            after = world.snapshotter.stat(key)
            assert after.created != before.created, "a mapped blob was deleted"
    except NotFound:
        return


def import_layer(world: MapWorld, rng: random.Random) -> None:
    name, digest = rng.choice(NAMES), rng.choice(BLOBS[:4])
    parent = rng.choice(("", "", *NAMES))
    with world.snapshotter.work() as work:
        key = f"extract-{rng.random()}"
        work.hold(digest)
        work.scratch(key)
        world.content.add_blob(DATA[digest])
        world.snapshotter.prepare(key, parent)
        if rng.random() < 0.8:
            world.snapshotter.commit(name, key)
        world.snapshotter.set_blob(name, digest)


def import_image(world: MapWorld, rng: random.Random) -> None:
    import_layer(world, rng)
    manifest = BLOBS[4]
    with world.snapshotter.work() as work:
        work.hold(manifest)
        world.content.add_blob(DATA[manifest])
        names = tuple(rng.sample(NAMES, 2))
        world.snapshotter.set_image(image_of(rng.choice(IMAGES), (manifest,), names))


def retag(world: MapWorld, rng: random.Random) -> None:
    for image in world.snapshotter.images():
        world.snapshotter.set_image(image_of(rng.choice(IMAGES), (), image.snapshots[:1]))


def remove(world: MapWorld, rng: random.Random) -> None:
    world.snapshotter.remove(rng.choice(NAMES))


def remove_image(world: MapWorld, rng: random.Random) -> None:
    world.snapshotter.remove_image(rng.choice(IMAGES))


def work(world: MapWorld, rng: random.Random) -> None:
    with world.snapshotter.work() as work:
        for digest in rng.sample(BLOBS[:4], 2):
            work.hold(digest)
            world.content.add_blob(DATA[digest])
        if rng.random() < 0.5:
            raise NotFound("the work fails")


def tear_down(world: MapWorld) -> None:
    for image in list(world.snapshotter.images()):
        world.snapshotter.remove_image(image.name)
    while infos := list(world.snapshotter.walk()):
        for info in infos:
            try:
                world.snapshotter.remove(info.name)
            except BlobMapError:
                continue
