"""A damaged store is told from no store, and `verify` reports what is wrong in one shape.

Method: damage one file of a sound store, then run each command on it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from support.command import run

import blobkv


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "db"
    with blobkv.open(path) as store:
        with store.update() as txn:
            txn.put(b"old", b"in a table")
        store.flush()
        with store.update() as txn:
            txn.put(b"new", b"in a log")
    return path


def flip(file: Path, offset: int) -> None:
    data = bytearray(file.read_bytes())
    data[offset] ^= 1
    file.write_bytes(data)


def damage_table(db: Path) -> str:
    file = next(db.glob("*.tbl"))
    flip(file, 80)
    return file.name


def damage_log(db: Path) -> str:
    file = max(db.glob("*.log"))
    flip(file, 0)
    return file.name


def damage_manifest(db: Path) -> str:
    flip(db / "MANIFEST", 20)
    return "MANIFEST"


def lose_manifest(db: Path) -> str:
    (db / "MANIFEST").unlink()
    return "MANIFEST"


@pytest.mark.parametrize("damage", [damage_table, damage_log, damage_manifest, lose_manifest])
def test_verify_reports_what_is_wrong(db: Path, damage: Callable[[Path], str]) -> None:
    name = damage(db)

    done = run(db, "verify")
    assert (done.exit_code, done.stderr) == (1, "")
    assert done.output.startswith("1 problem: ")
    assert done.output.splitlines()[1].startswith(f"{name}+0x")

    done = run(db, "verify", "--json")
    report = json.loads(done.output)
    assert (done.exit_code, done.stderr, report["ok"]) == (1, "", False)
    assert [problem["path"] for problem in report["problems"]] == [name]
    assert report.keys() == {"ok", "tables", "logs", "entries", "size", "problems"}


@pytest.mark.parametrize("damage", [damage_log, damage_manifest, lose_manifest])
@pytest.mark.parametrize(
    "command", [["get", "old"], ["put", "k", "v"], ["scan"], ["delete", "old"], ["stats"]]
)
def test_other_commands_say_what_is_damaged_and_what_to_do(
    db: Path, damage: Callable[[Path], str], command: list[str]
) -> None:
    name = damage(db)
    done = run(db, *command)

    assert (done.exit_code, done.output) == (1, "")
    assert done.stderr.startswith(f"blobkv: {db}: {name}+0x")
    assert done.stderr.endswith(
        f"; run: blobkv {db} verify, or salvage DEST; or restore a backup\n"
    )
    assert done.stderr.count("\n") == 1


def test_verify_counts_in_the_right_number(tmp_path: Path) -> None:
    run(tmp_path / "db", "put", "k", "v")

    assert run(tmp_path / "db", "verify").output.startswith("sound: 1 entry, ")
    assert run(tmp_path / "db", "verify").output.endswith(" bytes in 0 tables and 1 log\n")
