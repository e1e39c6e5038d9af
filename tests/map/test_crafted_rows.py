"""A map whose rows were tampered with fails with typed errors that say so, and never otherwise.

Method: a map with a row or two in every table; then, table by table, rows whose keys have too
few or too many parts, or parts that are no texts, and values that are no records, or records
of something else. Opening it and every call must succeed, or raise an error of ours.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress

import pytest
from support.map_model import BLOBS, DATA, MapWorld, fail, image_of

import blobkv
from blobmap._map import schema
from blobmap.contracts import Policy
from blobmap.errors import BlobMapError
from blobmap.snapshotter import BlobSnapshotter

X, Y, Z, LAST = BLOBS[:4]
TABLES = (
    *(schema.EDGE, schema.NOTE, schema.IMAGE, schema.LISTING, schema.CLAIM, schema.LEASE),
    *(schema.LEASED, schema.INTENT, schema.LEFTOVER, schema.HOLDER, schema.MENTION),
    *(schema.TALLY, schema.QUEUE, schema.EVENT),
)
SCOPE = ("default", "default")
KEYS: tuple[bytes, ...] = (
    b"\xff\x00",
    blobkv.pack(1),
    blobkv.pack("default"),
    blobkv.pack(*SCOPE),
    blobkv.pack(*SCOPE, "a"),
    blobkv.pack(*SCOPE, "a", "b", "c", "d", "e"),
    blobkv.pack("no scope!", "", "a", "layer"),
    blobkv.pack(X, "snapshot", *SCOPE),
    blobkv.pack(X, "snapshot", "no scope!", "", "a", "layer"),
    blobkv.pack(X, "stranger", *SCOPE, "a"),
    blobkv.pack(X, *SCOPE),
    blobkv.pack("no digest"),
    blobkv.pack(7, "event"),
)
VALUES = (b"", b"\xff", b"[" * 100_000, b"[]", b"{}", b'{"digest":"x"}')

CALLS: tuple[Callable[[BlobSnapshotter], object], ...] = (
    lambda target: list(target.walk()),
    lambda target: target.references_of("a"),
    lambda target: target.metadata("a"),
    lambda target: list(target.snapshots_of(X)),
    lambda target: target.references(X),
    lambda target: list(target.blobs()),
    lambda target: target.explain(X),
    lambda target: target.disk_usage(),
    lambda target: list(target.pending()),
    lambda target: target.plan_removal("a"),
    lambda target: list(target.events()),
    lambda target: list(target.images()),
    lambda target: list(target.leases()),
    lambda target: list(target.open_lease("l").digests()),
    lambda target: target.reconcile(dry_run=True),
    lambda target: target.reconcile(force=True),
    lambda target: target.set_blob("b", X, replace=True),
    lambda target: target.remove_image("i"),
    lambda target: target.remove("b"),
    lambda target: target.cleanup(),
)


def full() -> MapWorld:
    """A map with something in each of its tables."""
    world = MapWorld()
    for name, digest in (("a", X), ("b", Y), ("c", Z)):
        world.make(name, digest)
    target = world.snapshotter
    target.set_reference("a", "build", Y, policy=Policy.KNOW)
    target.set_metadata("a", "n", 1)
    target.set_image(image_of("i", (X,), ("a",)))
    target.lease("l").hold(X)
    target.work().hold(X)
    world.content.hook = fail(OSError, "delete")
    world.inner.hook = fail(OSError, "remove", "stat", moment="after", times=2)
    with suppress(OSError):
        target.remove("c")
    world.content.add_blob(DATA[LAST])
    with target.work() as work:
        work.hold(LAST)
        work.hold(Z)
    return world


def try_all(world: MapWorld) -> None:
    """Open the map and make every call; only errors of ours may come out."""
    ours = BlobMapError, blobkv.BlobKVError
    world.content.hook = world.inner.hook = fail(OSError)
    world.snapshotter.close()
    with suppress(*ours):
        world.snapshotter = world.open()
        for call in CALLS:
            with suppress(*ours):
                call(world.snapshotter)
        world.snapshotter.close()


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_a_row_that_was_never_written(table: str) -> None:
    for key in KEYS:
        world = full()
        with world.snapshotter._parts.refs.update("a test") as change:
            change.txn.bucket(table).put(key, b"{}")
        try_all(world)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_a_value_that_was_never_written(table: str) -> None:
    for value in VALUES:
        world = full()
        with world.snapshotter._parts.refs.update("a test") as change:
            bucket = change.txn.bucket(table)
            for key in list(bucket):
                bucket.put(key, value)
        try_all(world)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_times_without_a_zone(table: str) -> None:
    world = full()
    with world.snapshotter._parts.refs.update("a test") as change:
        bucket = change.txn.bucket(table)
        for key, value in list(bucket.items()):
            bucket.put(key, value.replace(b"+00:00", b""))
    try_all(world)
