"""The command `blobkv` does what its help says, as a shell would see it.

Method: the command is run as a subprocess on a store in a temporary directory; what matters
is standard output, one line on standard error, and the exit status.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import run, shell

import blobkv
from blobkv import cli


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "db"
    with blobkv.open(path) as store, store.update() as txn:
        txn.put(b"apple", b"green")
        txn.put(b"banana", b"yellow\n")
        txn.put(b"\xff\x00", b"\xfe")
        txn.bucket("fruit", b"\x01").put(b"k", b"nested")
    return path


def test_a_store_from_nothing_in_a_shell(tmp_path: Path) -> None:
    path = tmp_path / "new"
    done = shell(path, "put", "color", "green")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")

    done = shell(path, "get", "color")
    assert (done.returncode, done.stdout, done.stderr) == (0, b"green\n", b"")

    done = shell(path, "get", "shape")
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr == f"blobkv: shape: no such key in {path}\n".encode()

    done = shell(path, "peel", "banana")
    assert (done.returncode, done.stdout) == (2, b"")
    assert done.stderr == b"blobkv: No such command 'peel'. (see: blobkv --help)\n"


def test_values_pass_through_standard_input_and_output_unchanged(tmp_path: Path) -> None:
    value = bytes(range(256)) * 100

    assert shell(tmp_path / "db", "put", "k", "-", stdin=value).returncode == 0
    assert shell(tmp_path / "db", "get", "--raw", "k").stdout == value


def test_scan_prints_in_order_what_can_be_pasted_back(db: Path) -> None:
    done = run(db, "scan")

    assert done.output == "apple\tgreen\nbanana\tyellow\\x0a\n\\xff\\x00\t\\xfe\n"
    assert run(db, "get", r"\xff\x00").output == "\\xfe\n"


def test_scan_takes_ranges(db: Path) -> None:
    assert run(db, "scan", "--prefix", "b", "--keys-only").output == "banana\n"
    assert (
        run(db, "scan", "--start", "b", "--stop", r"\xff", "--keys-only").output == "banana\n"
    )
    assert run(db, "scan", "--reverse", "--limit", 1, "--hex").output == "ff00\tfe\n"
    assert run(db, "scan", "--limit", 0).output == ""


def test_json_holds_any_bytes(db: Path) -> None:
    lines = run(db, "scan", "--json").output.splitlines()

    assert [json.loads(line) for line in lines] == [
        {"key": "apple", "value": "green"},
        {"key": "banana", "value": "yellow\n"},
        {"key": {"base64": "/wA="}, "value": {"base64": "/g=="}},
    ]
    assert json.loads(run(db, "get", "apple", "--json").output)["value"] == "green"


def test_buckets_are_entered_by_name(db: Path) -> None:
    bucket = ("--bucket", "fruit", "--bucket", r"\x01")

    assert run(db, "get", *bucket, "k").output == "nested\n"
    assert run(db, "put", *bucket, "l", "new").exit_code == 0
    assert run(db, "scan", *bucket).output == "k\tnested\nl\tnew\n"
    assert run(db, "get", "k").exit_code == 1


def test_dump_shows_every_entry_of_every_bucket(db: Path) -> None:
    records = [json.loads(line) for line in run(db, "dump").output.splitlines()]

    assert [record["bucket"] for record in records] == [[], [], [], ["fruit", "\x01"]]
    assert records[-1] == {"bucket": ["fruit", "\x01"], "key": "k", "value": "nested"}


def test_delete_says_when_there_was_nothing(db: Path) -> None:
    assert run(db, "delete", "apple").exit_code == 0
    done = run(db, "delete", "apple")

    assert done.exit_code == 1
    assert done.stderr == f"blobkv: apple: no such key in {db}\n"


def test_stats_verify_and_backup(db: Path, tmp_path: Path) -> None:
    assert json.loads(run(db, "stats", "--json").output)["sequence"] == 1
    assert "sequence\t1\n" in run(db, "stats").output
    assert run(db, "verify").output.startswith("sound")
    assert json.loads(run(db, "verify", "--json").output)["ok"] is True

    copy = tmp_path / "copy"
    assert run(db, "backup", copy).output == f"backed up commit 1 to {copy}\n"
    assert run(copy, "dump").output == run(db, "dump").output
    assert run(db, "backup", copy).exit_code == 1
    assert run(db, "backup", tmp_path / "links", "--link").exit_code == 0
    assert run(tmp_path / "links", "verify").output.startswith("sound: ")


def test_stats_tell_what_is_true_of_the_store_whoever_opened_it(db: Path) -> None:
    with blobkv.open(db) as store:
        store.flush()
        table_size = store.stats().table_size

    assert run(db, "stats").output == (
        f"sequence\t1\ntable_count\t1\ntable_size\t{table_size} bytes\n"
        "table_entries\t4\nruns\t1 (tables in each)\nmemtable_count\t0\n"
    )
    assert json.loads(run(db, "stats", "--json").output) == {
        "sequence": 1,
        "table_count": 1,
        "table_size": table_size,
        "table_entries": 4,
        "runs": [{"tables": 1, "size": table_size, "entries": 4}],
        "memtable_count": 0,
    }


def test_reading_works_beside_a_live_writer_and_writing_says_who_it_is(db: Path) -> None:
    with blobkv.open(db) as store:
        with store.update() as txn:
            txn.put(b"live", b"yes")

        assert run(db, "get", "live").output == "yes\n"
        assert run(db, "verify").exit_code == 0
        done = run(db, "put", "k", "v")
    assert done.exit_code == 1
    assert "has the store open; close it there, or wait with --wait SECONDS\n" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command",
    [
        ["get", "k"],
        ["scan"],
        ["dump"],
        ["buckets"],
        ["stats"],
        ["verify"],
        ["delete", "k"],
        ["clear"],
    ],
)
def test_no_command_but_put_and_load_makes_a_store(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path / "missing", *command)

    assert done.exit_code == 1
    assert done.stderr.startswith(f"blobkv: {tmp_path}/missing: no store here; `blobkv ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["get"],
        ["get", "\\q"],
        ["get", "--hex", "xyz"],
        ["scan", "--limit", "-1"],
        ["put", "k"],
        ["put", "--wait", "-1", "k", "v"],
        ["get", "--raw", "--json", "apple"],
        ["stats", "--hex"],
        ["verify", "--bucket", "fruit"],
        ["backup", "--hex", "copy"],
        ["put", "k", "-5"],
        [],
    ],
)
def test_wrong_calls_exit_with_2_and_one_line_that_names_the_help(
    db: Path, arguments: list[str]
) -> None:
    done = run(db, *arguments)

    assert (done.exit_code, done.output) == (2, "")
    assert done.stderr.startswith("blobkv: ")
    assert done.stderr.endswith(" --help)\n")
    assert done.stderr.count("\n") == 1


def test_an_empty_path_is_not_this_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    done = run("", "put", "k", "v")

    assert (done.exit_code, done.output) == (2, "")
    assert "PATH is empty" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_value_may_be_a_dash_or_start_with_one(db: Path) -> None:
    assert run(db, "put", "dash", r"\x2d").exit_code == 0
    assert run(db, "get", "dash").output == "-\n"
    assert run(db, "put", "--", "number", "-5").exit_code == 0
    assert run(db, "get", "number").output == "-5\n"


@pytest.mark.parametrize("path", ["file", "file/sub"])
@pytest.mark.parametrize("command", [["put", "k", "v"], ["get", "k"], ["delete", "k"]])
def test_a_file_in_the_place_of_a_store_is_named(
    tmp_path: Path, path: str, command: list[str]
) -> None:
    (tmp_path / "file").touch()
    done = run(tmp_path / path, *command)

    assert done.exit_code == 1
    assert done.stderr == f"blobkv: {tmp_path / path}: not a directory; a store is one\n"


def test_clear_deletes_keys_of_a_prefix_and_leaves_buckets(db: Path) -> None:
    assert run(db, "clear", "--prefix", "b").output == "deleted 1 key\n"
    assert run(db, "scan", "--keys-only").output == "apple\n\\xff\\x00\n"
    assert json.loads(run(db, "clear", "--json").output) == {"deleted": 2}
    assert run(db, "scan").output == ""
    assert run(db, "buckets").output == "fruit\n"
    assert run(db, "clear", "--bucket", "fruit", "--bucket", r"\x01").exit_code == 0
    assert run(db, "dump").output == ""


def test_buckets_are_listed_a_level_at_a_time(db: Path) -> None:
    assert run(db, "buckets").output == "fruit\n"
    assert run(db, "buckets", "--bucket", "fruit").output == "\\x01\n"
    assert run(db, "buckets", "--bucket", "66727569 74", "--hex").output == "01\n"
    assert json.loads(run(db, "buckets", "--json").output) == {"name": "fruit"}


def test_help_needs_no_store() -> None:
    done = run("--help")

    assert done.exit_code == 0
    for name in cli.blobkv.commands:
        assert name in done.output


@pytest.mark.parametrize("arguments", [["put", "--help"], ["put", "-h"]])
def test_help_of_a_command_needs_no_path(arguments: list[str]) -> None:
    done = run(*arguments)

    assert done.exit_code == 0
    assert done.output.startswith("Usage: blobkv PATH put [OPTIONS] KEY VALUE\n")


def test_a_store_may_have_the_name_of_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)

    assert run("put", "put", "k", "v").exit_code == 0
    assert run("put", "get", "k").output == "v\n"
    assert run("put", "get", "--help").output.startswith("Usage: blobkv PATH get ")


def test_without_click_the_command_says_what_to_install(tmp_path: Path) -> None:
    (tmp_path / "click.py").write_text("raise ModuleNotFoundError('no', name='click')")
    done = subprocess.run(
        [sys.executable, "-m", "blobkv", "--help"],
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert "pip install 'blobkv[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
