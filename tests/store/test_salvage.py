"""What is salvaged of a damaged store is true of one commit, and what is left out is said.

Method: a store with layers of tables, deletes, cleared ranges, and logs is damaged in every
file: each byte flipped, the file gone, cut, emptied, filled with zeroes, or another's in its
place. What is salvaged must be entries of the state after the commit that it claims; what is
missing there must be among the doubtful ones, or in the part that was damaged.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable

import pytest
from support.damaged_store import KEYS, Pairs, make, shown
from support.fault_table import Note

import blobkv
from blobkv import Salvage
from blobkv.testing import SimulatedDisk

Damage = Callable[[SimulatedDisk, str], None]


def judge(disk: SimulatedDisk, states: list[Pairs], what: str) -> tuple[Salvage, Pairs, Pairs]:
    """Salvage a damaged store; whatever the damage, nothing that is wrong is taken for true."""
    before = {name: disk.contents(f"/db/{name}") for name in disk.names("/db")}
    found = blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    proven, doubtful = shown(disk, "/new"), shown(disk, "/doubtful")

    assert proven.items() <= states[found.sequence].items(), what
    assert (len(proven), len(doubtful)) == (found.entries, found.doubtful), what
    assert not proven.items() & doubtful.items(), what
    assert found.problems or proven == states[found.sequence], what
    assert before == {name: disk.contents(f"/db/{name}") for name in disk.names("/db")}
    return found, proven, doubtful


@pytest.fixture
def made(clear_by_range: None) -> tuple[SimulatedDisk, list[Pairs]]:
    return make()


@pytest.fixture
def disk(made: tuple[SimulatedDisk, list[Pairs]]) -> SimulatedDisk:
    return made[0]


@pytest.fixture
def states(made: tuple[SimulatedDisk, list[Pairs]]) -> list[Pairs]:
    return made[1]


def test_a_sound_store_is_salvaged_whole(disk: SimulatedDisk, states: list[Pairs]) -> None:
    found, proven, doubtful = judge(disk, states, "sound")

    assert (proven, doubtful, found.problems) == (states[-1], {}, [])
    assert str(found) == (
        f"salvaged {len(proven)} entries of commit {len(states) - 1}; nothing was wrong"
    )


@pytest.mark.slow
def test_a_flipped_bit_anywhere(disk: SimulatedDisk, states: list[Pairs], tried: Note) -> None:
    points = unnoticed = 0
    for name in set(disk.names("/db")) - {"LOCK", "BALLAST"}:
        # All of what is not a block, and some of those.
        size = len(disk.contents(f"/db/{name}"))
        for at in [*range(0, size, 97), *range(64), *range(max(size - 200, 0), size)]:
            copy = disk.crash(random.Random(0), keep="all")
            data = bytearray(copy.contents(f"/db/{name}"))
            data[at] ^= 1 << at % 8
            copy.set_contents(f"/db/{name}", bytes(data))
            found, proven, doubtful = judge(copy, states, f"{name}+{at:#x}")

            points += 1
            unnoticed += not found.problems
            assert all(problem.path == name for problem in found.problems)
            assert name.endswith(".log") or found.sequence in {0, len(states) - 1}
            if name.endswith(".log"):
                assert found.sequence >= len(states) - 2 or found.problems
            elif found.problems and found.problems[0].lost != (b"", None):
                # One block of 4 KiB, of entries of more than 80 bytes.
                missing = states[-1].keys() - proven.keys() - doubtful.keys()
                assert len(missing) < 60
    # In hash indexes, which a salvage does not need, and in what follows the last frame.
    assert points > 2 * unnoticed
    tried("bit flipped, store salvaged", points)


def remove(disk: SimulatedDisk, path: str) -> None:
    disk.remove(path)


def cut(disk: SimulatedDisk, path: str) -> None:
    disk.set_contents(path, disk.contents(path)[: len(disk.contents(path)) // 2])


def empty(disk: SimulatedDisk, path: str) -> None:
    disk.set_contents(path, b"")


def fill_with_zeroes(disk: SimulatedDisk, path: str) -> None:
    disk.set_contents(path, bytes(len(disk.contents(path))))


def replace_by_another(disk: SimulatedDisk, path: str) -> None:
    kind = path.rpartition(".")[2]
    others = [name for name in disk.names("/db") if name.endswith(kind) and name not in path]
    disk.set_contents(path, disk.contents(f"/db/{others[0]}") if others else b"another")


@pytest.mark.parametrize(
    "damage",
    [remove, cut, empty, fill_with_zeroes, replace_by_another],
    ids=lambda d: d.__name__,
)
def test_a_file_that_is_not_what_it_was(
    damage: Damage, disk: SimulatedDisk, states: list[Pairs], tried: Note
) -> None:
    names = sorted(set(disk.names("/db")) - {"LOCK", "BALLAST"})
    assert len(names) == 8
    for name in names:
        copy = disk.crash(random.Random(0), keep="all")
        damage(copy, f"/db/{name}")
        found, proven, doubtful = judge(copy, states, name)

        assert found.problems or name == names[3 + 3]
        if name == "MANIFEST":
            assert not proven
            assert doubtful
        elif name.endswith(".log"):
            number = names.index(name) - 3
            assert found.sequence in {3 + number, 3 + number + 1, 3 + number + 2}
        else:
            # What the logs say is known, whatever the tables hold.
            assert b"last" in proven
    tried("file gone, cut, emptied, zeroed, or another's: store salvaged", len(names))


def test_deleted_keys_do_not_come_back() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS, b"old" * 20))
        store.flush()
        with store.update() as txn:
            for key in KEYS[:200]:
                txn.delete(key)
        store._freeze().maintenance.flush()
        newest = store._source.layers.tables[0].name
    data = bytearray(disk.contents(f"/db/{newest}"))
    data[100] ^= 1
    disk.set_contents(f"/db/{newest}", bytes(data))

    found = blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    proven, doubtful = shown(disk, "/new"), shown(disk, "/doubtful")

    assert not proven.keys() & set(KEYS[:200])
    assert set(KEYS[:200]) & doubtful.keys()
    assert found.problems[0].lost is not None


def test_a_manifest_that_was_written_aside_is_as_good(
    disk: SimulatedDisk, states: list[Pairs]
) -> None:
    disk.rename("/db/MANIFEST", "/db/MANIFEST.new")
    found, proven, _ = judge(disk, states, "aside")

    assert proven == states[-1]
    assert [problem.path for problem in found.problems] == ["MANIFEST"]


def test_blocks_are_found_without_a_block_index() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS, bytes(200)))
        store.flush()
        table = store._source.layers.tables[0]
    data = bytearray(disk.contents(f"/db/{table.name}"))
    data[table.footer.index_offset] ^= 1
    data[5000] ^= 1
    disk.set_contents(f"/db/{table.name}", bytes(data))

    found = blobkv.salvage("/db", "/new", fs=disk)
    assert found.problems[0].offset == table.footer.index_offset
    # Nobody can tell that the block with the bad checksum had another one before.
    assert (found.entries, 300 < found.doubtful < 400) == (0, True)


@pytest.mark.parametrize("hit", [0, 4, 500])
def test_a_gap_hides_the_keys_of_its_block_and_no_others(hit: int) -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        for value in (b"old", b"new"):
            with store.update() as txn:
                txn.update(dict.fromkeys(KEYS, value * 30))
            store._freeze().maintenance.flush()
        table = store._source.layers.tables[0]
    sound = disk.contents(f"/db/{table.name}")
    blocks = [table._block(i, 0)[0] for i in range(table.block_index.count)]
    assert len(blocks) > 4

    for i, offset in enumerate(table.block_index.offsets[:-1]):
        at = offset + hit
        disk.set_contents(f"/db/{table.name}", sound[:at] + b"\xff" * 9 + sound[at + 9 :])
        found = blobkv.salvage("/db", f"/new {i}", fs=disk)
        start = blocks[i - 1][-1] + b"\x00" if i else b""
        stop = blocks[i + 1][0] if i + 1 < len(blocks) else None
        assert [problem.lost for problem in found.problems] == [(start, stop)]
        known = sorted(key for keys in blocks for key in keys if keys is not blocks[i])
        assert shown(disk, f"/new {i}") == {key[1:]: b"new" * 30 for key in known}


def two_tables_of_one_shape(disk: SimulatedDisk) -> tuple[Pairs, str, str]:
    """Return what is true, and the names of the newer table and of one that it replaced."""
    with blobkv.open("/db", fs=disk) as store:
        for value in (b"old", b"new"):
            with store.update() as txn:
                txn.update(dict.fromkeys(KEYS, value * 60))
            store._freeze().maintenance.flush()
        newer, older = (table.name for table in store._source.layers.tables)
        with store.view() as txn:
            return dict(txn), newer, older


def stale_pages(newer: bytearray, older: bytes) -> bytes:
    return older[: 4096 * 3] + newer[4096 * 3 :]


def stale_block(newer: bytearray, older: bytes) -> bytes:
    at = 64 + int.from_bytes(older[68:72], "little")
    assert newer[64:72] != older[64:72]
    return older[:at] + newer[at:]


def another_cut_short(newer: bytearray, older: bytes) -> bytes:
    return older[:-50]


def another_made_longer(newer: bytearray, older: bytes) -> bytes:
    return older + b"more"


def another_with_a_bad_footer(newer: bytearray, older: bytes) -> bytes:
    return older[:-20] + b"?" + older[-19:]


@pytest.mark.parametrize(
    "damage",
    [
        stale_pages,
        stale_block,
        another_cut_short,
        another_made_longer,
        another_with_a_bad_footer,
    ],
    ids=lambda damage: damage.__name__,
)
def test_what_another_table_says_is_not_taken_for_true(
    damage: Callable[[bytearray, bytes], bytes], disk: SimulatedDisk
) -> None:
    disk = SimulatedDisk()
    pairs, newer, older = two_tables_of_one_shape(disk)
    data = bytearray(disk.contents(f"/db/{newer}"))
    disk.set_contents(f"/db/{newer}", damage(data, disk.contents(f"/db/{older}")))

    found = blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    assert shown(disk, "/new").items() <= pairs.items()
    assert found.problems
    assert found.doubtful


def test_an_older_manifest_put_back_hides_no_commit(disk: SimulatedDisk) -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store, store.update() as txn:
        txn.put(b"old", b"1")
    older = disk.contents("/db/MANIFEST")
    store = blobkv.open("/db", fs=disk)
    with store.update() as txn:
        txn.put(b"new", b"2")
    disk = disk.crash(random.Random(0), keep="all")
    disk.set_contents("/db/MANIFEST", older)

    found = blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    assert [problem.path for problem in found.problems] == ["MANIFEST"]
    assert shown(disk, "/new") == {b"old": b"1"}
    assert shown(disk, "/doubtful") == {b"new": b"2"}
    with blobkv.open("/db", fs=disk, read_only=True) as reader:
        assert [problem.path for problem in reader.verify().problems] == ["MANIFEST"]
    store.close()


@pytest.mark.parametrize("kind", [".tbl", ".log"])
def test_a_part_that_cannot_be_read_costs_little_beside_itself(kind: str) -> None:
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    for i in range(400):
        with store.update() as txn:
            txn.put(KEYS[i], bytes(200))
    if kind == ".tbl":
        store.flush()
    disk = disk.crash(random.Random(0), keep="all")
    store.close()
    name = next(name for name in disk.names("/db") if name.endswith(kind))
    unreadable(disk, name, 50_000)

    found = blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    assert 350 < found.entries + found.doubtful < 400
    assert found.entries > (350 if kind == ".tbl" else 180)


def test_a_commit_that_cannot_be_read_takes_none_before_it_along() -> None:
    """Not even what its head claims can be read, which is more than is read ahead."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    for size in (10, 2 << 20, 10):
        with store.update() as txn:
            txn.put(b"%d" % len(txn), bytes(size))
    disk = disk.crash(random.Random(0), keep="all")
    store.close()
    (name,) = (name for name in disk.names("/db") if name.endswith(".log"))
    unreadable(disk, name, 1_500_000)

    found = blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    assert [problem.path for problem in found.problems] == [name]
    assert found.problems[0].reason.startswith("cannot be read: ")
    assert (found.sequence, shown(disk, "/new")) == (1, {b"0": bytes(10)})
    assert shown(disk, "/doubtful").keys() <= {b"1", b"2"}


def unreadable(disk: SimulatedDisk, name: str, at: int) -> None:
    """Have a sector of a file be unreadable."""
    opened = disk.open

    class Bad:
        def __init__(self, path: str) -> None:
            self._file = opened(path)
            self.size = self._file.size
            self._bad = path.endswith(name)

        def read(self, offset: int, size: int) -> bytes:
            if self._bad and offset < at + 512 and offset + size > at:
                raise OSError(errno.EIO, "a bad sector")
            return self._file.read(offset, size)

        def close(self) -> None:
            self._file.close()

    disk.open = Bad  # type: ignore[assignment, method-assign]
