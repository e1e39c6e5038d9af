"""Where a salvage may write, and that it writes all of a store there or nothing."""

from __future__ import annotations

import json
import random
from itertools import count
from pathlib import Path

import pytest
from support.command import run
from support.damaged_store import KEYS, make, shown
from support.fault_table import Note

import blobkv
from blobkv._engine.salvage import _Remainder
from blobkv.errors import UsageError
from blobkv.testing import PowerCut, SimulatedDisk


@pytest.fixture
def disk(clear_by_range: None) -> SimulatedDisk:
    return make()[0]


@pytest.mark.parametrize(
    ("target", "doubtful", "reason"),
    [
        ("/new", "/new", "for both"),
        ("/db/new", None, "not beside /db"),
        ("/", None, "not beside /db"),
        ("/db", None, "not beside /db"),
        ("/new", "/db/doubtful", "not beside /db"),
    ],
)
def test_targets_that_make_no_sense_are_refused_before_anything_is_written(
    target: str, doubtful: str | None, reason: str, disk: SimulatedDisk
) -> None:
    before = disk.operations
    with pytest.raises(UsageError, match=reason):
        blobkv.salvage("/db", target, doubtful=doubtful, fs=disk)
    assert disk.operations == before


@pytest.mark.parametrize("argument", ["/new", "/doubtful"])
def test_a_target_that_is_not_empty_is_left_alone(argument: str, disk: SimulatedDisk) -> None:
    with blobkv.open(argument, fs=disk):
        pass
    before = {name: disk.contents(f"{argument}/{name}") for name in disk.names(argument)}
    with pytest.raises(UsageError, match=f"{argument}: not empty"):
        blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    assert before == {
        name: disk.contents(f"{argument}/{name}") for name in disk.names(argument)
    }


def test_a_file_in_place_of_a_target_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with blobkv.open(tmp_path / "db"):
        pass
    with pytest.raises(UsageError, match="file: not a directory"):
        blobkv.salvage(tmp_path / "db", tmp_path / "file")


def test_where_there_is_no_store_there_is_nothing_to_salvage(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "missing"):
        with pytest.raises(UsageError, match="no store here"):
            blobkv.salvage(path, tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_a_store_that_is_written_to_meanwhile_is_refused(
    disk: SimulatedDisk, monkeypatch: pytest.MonkeyPatch
) -> None:
    check = _Remainder.check_unchanged

    def written_to(self: object) -> None:
        with blobkv.open("/db", fs=disk) as store:
            store.flush()
        check(self)  # type: ignore[arg-type]

    monkeypatch.setattr(_Remainder, "check_unchanged", written_to)
    with pytest.raises(UsageError, match="changed meanwhile; end its writer first"):
        blobkv.salvage("/db", "/new", doubtful="/doubtful", fs=disk)
    assert disk.names("/new") == disk.names("/doubtful") == []


@pytest.mark.slow
def test_power_lost_anywhere_in_a_salvage(disk: SimulatedDisk, tried: Note) -> None:
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
