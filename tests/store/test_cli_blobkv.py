"""The command `blobkv` does what its help says, as a shell would see it.

Method: the command is run as a subprocess on a store in a temporary directory; what matters
is standard output, one line on standard error, and the exit status.
"""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import blobkv
from blobkv import cli, spelling
from blobkv.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from click.testing import Result


def shell(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "blobkv", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
    )


def run(*arguments: object, stdin: bytes = b"") -> Result:
    """The same in this process, where a subprocess would only cost time."""
    return CliRunner().invoke(cli.blobkv, [*map(str, arguments)], input=stdin)


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
    assert done.stderr == f"Error: shape: no such key in {path}\n".encode()

    done = shell(path, "peel", "banana")
    assert done.returncode == 2


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
    assert done.stderr == f"Error: apple: no such key in {db}\n"


def test_stats_verify_and_backup(db: Path, tmp_path: Path) -> None:
    assert json.loads(run(db, "stats", "--json").output)["sequence"] == 1
    assert "sequence\t1\n" in run(db, "stats").output
    assert run(db, "verify").output.startswith("sound")
    assert json.loads(run(db, "verify", "--json").output)["ok"] is True

    assert run(db, "backup", tmp_path / "copy").exit_code == 0
    assert run(tmp_path / "copy", "dump").output == run(db, "dump").output
    assert run(db, "backup", tmp_path / "copy").exit_code == 1


def test_verify_fails_on_a_damaged_store(db: Path) -> None:
    with blobkv.open(db) as store:
        store.flush()
    table = next(db.glob("*.tbl"))
    data = bytearray(table.read_bytes())
    data[80] ^= 1
    table.write_bytes(data)

    done = run(db, "verify")
    assert done.exit_code == 1
    assert table.name in done.output


def test_reading_works_beside_a_live_writer_and_writing_says_who_it_is(db: Path) -> None:
    with blobkv.open(db) as store:
        with store.update() as txn:
            txn.put(b"live", b"yes")

        assert run(db, "get", "live").output == "yes\n"
        assert run(db, "verify").exit_code == 0
        done = run(db, "put", "k", "v")
    assert done.exit_code == 1
    assert "has the store open" in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "command", [["get", "k"], ["scan"], ["dump"], ["stats"], ["verify"], ["delete", "k"]]
)
def test_no_command_but_put_makes_a_store(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path / "missing", *command)

    assert done.exit_code == 1
    assert done.stderr.startswith(f"Error: {tmp_path}/missing: no store here; `blobkv ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "arguments",
    [
        ["get"],
        ["get", "\\q"],
        ["get", "--hex", "xyz"],
        ["scan", "--limit", "-1"],
        ["put", "k"],
    ],
)
def test_wrong_calls_exit_with_2(db: Path, arguments: list[str]) -> None:
    assert run(db, *arguments).exit_code == 2


def test_help_needs_no_store() -> None:
    done = run("--help")

    assert done.exit_code == 0
    for name in ("get", "put", "delete", "scan", "stats", "verify", "dump", "backup"):
        assert name in done.output


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


@given(st.binary(), st.booleans())
def test_spelling_round_trips(raw: bytes, as_hex: bool) -> None:  # noqa: FBT001 - by Hypothesis
    text = spelling.encode(raw, as_hex=as_hex)

    assert spelling.decode(text, as_hex=as_hex) == raw
    assert text.isprintable()


@pytest.mark.parametrize("text", ["\\", "a\\n", "\\x", "\\x1", "\\xg0"])
def test_a_backslash_that_starts_no_escape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--hex"):
        spelling.decode(text)
