"""Tables of every shape are read right: by point, by range, in both directions, and counted.

Method: a table is built from entries whose sizes lie at and around each bound of the format,
and is asked for every key, for its neighbors, and for ranges between them; a dict knows better.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_left
from itertools import chain, pairwise

import pytest

from blobkv._engine import block_index, hash_index
from blobkv._engine.block_index import separator
from blobkv._engine.compaction import write_table
from blobkv._engine.hash_index import KEY_LONG, VALUE_LONG
from blobkv._engine.memtable import ABSENT
from blobkv._engine.ranges import Ranges
from blobkv._engine.table import Table, TableFile
from blobkv._engine.table_writer import TableWriter
from blobkv._engine.tables import Tables
from blobkv.errors import CorruptionError
from blobkv.testing import SimulatedDisk

Entries = dict[bytes, bytes | None]


def build(disk: SimulatedDisk, number: int, entries: Entries, step: int = 7) -> Table:
    """Write the entries as a table, a few at a time, and open it."""
    file = disk.create(f"/{number:06d}.tbl")
    writer = TableWriter(file, number)
    ordered = sorted(entries)
    for first in range(0, len(ordered), step):
        keys = ordered[first : first + step]
        writer.add(keys, [entries[key] for key in keys])
    named = writer.finish(Ranges())
    file.close()
    return Table.open(disk, "", named)


def read(table: Table, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Entries:
    chunks = list(table.chunks(start, stop, reverse=reverse))
    keys = list(chain.from_iterable(keys for keys, _ in chunks))
    assert keys == sorted(set(keys), reverse=reverse)
    return dict(zip(keys, chain.from_iterable(values for _, values in chunks), strict=True))


AROUND = [-1, 0, 1]
SHAPES: dict[str, Entries] = {
    "empty": {},
    "the empty key and value": {b"": b""},
    "one tombstone": {b"k": None},
    "long keys": {bytes(KEY_LONG + i): b"%d" % i for i in AROUND} | {bytes(2**17): b"longest"},
    "long values": {b"%d" % i: bytes(VALUE_LONG + i) for i in range(-1, 3)}
    | {b"": bytes(2**20)},
    "long keys whose values are long": {
        bytes(KEY_LONG + i): b"v" * (VALUE_LONG + i) for i in AROUND
    },
    "keys that start with one another": {b"k" * i: b"%d" % i for i in range(1200)},
    "more entries than a block takes": {b"%04x" % i: b"" for i in range(9000)},
    "all tombstones": {b"%04x" % i: None for i in range(500)},
    "every third a tombstone": {
        b"%04x" % i: b"v" * (i % 90) if i % 3 else None for i in range(3000)
    },
    "blocks that end with a page": {b"%08d" % i: bytes(1016) for i in range(64)},
    "far apart": {bytes([i]): bytes(9000) for i in range(256)},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_every_entry_is_found_and_no_other(shape: str) -> None:
    entries = SHAPES[shape]
    table = build(SimulatedDisk(), 1, entries)
    get = Tables([table]).get

    for key in random.Random(0).sample(sorted(entries), min(len(entries), 1500)):
        assert get(key) == table.get(key) == entries[key]
        for neighbor in (key + b"\x00", key[:-1], key + b"k"):
            assert get(neighbor) == entries.get(neighbor)
            assert table.get(neighbor) == entries.get(neighbor, ABSENT)


@pytest.mark.parametrize("shape", SHAPES)
def test_every_range_is_read_and_counted(shape: str) -> None:
    entries = SHAPES[shape]
    table = build(SimulatedDisk(), 1, entries)
    ordered = sorted(entries)
    edges = [b"", *random.Random(1).sample(ordered, min(len(ordered), 40)), b"\xff" * 9]
    for start, stop in [
        *pairwise(sorted(edges)),
        (b"", None),
        (edges[-2], edges[-2] + b"\x00"),
    ]:
        first = bisect_left(ordered, start)
        last = len(ordered) if stop is None else bisect_left(ordered, stop)
        expected = {key: entries[key] for key in ordered[first:last]}
        assert read(table, start, stop) == expected
        assert read(table, start, stop, reverse=True) == expected
        assert table.count(start, stop) == len(expected)


def test_a_table_is_the_same_however_it_was_given() -> None:
    entries = SHAPES["every third a tombstone"]
    files = {build(SimulatedDisk(), 1, entries, step).file for step in (1, 7, 256, 4096)}

    assert len(files) == 1


def test_common_starts_of_keys_are_left_out() -> None:
    entries: Entries = {b"\x00" + b"%05d" % i: b"v" * (i % 50) for i in range(2000)}
    table = build(SimulatedDisk(), 1, entries)

    for reverse in (False, True):
        chunks = table.chunks(b"\x00", b"\x01", skip=1, reverse=reverse)
        keys = list(chain.from_iterable(keys for keys, _ in chunks))
        assert keys == sorted((key[1:] for key in entries), reverse=reverse)


def test_colliding_keys_are_found_without_a_hash_index(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hash_index, "PROBE_MAX", 0)
    entries: Entries = {b"%d" % i: b"v" for i in range(500)}
    table = build(SimulatedDisk(), 1, entries)

    assert table.footer.homes == 0
    assert [Tables([table]).get(key) for key in entries] == [b"v"] * 500
    assert Tables([table]).get(b"x") is None


def test_a_hash_index_has_no_run_that_its_checksums_do_not_reach(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each key is at home, yet a search from the first would read on past what is verified."""
    monkeypatch.setattr(hash_index, "PROBE_MAX", 4)

    def slots(run: int) -> int:
        homes = [*range(run), *range(run + 1, 24, 2)][:12]
        hashes = array("I", [-(-(home << 32) // 24) for home in homes])
        tags, _ = hash_index.fill_slots(hashes, array("Q", range(12)))
        return len(tags)

    assert slots(4) == 24 + 5
    assert slots(5) == 0


# Separators.


@pytest.mark.parametrize(
    ("before", "first", "expected"),
    [
        (b"", b"\x00", b"\x00"),
        (b"a", b"ab", b"ab"),
        (b"abc", b"abd", b"abd"),
        (b"abc", b"b123456789", b"b"),
        (b"a\xff\xff", b"b", b"b"),
    ],
)
def test_a_separator_is_past_what_is_before_it(
    before: bytes, first: bytes, expected: bytes
) -> None:
    assert separator(before, first) == expected
    assert before < expected <= first


def test_the_block_index_keeps_few_separators_in_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(block_index, "_GROUPS_MAX", 16)
    entries: Entries = {b"%08d" % i: bytes(400) for i in range(20_000)}
    index = build(SimulatedDisk(), 1, entries, 4096).block_index
    for key in random.Random(2).sample(sorted(entries), 2000):
        first, last = index.span(key, key + b"\x00")
        assert last == first + 1

    assert index.count > 1500
    assert len(index._sample) == -(-index.count // 8)
    assert len(index._groups) <= 16


# Runs.


def test_tables_apart_are_one_run_and_tables_that_overlap_are_not() -> None:
    disk = SimulatedDisk()

    def table(number: int, first: int, last: int) -> Table:
        return build(disk, number, {b"%03d" % i: b"%d" % number for i in range(first, last)})

    tables = Tables(
        [
            table(6, 50, 60),
            table(5, 0, 10),
            table(4, 300, 310),
            table(3, 100, 200),
            table(2, 0, 400),
        ]
    )

    runs = [[table.file.number for table in run.tables] for run in tables.runs]
    assert runs == [[5, 6, 3, 4], [2]]
    for i in range(-1, 401):
        key = b"%03d" % i
        wanted = next((t.file.number for t in tables if t.get(key) is not ABSENT), None)
        assert tables.get(key) == (None if wanted is None else b"%d" % wanted)


def test_a_table_that_overlaps_any_of_a_run_is_none_of_it() -> None:
    disk = SimulatedDisk()
    spans = {5: (0, 10), 4: (50, 60), 3: (100, 110)}
    for older in spans.values():
        tables = Tables(
            build(disk, number, {b"%03d" % i: b"%d" % number for i in range(*span)})
            for number, span in {**spans, 2: older}.items()
        )
        assert [len(run.tables) for run in tables.runs] == [3, 1]
        for number, span in spans.items():
            assert {tables.get(b"%03d" % i) for i in range(*span)} == {b"%d" % number}
        for table in tables:
            disk.remove(f"/{table.name}")


def test_a_table_whose_blocks_are_damaged_stands_alone_and_the_others_are_read() -> None:
    disk = SimulatedDisk()
    tables = [build(disk, i, {b"%d%02d" % (i, j): b"v" for j in range(50)}) for i in range(3)]
    name = f"/{tables[1].file.name}"
    data = bytearray(disk.contents(name))
    data[100] ^= 1
    disk.set_contents(name, bytes(data))
    damaged = Table.open(disk, "", TableFile(*tables[1].file))

    found = Tables([tables[2], damaged, tables[0]])

    assert (found.get(b"207"), found.get(b"007"), found.get(b"x")) == (b"v", b"v", None)
    with pytest.raises(CorruptionError, match="block checksum"):
        found.get(b"107")


def test_entries_out_of_order_reach_no_table() -> None:
    for chunks in (
        [([b"b", b"a"], [b"", b""])],
        [([b"a", b"a"], [b"", b""])],
        [([b"%04d" % i for i in range(200)], [bytes(99)] * 200), ([b"0001"], [b""])],
    ):
        disk = SimulatedDisk()
        disk.make_directory("/db")
        with pytest.raises(CorruptionError, match="not in order"):
            write_table(disk, "/db", 1, iter(chunks), Ranges(), bottom=True)
        assert disk.names("/db") == []
