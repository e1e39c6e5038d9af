"""A map that an older blobmap wrote is brought to this one's schema, whatever interrupts that.

Method: `tests/data/map-schema-1` was written by the last blobmap of schema 1, as the log of a
store that was killed, and beside it stands what was in it. It is copied to a simulated disk.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

import blobkv
from blobkv.testing import PowerCut, SimulatedDisk
from blobmap._map import migration, schema
from blobmap._map.catalog import Catalog
from blobmap._map.claims import Claims
from blobmap._map.schema import Scope
from blobmap.contracts import LAYER, Policy
from blobmap.errors import DataLoss, FailedPrecondition
from blobmap.refs import Refs

DATA = Path(__file__).parents[1] / "data"
WAS = json.loads((DATA / "map-schema-1.json").read_text(encoding="utf-8"))
SCOPE = Scope("default", "default")


def of_schema_1() -> SimulatedDisk:
    disk = SimulatedDisk()
    disk.make_directory("/map")
    for path in (DATA / "map-schema-1").iterdir():
        file = disk.create(f"/map/{path.name}")
        file.append(path.read_bytes())
        file.sync()
        file.close()
    disk.sync_directory("/map")
    disk.sync_directory("/")
    return disk


def check_brought_over(disk: SimulatedDisk) -> None:
    refs = Refs.open("/map", SCOPE, fs=disk)
    refs.check()
    edges = {key: [edge.blob.digest, edge.incarnation] for key, edge in refs.edges()}
    assert edges == WAS["edges"]
    assert all(edge.reference.role == LAYER for _, edge in refs.edges())
    assert all(edge.reference.policy is Policy.RETAIN for _, edge in refs.edges())
    assert [digest for digest, _ in refs.queue()] == WAS["queue"]
    assert {digest: refs.count(digest) for digest in WAS["counts"]} == WAS["counts"]
    assert [image.name for image in Catalog(refs).images()] == ["i"]
    assert len(list(Claims(refs).works())) == 1
    assert len({digest for digest, _ in WAS["edges"].values()}) == 2
    refs.close()


def test_a_map_of_schema_1_is_brought_over() -> None:
    disk = of_schema_1()
    check_brought_over(disk)
    check_brought_over(disk)

    with blobkv.open("/map", fs=disk) as store, store.view() as txn:
        assert schema.version_is_settled(txn)


def test_power_lost_anywhere_in_a_migration_is_made_good(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(migration, "_PAGE_COUNT", 2)
    cuts = 0
    while True:
        disk = of_schema_1()
        disk.cut_at = disk.operations + cuts
        try:
            Refs.open("/map", SCOPE, fs=disk).close()
        except PowerCut:
            cuts += 1
            check_brought_over(disk.crash(random.Random(cuts)))
            continue
        break
    assert cuts > 10


@pytest.mark.parametrize("page_count", [1, 2, 3, 4])
def test_pages_of_any_size_bring_all_over(
    page_count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(migration, "_PAGE_COUNT", page_count)
    check_brought_over(of_schema_1())


def test_an_edge_that_does_not_read_is_data_loss_and_nothing_is_lost_by_that() -> None:
    disk = of_schema_1()
    with blobkv.open("/map", fs=disk) as store, store.update() as txn:
        good = txn.bucket(schema.EDGE)[SCOPE.key("a")]
        txn.bucket(schema.EDGE).put(SCOPE.key("a"), b"rot")
    with pytest.raises(DataLoss, match="snapshot 'a'"):
        Refs.open("/map", SCOPE, fs=disk)
    with blobkv.open("/map", fs=disk) as store, store.update() as txn:
        txn.bucket(schema.EDGE).put(SCOPE.key("a"), good)
    check_brought_over(disk)


@pytest.mark.parametrize("version", [0, -1, 99])
def test_a_version_that_is_none_is_refused(version: int) -> None:
    disk = of_schema_1()
    with blobkv.open("/map", fs=disk) as store, store.update() as txn:
        txn.put(b"schema", b'{"version":%d}' % version)
    with pytest.raises((DataLoss, FailedPrecondition)):
        Refs.open("/map", SCOPE, fs=disk)
