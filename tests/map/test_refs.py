"""The relation between blobs and holders: what rows say, and that caches agree with them.

Method: `Refs` over a simulated disk; names that collide in naive encodings; each kind of damage
done to the rows by hand, found by `faults`, and mended by `repair`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.map_model import BLOBS, NAMES, image_of

import blobkv
from blobkv.testing import SimulatedDisk
from blobmap import digest as digests
from blobmap._map import schema
from blobmap._map.catalog import Catalog
from blobmap._map.claims import Claims
from blobmap._map.schema import Edge, Intent, Scope
from blobmap.contracts import LAYER, Blob, Policy, Reference
from blobmap.errors import DataLoss, FailedPrecondition, InvalidArgument
from blobmap.refs import Refs

X, Y, Z = BLOBS[:3]
SCOPE = Scope("default", "default")
WHY = "a test"


@pytest.fixture
def refs() -> Iterator[Refs]:
    refs = Refs.open("/map", SCOPE, fs=SimulatedDisk())
    yield refs
    refs.check()
    refs.close()


def edge_to(digest: str, life: str = "1") -> Edge:
    return Edge(Reference(LAYER, Blob(digest, 7)), life)


def queued(refs: Refs) -> list[str]:
    return [digest for digest, _ in refs.queue()]


def test_an_edge_reads_back_as_it_was_written(refs: Refs) -> None:
    blob = Blob(X, 7, diff_id=Y, media_type="application/x")
    edge = Edge(Reference("build", blob, Policy.KNOW, {"by": "hand"}), "2000-01-01")
    refs.put_edge("s", edge, WHY)

    assert refs.edge("s", "build") == edge
    assert refs.edge("s") is None
    assert list(refs.edges()) == [("s", edge)]


def test_a_blob_is_queued_when_its_last_edge_goes(refs: Refs) -> None:
    refs.put_edge("s", edge_to(X), WHY)
    refs.put_edge("t", edge_to(X), WHY)

    assert refs.finish_removal("s", WHY) == (X,)
    assert not refs.queued(X)
    assert refs.finish_removal("t", WHY) == (X,)
    assert refs.queued(X)
    assert refs.count(X) == 0


def test_holding_a_queued_blob_takes_it_off_the_queue(refs: Refs) -> None:
    refs.put_edge("s", edge_to(X), WHY)
    refs.finish_removal("s", WHY)
    refs.put_edge("t", edge_to(X), WHY)

    assert queued(refs) == []


def test_finishing_twice_releases_nothing_more(refs: Refs) -> None:
    refs.put_edge("s", edge_to(X), WHY)
    refs.put_edge("t", edge_to(X), WHY)
    refs.finish_removal("s", WHY)

    assert refs.finish_removal("s", WHY) == ()
    assert refs.count(X) == 1


def test_an_edge_that_changed_meanwhile_is_not_dropped(refs: Refs) -> None:
    refs.put_edge("s", edge_to(X), WHY)

    assert refs.drop_edge("s", edge_to(Y), WHY) is None
    assert refs.edge("s") == edge_to(X)


def test_mapping_a_snapshot_withdraws_the_intent_to_remove_it(refs: Refs) -> None:
    refs.put_intent("s", Intent("1"))
    refs.put_edge("s", edge_to(X), WHY)

    assert refs.intent("s") is None


names = st.text(st.sampled_from("\x00a-/:\xff\ud800\U0010ffff"), min_size=1, max_size=4)


@given(st.dictionaries(names, st.sampled_from((X, Y, Z)), max_size=8))
def test_no_name_reaches_into_another(edges: dict[str, str]) -> None:
    refs = Refs.open("/map", SCOPE, fs=SimulatedDisk())
    for name, digest in edges.items():
        refs.put_edge(name, edge_to(digest), WHY)

    for digest in (X, Y, Z):
        holders = sorted(name for name, held in edges.items() if held == digest)
        assert list(refs.snapshots_of(digest)) == holders
        assert refs.count(digest) == len(holders)
    for name, digest in edges.items():
        assert refs.finish_removal(name, WHY) == (digest,)
    assert set(queued(refs)) == set(edges.values())
    refs.check()


def test_scopes_see_their_own_names_and_count_each_others_holders() -> None:
    disk = SimulatedDisk()
    scopes = [Scope("a", "a-a"), Scope("a-a", "a"), Scope("a", "a")]
    for scope in scopes:
        refs = Refs.open("/map", scope, fs=disk)
        refs.put_edge("s", edge_to(X), WHY)
        refs.close()
    for left, scope in zip((2, 1, 0), scopes, strict=True):
        refs = Refs.open("/map", scope, fs=disk)
        assert list(refs.snapshots_of(X)) == ["s"]
        refs.finish_removal("s", WHY)
        assert refs.edge("s") is None
        assert refs.count(X) == left
        assert refs.queued(X) == (left == 0)
        refs.check()
        refs.close()


def test_more_rows_than_a_page_holds_are_all_seen(refs: Refs) -> None:
    expected = [f"{number:04}" for number in range(600)]
    for name in expected:
        refs.put_edge(name, edge_to(X), WHY)

    assert list(refs.snapshots_of(X)) == expected
    assert [name for name, _ in refs.edges()] == expected


def test_a_scan_goes_on_while_its_rows_are_removed(refs: Refs) -> None:
    for number in range(600):
        refs.put_edge(f"{number:04}", edge_to(X), WHY)
    for name, edge in refs.edges():
        assert refs.drop_edge(name, edge, WHY) == (X,)

    assert list(refs.edges()) == []
    assert refs.queued(X)


def test_a_foreign_blob_outlives_the_work_that_held_it(refs: Refs) -> None:
    claims = Claims(refs)
    claims.hold("w", X, exists=True)
    claims.hold("v", X, exists=True)
    claims.hold("w", Y, exists=False)

    assert set(claims.end("w", ())) == {X, Y}
    assert set(claims.end("v", ())) == {X}
    assert queued(refs) == [Y]


def test_a_blob_whose_deletion_was_queued_is_not_foreign(refs: Refs) -> None:
    refs.put_edge("s", edge_to(X), WHY)
    refs.finish_removal("s", WHY)
    claims = Claims(refs)
    claims.hold("w", X, exists=True)
    claims.end("w", ())

    assert refs.queued(X)


def test_a_foreign_blob_that_was_mapped_is_foreign_no_longer(refs: Refs) -> None:
    claims = Claims(refs)
    claims.hold("w", X, exists=True)
    refs.put_edge("s", edge_to(X), WHY)
    claims.end("w", ())
    refs.finish_removal("s", WHY)

    assert refs.queued(X)


@pytest.mark.parametrize(
    ("table", "damage"),
    [
        (schema.HOLDER, dict.clear),
        (schema.TALLY, dict.clear),
        (schema.LISTING, dict.clear),
        (schema.TALLY, lambda rows: rows.update({k: wrong_count(v) for k, v in rows.items()})),
        (schema.QUEUE, lambda rows: rows.update({blobkv.pack(X): b""})),
        (schema.TALLY, lambda rows: rows.update({blobkv.pack(Z): tally_of_nothing()})),
        (schema.HOLDER, lambda rows: rows.update({stray_holder("t"): b""})),
        (schema.HOLDER, lambda rows: rows.update({stray_holder("other"): b""})),
        (schema.LISTING, lambda rows: rows.update({SCOPE.key("s", "other"): b""})),
        (schema.MENTION, dict.clear),
        (schema.MENTION, lambda rows: rows.update({stray_mention("t"): b""})),
    ],
)
def test_each_cache_is_made_anew_from_the_truth(
    refs: Refs, table: str, damage: Callable[[dict[bytes, bytes]], None]
) -> None:
    refs.put_edge("s", edge_to(X), WHY)
    refs.put_edge("t", edge_to(Y), WHY)
    Catalog(refs).put(image_of("i", (X,), ("s", "t")), {X: 7})
    Claims(refs).hold("w", Y, exists=False)
    known = Reference("build", Blob(Z, 7), Policy.KNOW)
    refs.put_edge("s", Edge(known, "1"), WHY)
    with refs.update(WHY) as change:
        txn = change.txn
        rows = dict(txn.bucket(table).items())
        txn.bucket(table).clear()
        damage(rows)
        for key, raw in rows.items():
            txn.bucket(table).put(key, raw)

    assert refs.faults()
    assert refs.repair()
    refs.check()
    assert (refs.count(X), refs.count(Y), refs.count(Z)) == (2, 2, 0)
    assert list(Catalog(refs).listing("s")) == ["i"]


def test_a_lost_tally_gets_its_size_back(refs: Refs) -> None:
    refs.put_edge("s", edge_to(X), WHY)
    Catalog(refs).put(image_of("i", (Y, Z), ()), {Y: 8, Z: 9})
    with refs.update(WHY) as change:
        change.txn.bucket(schema.TALLY).clear()
    refs.repair()

    assert [(blob.digest, blob.size) for blob in refs.blobs()] == sorted(
        [(X, 7), (Y, 8), (Z, 9)]
    )


def wrong_count(raw: bytes) -> bytes:
    return raw.replace(b'"count":2', b'"count":9')


def tally_of_nothing() -> bytes:
    return schema.encode_tally(schema.Tally(1, 0, foreign=False))


def stray_holder(name: str) -> bytes:
    return schema.Holder(schema.BY_SNAPSHOT, SCOPE, name, LAYER).key(X)


def stray_mention(name: str) -> bytes:
    return schema.Holder(schema.BY_SNAPSHOT, SCOPE, name, LAYER).mention_key(X)


def test_a_tally_too_low_costs_no_blob(refs: Refs) -> None:
    refs.put_edge("s", edge_to(X), WHY)
    refs.put_edge("t", edge_to(X), WHY)
    with refs.update(WHY) as change:
        low = schema.encode_tally(schema.Tally(1, 7, foreign=False))
        change.txn.bucket(schema.TALLY).put(blobkv.pack(X), low)
    refs.finish_removal("s", WHY)

    assert not refs.queued(X)
    assert refs.count(X) == 1


def test_a_lost_row_of_the_index_does_not_keep_the_blob_for_ever(refs: Refs) -> None:
    refs.put_edge("s", edge_to(X), WHY)
    with refs.update(WHY) as change:
        change.txn.bucket(schema.HOLDER).clear()
    refs.finish_removal("s", WHY)

    assert refs.queued(X)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"\xff",
        b"[]",
        b"{}",
        b'{"digest":"sha256:..","incarnation":"1","size":7}',
        b'{"digest":1,"incarnation":"1","size":7}',
        schema.encode_edge(edge_to(X)).replace(b'"size":7', b'"size":-7'),
        schema.encode_edge(edge_to(X)).replace(b'"size":7', b'"size":true'),
        schema.encode_edge(edge_to(X)).replace(b'"incarnation":"1"', b'"incarnation":1'),
        schema.encode_edge(edge_to(X)).replace(b"sha256:", b"sha256:.."),
    ],
)
def test_a_record_that_does_not_read_is_data_loss(raw: bytes) -> None:
    refs = Refs.open("/map", SCOPE, fs=SimulatedDisk())
    with refs.update(WHY) as change:
        change.txn.bucket(schema.EDGE).put(SCOPE.key("s", LAYER), raw)

    with pytest.raises(DataLoss, match="snapshot 's'"):
        refs.edge("s")


def test_a_map_of_a_newer_blobmap_is_refused() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/map", fs=disk) as store, store.update() as txn:
        txn.put(b"schema", b'{"version":99}')

    with pytest.raises(FailedPrecondition, match=r"schema 99.*upgrade blobmap"):
        Refs.open("/map", SCOPE, fs=disk)
    # Refusing leaves nothing open.
    blobkv.open("/map", fs=disk).close()


def test_a_store_that_is_no_map_is_refused() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/map", fs=disk) as store, store.update() as txn:
        txn.bucket("fruit").put(b"apple", b"red")

    with pytest.raises(FailedPrecondition, match="not a blob map"):
        Refs.open("/map", SCOPE, fs=disk)


def test_the_longest_names_fit_and_longer_ones_are_refused() -> None:
    refs = Refs.open("/map", Scope("n" * 76, "s" * 76), fs=SimulatedDisk())
    snapshot = "\x00" * (schema.SNAPSHOT_SIZE_MAX // 2)
    image = "\x00" * (schema.IMAGE_SIZE_MAX // 2)
    sha512 = "sha512:" + "0" * 128
    schema.check_name("snapshot", snapshot, schema.SNAPSHOT_SIZE_MAX)
    refs.put_edge(snapshot, edge_to(digests.validate(sha512)), WHY)
    Catalog(refs).put(image_of(image, (X,), (snapshot,)), {X: 7})
    refs.check()

    assert list(refs.snapshots_of(sha512)) == [snapshot]
    with pytest.raises(InvalidArgument, match="larger than the limit"):
        schema.check_name("snapshot", snapshot + "a", schema.SNAPSHOT_SIZE_MAX)
    assert refs.edge(snapshot + "a" * 1000) is None
    assert Catalog(refs).image(image + "a" * 1000) is None


@pytest.mark.parametrize("name", ["", "a b", "-a", "a-", "a..b", "a/b", "\xe9", "a" * 77])
def test_a_scope_of_another_form_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgument, match="letters and digits"):
        Scope(name, "default")
    with pytest.raises(InvalidArgument, match="letters and digits"):
        Scope("default", name)


def test_names_of_the_model_collide() -> None:
    """The alphabet is worth its name only if some names are prefixes of others."""
    assert any(a != b and b.startswith(a) for a in NAMES for b in NAMES)
