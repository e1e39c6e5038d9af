"""What is salvaged of a damaged store is true of one commit, and what is left out is said.

Method: a store with layers of tables, deletes, cleared ranges, and logs is damaged in every
file: each byte flipped, the file gone, cut, emptied, filled with zeroes, or another's in its
place. What is salvaged must be entries of the state after the commit that it claims; what is
missing there must be among the doubtful ones, or in the part that was damaged.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from itertools import count
from pathlib import Path

import pytest
from support.command import run
from support.fault_table import Note

import blobkv
from blobkv import Salvage
from blobkv._engine.salvage import _Remainder
from blobkv.errors import UsageError
from blobkv.testing import PowerCut, SimulatedDisk

Pairs = dict[bytes, bytes]
Damage = Callable[[SimulatedDisk, str], None]
KEYS = [b"key %03d" % number for number in range(400)]


def make() -> tuple[SimulatedDisk, list[Pairs]]:
    """A store in /db that was killed, and its contents after each commit."""
    disk = SimulatedDisk()
    rng = random.Random(5)
    states: list[Pairs] = [{}]
    store = blobkv.open("/db", fs=disk)

    def commit(change: Callable[[blobkv.Transaction], None]) -> None:
        with store.update() as txn:
            change(txn)
            states.append(dict(txn))

    def layer(txn: blobkv.Transaction) -> None:
        prefix = rng.choice(KEYS)[:-1]
        txn.clear(prefix)
        for key in rng.sample(KEYS, 120):
            if rng.random() < 0.3:
                txn.delete(key)
            else:
                txn.put(key, b"%06d" % rng.randrange(10**6) * 12)

    for _ in range(3):
        commit(layer)
        store._freeze().maintenance.flush()
    for i in range(3):
        commit(lambda txn, i=i: txn.put(KEYS[i], b"in a log"))
        store._freeze()
    for i in range(4):
        commit(lambda txn, i=i: txn.put(b"last", b"%d" % i * 40))
    killed = disk.crash(random.Random(0), keep="all")
    store.close()
    return killed, states


def shown(disk: SimulatedDisk, path: str) -> Pairs:
    with blobkv.open(path, fs=disk, create=False) as store:
        assert store.verify().ok
        with store.view() as txn:
            return dict(txn)


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
    assert 300 < found.entries < 400


@pytest.mark.parametrize("argument", ["/new", "/doubtful"])
def test_a_target_that_is_not_empty_is_left_alone(
    argument: str, disk: SimulatedDisk, states: list[Pairs]
) -> None:
    with blobkv.open(argument, fs=disk):
        pass
    before = {name: disk.contents(f"{argument}/{name}") for name in disk.names(argument)}
    with pytest.raises(UsageError, match=f"{argument}: not empty"):
        blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    assert before == {
        name: disk.contents(f"{argument}/{name}") for name in disk.names(argument)
    }


def test_where_there_is_no_store_there_is_nothing_to_salvage(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="no store here"):
            blobkv.salvage(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_store_that_is_written_to_meanwhile_is_refused(
    disk: SimulatedDisk, states: list[Pairs], monkeypatch: pytest.MonkeyPatch
) -> None:
    check = _Remainder.check_unchanged

    def written_to(self: object) -> None:
        with blobkv.open("/db", fs=disk) as store:
            store.flush()
        check(self)  # type: ignore[arg-type]

    monkeypatch.setattr(_Remainder, "check_unchanged", written_to)
    with pytest.raises(UsageError, match="changed meanwhile; end its writer first"):
        blobkv.salvage("/db", "/new", fs=disk)


@pytest.mark.slow
def test_power_lost_anywhere_in_a_salvage(
    disk: SimulatedDisk, states: list[Pairs], tried: Note
) -> None:
    table = max(name for name in disk.names("/db") if name.endswith(".tbl"))
    data = bytearray(disk.contents(f"/db/{table}"))
    data[100] ^= 1
    disk.set_contents(f"/db/{table}", bytes(data))
    wanted = {}
    for number in count():
        copy = disk.crash(random.Random(0), keep="all")
        copy.cut_at = number or None
        try:
            blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=copy)
        except PowerCut:
            pass
        else:
            copy.cut_at = None
            found = {path: shown(copy, path) for path in ("/new", "/doubtful")}
            assert all(found.values())
            if number:
                break
            wanted = found
        for keep in ("none", "all", "random"):
            after = copy.crash(random.Random(number), keep=keep)
            assert after.names("/db") == disk.names("/db")
            for path, pairs in wanted.items():
                if path[1:] in after.names("/") and "MANIFEST" in after.names(path):
                    assert shown(after, path) == pairs
    assert number > 20
    tried("power cut in a salvage", 3 * number)


def test_the_command(tmp_path: Path) -> None:
    db = tmp_path / "db"
    with blobkv.open(db) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS, bytes(200)))
        store.flush()
    file = next(db.glob("*.tbl"))
    data = bytearray(file.read_bytes())
    data[100] ^= 1
    file.write_bytes(data)

    done = run(db, "salvage", tmp_path / "new", "--doubtful", tmp_path / "doubtful", "--json")
    report = json.loads(done.output)
    assert (done.exit_code, done.stderr) == (0, "")
    assert report["entries"] + 20 > len(KEYS) - 1 > report["entries"]
    assert (report["doubtful"], report["sequence"]) == (0, 1)
    assert report["problems"][0]["path"] == file.name
    assert report["problems"][0]["lost"]["start"] == ""
    assert report["problems"][0]["lost"]["stop"].startswith("\x00key 0")
    assert run(tmp_path / "new", "verify").exit_code == 0

    done = run(db, "salvage", tmp_path / "new")
    assert (done.exit_code, done.output) == (1, "")
    assert "new: not empty; give a new directory" in done.stderr
