"""Files of which every checksum is right, and that are wrong all the same, are found out.

Method: a store's table, log, or manifest is rewritten as no blobkv would, with the checksums
that belong to it. `verify` must name what is wrong, and a merge must not pass it on.
"""

from __future__ import annotations

import errno
import random
from array import array
from collections.abc import Callable
from dataclasses import replace
from itertools import count, pairwise
from pathlib import Path
from struct import pack, pack_into, unpack_from
from zlib import crc32

import pytest
from support.pairs import flush_only, pairs, put

import blobkv
from blobkv._engine import format as frames
from blobkv._engine import maintenance, table_writer
from blobkv._engine import table_format as tables
from blobkv._engine.hash_index import encode_hash_index, slot_count
from blobkv._engine.manifest import Manifest
from blobkv.errors import CorruptionError, LimitError
from blobkv.testing import SimulatedDisk

KEYS = [b"%04d" % i for i in range(300)]
Change = Callable[[bytearray, tables.Footer], tables.Footer]


def store_on(disk: SimulatedDisk) -> blobkv.Store:
    store = blobkv.open("/db", fs=disk)
    for layer in range(2):
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS[layer:], b"%d" % layer * 50))
        flush_only(store)
    return store


def changed(disk: SimulatedDisk, change: Change) -> str:
    """Change the newest table, and what the manifest says of it; return its name."""
    manifest = Manifest.read(disk, "/db")
    table, *others = manifest.tables
    data = bytearray(disk.contents(f"/db/{table.name}"))
    at = len(data) - tables.FOOTER_SIZE
    footer = tables.decode_footer(bytes(data[at:]), at, table.name)
    data[at:] = tables.encode_footer(change(data, footer))
    disk.set_contents(f"/db/{table.name}", bytes(data))
    table = table._replace(crc=tables.footer_crc(bytes(data[at:])))
    disk.set_contents("/db/MANIFEST", replace(manifest, tables=(table, *others)).encode())
    return table.name


def no_tags(data: bytearray, footer: tables.Footer) -> tables.Footer:
    """Have the hash index say that no key is there."""
    slots = slot_count(footer.homes)
    parts = [*encode_hash_index(bytearray(slots), array("Q", [0]) * slots)]
    data[footer.hash_offset : footer.index_offset] = b"".join(parts)
    return footer._replace(hash_crc=crc32(parts[-1]))


def two_empty_separators(data: bytearray, footer: tables.Footer) -> tables.Footer:
    """Have the block index say that no key is before the second block."""
    bounds_at = footer.index_offset + 8 * (footer.blocks + 1)
    pack_into("<Q", data, bounds_at + 16, 0)
    index = data[footer.index_offset : footer.checksums_offset]
    return footer._replace(index_crc=crc32(index))


def a_block_twice(data: bytearray, footer: tables.Footer) -> tables.Footer:
    """Have the block index point to the first block in place of the last, which is shorter."""
    at = footer.index_offset + 8 * (footer.blocks - 1)
    pack_into("<Q", data, at, tables.TABLE_HEADER_SIZE)
    index = data[footer.index_offset : footer.checksums_offset]
    return footer._replace(index_crc=crc32(index))


def one_entry_more(_: bytearray, footer: tables.Footer) -> tables.Footer:
    return footer._replace(entries=footer.entries + 1)


def keys_descend(data: bytearray, footer: tables.Footer) -> tables.Footer:
    """Exchange the first two keys of the second block."""
    (at,) = unpack_from("<Q", data, footer.index_offset + 8)
    size, entries = unpack_from("<II", data, at + 4)
    first, _, second = unpack_from("<III", data, at + 12)
    assert entries > 2
    one, other = at + first, at + second
    width = len(KEYS[0]) + 1
    data[one : one + width], data[other : other + width] = (
        data[other : other + width],
        data[one : one + width],
    )
    before = unpack_from("<I", data, at)[0]
    pack_into("<I", data, at, crc32(data[at + 4 : at + size], at))
    assert before != unpack_from("<I", data, at)[0]
    checksums = slice(footer.checksums_offset, footer.ranges_offset)
    data[checksums.start + 4 : checksums.start + 8] = data[at : at + 4]
    return footer._replace(blocks_crc=crc32(data[checksums]))


def far_too_many_blocks(_: bytearray, footer: tables.Footer) -> tables.Footer:
    return footer._replace(blocks=10**9)


def more_blocks_than_offsets(data: bytearray, footer: tables.Footer) -> tables.Footer:
    """Have as many blocks as make the separators a part of the checksums."""
    changed = footer._replace(blocks=footer.blocks + 3)
    parts = [footer.index_offset, changed.checksums_offset, footer.ranges_offset]
    index, checksums = (data[start:stop] for start, stop in pairwise(parts))
    return changed._replace(index_crc=crc32(index), blocks_crc=crc32(checksums))


CHANGES: dict[str, tuple[Change, str]] = {
    "a tag": (no_tags, "hash index does not find key"),
    "a separator": (two_empty_separators, "block index does not reach every entry"),
    "a block": (a_block_twice, "another block"),
    "a count": (one_entry_more, "the footer says"),
    "the order": (keys_descend, "keys are not in order"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_verify_finds_a_table_that_contradicts_itself(what: str) -> None:
    change, reason = CHANGES[what]
    disk = SimulatedDisk()
    store_on(disk).close()
    name = changed(disk, change)

    with blobkv.open("/db", fs=disk, read_only=True) as store:
        problems = store.verify().problems

    assert problems
    assert {problem.path for problem in problems} == {name}
    assert any(reason in problem.reason for problem in problems)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda _, footer: footer._replace(homes=footer.homes + 1), "does not fit its place"),
        (lambda _, footer: footer._replace(size=footer.size + 1), "footer makes no sense"),
        (far_too_many_blocks, "footer makes no sense"),
        (more_blocks_than_offsets, "cut short"),
    ],
)
def test_a_table_whose_parts_do_not_fit_is_not_read(change: Change, reason: str) -> None:
    disk = SimulatedDisk()
    store_on(disk).close()
    name = changed(disk, change)

    with (
        pytest.raises(CorruptionError, match=reason) as caught,
        blobkv.open("/db", fs=disk, read_only=True) as store,
    ):
        pairs(store)
    assert caught.value.path == name


def test_a_manifest_that_names_missing_files_again_and_again_is_given_up(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimulatedDisk()
    store_on(disk).close()
    found = Manifest.read(disk, "/db")
    disk.remove(f"/db/{found.tables[0].name}")
    epochs = count(1)
    monkeypatch.setattr(Manifest, "read", lambda *_: replace(found, epoch=next(epochs)))

    with pytest.raises(CorruptionError, match="again and again"):
        blobkv.open("/db", fs=disk)


def test_a_table_with_fewer_entries_than_were_written_is_not_put_in_force(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimulatedDisk()
    with store_on(disk) as store:
        before = pairs(store) | {b"key": b"value"}
        put(store, b"key")
        with monkeypatch.context() as patch:
            patch.setattr(maintenance, "entry_count", lambda *_, **__: 2)
            with pytest.raises(CorruptionError, match="1 entries, though 2 were written"):
                store.flush()
        assert pairs(store) == before
        assert {name for name in disk.names("/db") if name.endswith(".tbl")} == {
            table.name for table in store._source.manifest.tables
        }
        store.flush()
        assert pairs(store) == before


def test_verify_finds_a_table_that_is_shorter_than_it_was() -> None:
    disk = SimulatedDisk()
    with store_on(disk) as store:
        name = store._source.manifest.tables[0].name
        disk.set_contents(f"/db/{name}", disk.contents(f"/db/{name}")[:-7])
        problems = store.verify().problems
    assert {problem.path for problem in problems} == {name}
    assert any("bytes long, expected" in problem.reason for problem in problems)


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "a bad disk"), CorruptionError("MANIFEST", 0, "rot")]
)
def test_verify_ends_though_the_manifest_is_gone_when_it_looks_again(
    error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = SimulatedDisk()
    with store_on(disk) as store:
        name = store._source.manifest.tables[0].name
        disk.remove(f"/db/{name}")
        found = iter([Manifest.read(disk, "/db")])
        raised = []

        def read_once(*_: object) -> Manifest:
            for manifest in found:
                return manifest
            raised.append(error)
            raise error

        monkeypatch.setattr(Manifest, "read", read_once)
        problems = store.verify().problems
        assert [(problem.path, problem.reason) for problem in problems] == [(name, "missing")]
        assert raised == [error], "it looks again, since a table is missing"


def test_verify_reports_a_disk_that_cannot_be_read() -> None:
    disk = SimulatedDisk()
    with store_on(disk) as store:
        name = store._source.manifest.tables[0].name
        disk.fail(when=lambda operation, path: operation == "read" and path.endswith(name))
        (problem,) = store.verify().problems
        assert (problem.path, problem.reason[:15]) == (name, "cannot be read:")
        assert store.verify().ok


def test_a_problem_says_which_keys_may_be_concerned() -> None:
    told = {
        None: "f+0x10: bad",
        (b"", None): "f+0x10: bad; any key may be concerned",
        (b"a", None): "f+0x10: bad; stored keys from b'a' to the last may be concerned",
        (b"a", b"b"): "f+0x10: bad; stored keys from b'a' to before b'b' may be concerned",
    }
    assert {lost: str(blobkv.Problem("f", 16, "bad", lost)) for lost in told} == told


def test_a_long_key_is_not_taken_for_one_that_starts_with_it() -> None:
    """A place cannot tell how long a key of over 1,022 bytes is; here the tags are equal."""
    key = b"k" * 1500
    tag = crc32(b"\x00" + key) & 0xFF
    longer = next(
        other
        for other in (key + b"%d" % i for i in count())
        if crc32(b"\x00" + other) & 0xFF == tag
        and crc32(b"\x00" + other) >> 28 == crc32(b"\x00" + key) >> 28
    )
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        put(store, longer)
        store.flush()
        with store.view() as txn:
            assert txn.get(key) is None
            assert txn.get(longer) == b"value"
        put(store, key, b"short")
        store.flush()
        store.compact()
        assert pairs(store) == {key: b"short", longer: b"value"}


def test_a_merge_does_not_pass_on_what_contradicts_itself() -> None:
    disk = SimulatedDisk()
    store_on(disk).close()
    changed(disk, one_entry_more)
    before = set(disk.names("/db"))

    with blobkv.open("/db", fs=disk) as store, pytest.raises(CorruptionError):
        store.compact()
    assert {name for name in disk.names("/db") if name.endswith(".tbl")} == {
        name for name in before if name.endswith(".tbl")
    }


@pytest.mark.parametrize("damage", ["cut", "another table", "block cut off"])
def test_a_merge_does_not_take_a_table_that_was_replaced_under_it(damage: str) -> None:
    """A merge reads its inputs by `open`, long after the store has mapped them."""
    disk = SimulatedDisk()
    with store_on(disk) as store:
        newest, oldest = store._source.manifest.tables
        data = bytearray(disk.contents(f"/db/{newest.name}"))
        if damage == "cut":
            del data[-1000:]
        elif damage == "another table":
            at = len(data) - tables.FOOTER_SIZE
            footer = tables.decode_footer(bytes(data[at:]), at, newest.name)
            data[at:] = tables.encode_footer(footer._replace(tombstones=7))
        else:
            # The last block says that it is longer than all that is left.
            pack_into("<I", data, tables.TABLE_HEADER_SIZE + 4, 2**31)
        disk.set_contents(f"/db/{newest.name}", bytes(data))

        with pytest.raises(CorruptionError, match=newest.name):
            store.compact()
        assert store._source.manifest.tables == (newest, oldest)


def log_of(disk: SimulatedDisk) -> tuple[str, int]:
    (log,) = Manifest.read(disk, "/db").logs
    return f"/db/{log.name}", log.log_id


def killed() -> SimulatedDisk:
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    put(store, b"first")
    put(store, b"second")
    after = disk.crash(random.Random(0), keep="all")
    store.close()
    return after


def test_a_seal_that_was_written_before_its_commits_were_synced_promises_nothing() -> None:
    """It is no clean end, so what is before it is written anew."""
    disk = killed()
    path, log_id = log_of(disk)
    data = disk.contents(path)
    seal = frames.encode_frame(2, {}, log_id=log_id, synced=64, kind=frames.SEAL)
    disk.set_contents(path, data + seal)

    with blobkv.open("/db", fs=disk) as store:
        assert list(pairs(store)) == [b"first", b"second"]
        assert path.rpartition("/")[2] not in disk.names("/db"), "it was written anew"


def test_headers_that_claim_more_than_any_log_could_hold_end_the_search() -> None:
    """Each claims all that follows it, and would promise the place in question."""
    disk = killed()
    path, _ = log_of(disk)
    data = disk.contents(path)
    headers_count = 2000
    headers = [
        pack(
            "<IIQQIBxH",
            7,
            (headers_count - i - 1) * 32,
            3,
            len(data) + 1,
            0,
            1,
            frames.FRAME_MAGIC,
        )
        for i in range(headers_count)
    ]
    disk.set_contents(path, data + bytes(32) + b"".join(headers))

    with pytest.raises(CorruptionError, match="more that look like one"):
        blobkv.open("/db", fs=disk)
    found = blobkv.salvage("/db", "/new", fs=disk)
    assert (found.entries, found.doubtful) == (2, 0)
    assert len(found.problems) == 1


def test_a_table_that_outgrows_what_a_place_can_say_fails_and_loses_nothing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    disk = SimulatedDisk()
    with store_on(disk) as store:
        before = pairs(store)
        with monkeypatch.context() as patch:
            patch.setattr(table_writer, "OFFSET_MASK", tables.TOMBSTONE_BIT + 10_000)
            with pytest.raises(LimitError, match="nothing is lost"):
                store.compact()
        assert pairs(store) == before
        store.compact()
        assert pairs(store) == before


def test_a_machine_with_the_other_byte_order_reads_and_writes_the_same_bytes(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What such a machine would do is done here, where it exchanges the bytes the other way."""
    numbers = array("Q", [1, 2**40, 2**63])
    raw = pack(">3Q", *numbers)
    other = {"little": "big", "big": "little"}
    monkeypatch.setattr(tables.sys, "byteorder", other[tables.sys.byteorder])

    assert tables.little_endian(numbers) == raw
    assert list(tables.numbers_in_place(memoryview(raw), "Q")) == list(numbers)
    assert list(numbers) == [1, 2**40, 2**63], "the given numbers stay"


def test_a_directory_without_a_store_is_no_store(tmp_path: Path) -> None:
    (tmp_path / "db").mkdir()
    for options in ({"create": False}, {"read_only": True}):
        with pytest.raises(blobkv.UsageError, match="no store here"):
            blobkv.open(tmp_path / "db", **options)
    assert list((tmp_path / "db").iterdir()) == []
