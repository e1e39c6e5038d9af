"""A merge in pieces shows every reader the same at every step, and survives a crash at each.

Method: pieces are made so small that every merge has many, and tables overlap with
overwrites, tombstones, and range tombstones. After each manifest is switched, what the store
shows, what a reader beside it shows, and what a crash would leave are compared with a dict.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from itertools import count

import pytest
from support.piece_sizes import set_piece_size

import blobkv
from blobkv import Store
from blobkv._engine.compaction import Merge, dispensable
from blobkv._engine.maintenance import Maintenance
from blobkv._engine.manifest import Manifest
from blobkv._engine.table import Table, TableFile
from blobkv._engine.tree import Tree
from blobkv.errors import CorruptionError
from blobkv.testing import PowerCut, SimulatedDisk

KEYS = [b"key %04d" % number for number in range(1200)]
Pairs = dict[bytes, bytes]
pytestmark = pytest.mark.usefixtures("small_pieces")


def grow(store: Store, pairs: Pairs, rng: random.Random) -> None:
    """Commit one layer of changes and flush it without a merge."""
    with store.update() as txn:
        start = rng.choice(KEYS)[:-1]
        txn.clear(start)
        for key in [key for key in pairs if key.startswith(start)]:
            del pairs[key]
        # Some layers reach over a part of the keys only, so that inputs end at many places.
        first = rng.randrange(len(KEYS) // 2)
        for key in rng.sample(KEYS[first : first + 600], 250):
            if rng.random() < 0.3:
                txn.delete(key)
                pairs.pop(key, None)
            else:
                txn[key] = pairs[key] = b"%d" % rng.randrange(10**9) * 20
    flush_only(store)


def flush_only(store: Store) -> None:
    store._freeze().maintenance.flush()


def shown(store: Store) -> Pairs:
    with store.view() as txn:
        pairs = dict(txn.items())
        assert {key: txn.get(key) for key in KEYS} == {key: pairs.get(key) for key in KEYS}
        return pairs


def store_of_layers(disk: SimulatedDisk, seed: int, layers: int = 5) -> tuple[Store, Pairs]:
    store, pairs = blobkv.open("/db", fs=disk), {}
    rng = random.Random(seed)
    for _ in range(layers):
        grow(store, pairs, rng)
    return store, pairs


def merge_some(store: Store, first: int, last: int) -> None:
    """Merge these neighbors, as a tier would be."""
    maintenance = store._source.maintenance
    with maintenance._merging:
        maintenance._merge(slice(first, last), 6000, cut=True)


@pytest.fixture(params=[(0, 5), (0, 3), (1, 4), (2, 5)], ids=str)
def chosen(request: pytest.FixtureRequest) -> tuple[int, int]:
    return request.param


@pytest.mark.usefixtures("clear_by_range")
@pytest.mark.parametrize("seed", range(3))
def test_every_state_between_two_pieces_is_right_for_every_reader(
    chosen: tuple[int, int], seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimulatedDisk()
    store, pairs = store_of_layers(disk, seed)
    reader = blobkv.open("/db", fs=disk, read_only=True)
    before = store.view()
    steps = []
    replace = Manifest.replace

    def replaced(fs: SimulatedDisk, directory: str) -> None:
        replace(fs, directory)
        if fs is not disk:
            # A survivor of the crash below.
            return
        steps.append(len(Manifest.read(disk, "/db").tables))
        assert shown(reader) == pairs
        with blobkv.open("/db", fs=disk.crash(random.Random(0), keep="all")) as survivor:
            assert shown(survivor) == pairs
            assert survivor.verify().ok

    with monkeypatch.context() as patch:
        patch.setattr(Manifest, "replace", staticmethod(replaced))
        merge_some(store, *chosen)

    assert len(steps) > 3, "one switch a piece"
    assert shown(store) == pairs == dict(before.items())
    assert store.verify().ok
    grow(store, pairs, random.Random(seed))
    store.compact()
    assert shown(store) == shown(reader) == pairs
    assert sum(table.footer.tombstones for table in store._source.layers.tables) == 0
    before.rollback()
    reader.close()
    store.close()


@pytest.mark.slow
@pytest.mark.usefixtures("clear_by_range")
def test_a_cut_at_every_operation_of_a_merge_in_pieces() -> None:
    for operation in count(1):
        disk = SimulatedDisk()
        store, pairs = store_of_layers(disk, 7)
        disk.cut_at = disk.operations + operation
        try:
            merge_some(store, 0, 5)
        except PowerCut:
            pass
        else:
            break
        for keep in ("all", "none", "random"):
            with blobkv.open("/db", fs=disk.crash(random.Random(1), keep=keep)) as survivor:
                assert shown(survivor) == pairs
                assert survivor.verify().ok
                survivor.compact()
                assert shown(survivor) == pairs
    assert operation > 20


@pytest.mark.usefixtures("clear_by_range")
def test_an_input_stays_while_what_it_deletes_stays() -> None:
    """A tombstone was merged away and its table consumed, but the older value was not yet."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update({key: bytes(50) for key in KEYS})
        flush_only(store)
        with store.update() as txn:
            txn.delete(KEYS[5])
        flush_only(store)
        newer, older = store._source.layers.tables
        end = newer.bounds()[1] + b"\x00"

        assert dispensable([newer, older], end) == []
        assert set(dispensable([newer, older], None)) == {newer, older}
        assert dispensable([newer], end) == [newer]


@pytest.mark.usefixtures("clear_by_range")
def test_what_was_cleared_stays_so_between_two_pieces_and_past_the_last() -> None:
    """Where the inputs have no key at all, but what is older has."""
    kept = dict.fromkeys(KEYS[::10], bytes(400))
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS, b"older"))
        flush_only(store)
        with store.update() as txn:
            txn.clear()
            txn.update(kept)
        flush_only(store)
        with store.update() as txn:
            txn.put(KEYS[0], kept[KEYS[0]])
        flush_only(store)
        merge_some(store, 0, 2)

        assert len(store._source.layers.tables) > 2, "two pieces or more, and what is older"
        assert shown(store) == kept


def test_the_room_for_a_merge_is_its_newer_inputs_and_two_pieces(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update({key: bytes(50) for key in KEYS})
        flush_only(store)
        merge_some(store, 0, 1)
        assert store.stats().runs[0].tables > 5
        with store.update() as txn:
            txn.update({key: bytes(49) for key in KEYS[::20]})
        flush_only(store)
        size = store.stats().table_size
        peak = []
        replace = Tree.replace_tables

        def watched(tree: Tree, tables: Sequence[Table]) -> None:
            names = [name for name in disk.names("/db") if name.endswith(".tbl")]
            peak.append(sum(len(disk.contents(f"/db/{name}")) for name in names))
            replace(tree, tables)

        monkeypatch.setattr(Tree, "replace_tables", watched)
        store.compact()

        assert len(peak) > 2
        assert max(peak) < size + 5 * 6000
        assert store.stats().table_count > 3


def test_what_overwrites_and_deletes_leave_goes_without_being_asked() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        rng = random.Random(3)
        with store.update() as txn:
            txn.update({key: bytes(100) for key in KEYS})
        store.flush()
        alive = store.stats().table_size
        for _ in range(40):
            with store.update() as txn:
                txn.update({key: rng.randbytes(100) for key in rng.sample(KEYS, 100)})
            store.flush()
            assert store.stats().table_size < 1.8 * alive
        with store.update() as txn:
            for key in KEYS[: len(KEYS) * 9 // 10]:
                txn.delete(key)
        store.flush()

        assert store.stats().table_size < 0.2 * alive


def test_new_keys_are_not_written_over_and_over() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        rng = random.Random(4)
        for _ in range(64):
            with store.update() as txn:
                txn.update({rng.randbytes(20): rng.randbytes(80) for _ in range(100)})
            store.flush()
        stats = store.stats()

    assert stats.compactions > 10
    # Log, flush, and once for each of the tiers of 4, 16, and 64 flushes.
    assert stats.write_amplification < 2 + 3 * 1.5
    assert stats.table_written > stats.merge_written > 0
    assert len(stats.runs) < 8


def test_a_merge_reads_each_byte_with_its_checksum() -> None:
    disk = SimulatedDisk()
    store, _ = store_of_layers(disk, 1, layers=2)
    files = [table.file for table in store._source.layers.tables]
    data = disk.contents(f"/db/{files[0].name}")
    footer = store._source.layers.tables[0].footer
    store.close()
    for at in range(0, footer.hash_offset, 97):
        rotten = bytearray(data)
        rotten[at] ^= 1
        disk.set_contents(f"/db/{files[0].name}", bytes(rotten))
        with pytest.raises(CorruptionError, match=files[0].name):
            for _ in pieces(disk, files):
                pass


def pieces(disk: SimulatedDisk, files: list[TableFile]) -> Iterator[object]:
    merging = Merge(
        disk,
        "/db",
        [[file] for file in files],
        start=b"",
        cuts=[],
        piece_size=1 << 20,
        bottom=True,
        step=lambda: None,
    )
    try:
        for number in count(900):
            piece = merging.write_next(number)
            disk.remove(f"/db/{piece.file.name}")
            yield piece
            if piece.end is None:
                return
    finally:
        merging.close()


def test_a_piece_ends_where_an_input_does_so_that_the_input_goes_with_it() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update({key: bytes(100) for key in KEYS})
        flush_only(store)
        maintenance = store._source.maintenance
        maintenance._merge(slice(0, 1), 20_000, cut=False)
        base = [table.extent()[1] for table in store._source.layers.tables]
        with store.update() as txn:
            # Longer values: cut by size alone, the pieces would end elsewhere.
            txn.update({key: bytes(115) for key in KEYS[::3]})
        flush_only(store)
        maintenance._merge(slice(0, 1 + len(base)), 20_000, cut=True)
        aligned = [table.extent()[1] for table in store._source.layers.tables]
        maintenance._merge(slice(0, len(aligned)), 20_000, cut=False)

        assert len(base) > 3
        assert aligned == base
        assert [table.extent()[1] for table in store._source.layers.tables] != base
        assert store.verify().ok


def test_pieces_cut_short_by_an_input_are_not_merged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """They are as small as half of a piece; counted one by one, they were merged for ever."""
    set_piece_size(monkeypatch, 20_000)
    merges = count()
    finish = Maintenance._merge

    def counted(self: Maintenance, chosen: slice, piece_size: int, *, cut: bool) -> None:
        assert next(merges) < 15, "it merges without an end"
        finish(self, chosen, piece_size, cut=cut)

    monkeypatch.setattr(Maintenance, "_merge", counted)
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update({key: bytes(400) for key in KEYS[:600]})
        store.compact()
        for at in range(0, 600, 37):
            with store.update() as txn:
                txn.update({key: bytes(399) for key in KEYS[at : min(at + 37, 600)]})
            store.flush()
        with store.view() as txn:
            assert len(txn) == 600


def test_pieces_with_range_tombstones_are_one_run_and_are_not_merged_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each has a cut of the ranges; as runs of their own they were chosen again, for ever."""
    merges = count()
    finish = Maintenance._merge

    def counted(self: Maintenance, chosen: slice, piece_size: int, *, cut: bool) -> None:
        assert next(merges) < 10, "it merges without an end"
        finish(self, chosen, piece_size, cut=cut)

    monkeypatch.setattr(Maintenance, "_merge", counted)
    rng = random.Random(1)
    pairs: Pairs = {}
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            for group in range(20):
                for layer in range(4):
                    for i in range(100):
                        pairs[b"%02d/%d/%03d" % (group, layer, i)] = b"old"
            pairs |= {b"zz%d" % i: rng.randbytes(40_000) for i in range(10)}
            txn.update(pairs)
        flush_only(store)
        for layer in range(4):
            with store.update() as txn:
                for group in range(20):
                    prefix = b"%02d/%d" % (group, layer)
                    txn.clear(prefix)
                    new = {
                        b"%02d/v%d/%d" % (group, i, layer): rng.randbytes(99) for i in range(9)
                    }
                    txn.update(new)
                    pairs = {k: v for k, v in pairs.items() if not k.startswith(prefix)} | new
            flush_only(store)
        store._source.maintenance.compact()

        runs = store._source.tree.layers.tables.runs
        assert [len(run.tables) > 3 for run in runs] == [True, False]
        assert sum(bool(table.ranges) for table in runs[0].tables) > 3
        with store.view() as txn:
            assert dict(txn) == pairs
            assert all(txn.get(key) == value for key, value in pairs.items())
            assert all(txn.get(b"%02d/%d/050" % (group, 2)) is None for group in range(20))
            assert len(txn) == len(pairs)
            assert list(txn.items(reverse=True)) == sorted(pairs.items(), reverse=True)
        # A merge reads such a run as one source.
        grow(store, pairs, rng)
        store.compact()
        with store.view() as txn:
            assert dict(txn) == pairs
        assert store.verify().ok
