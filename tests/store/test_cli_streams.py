"""What the command `blobkv` does where a stream is a pipe, a terminal, full, or a whole dump.

Method: where the stream matters, the command is a process of its own that has a real one.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from support.command import Done, run, shell

import blobkv
from blobkv import calls, cli

COMMAND = [sys.executable, "-m", "blobkv"]


@pytest.fixture
def db(tmp_path: Path) -> Path:
    path = tmp_path / "db"
    with blobkv.open(path) as store, store.update() as txn:
        for number in range(10_000):
            txn.put(b"%05d" % number, b"v")
    return path


def on_terminal(*arguments: object, typed: bytes) -> Done:
    """Run the command with a terminal as its standard input and error."""
    ours, theirs = pty.openpty()
    try:
        os.write(ours, typed)
        done = subprocess.run(
            [*COMMAND, *map(str, arguments)],
            stdin=theirs,
            stdout=subprocess.PIPE,
            stderr=theirs,
            check=False,
            timeout=60,
        )
        os.close(theirs)
        seen = b""
        try:
            while data := os.read(ours, 4096):
                seen += data
        except OSError:
            # How a terminal says that nobody is there any more.
            pass
    finally:
        os.close(ours)
    return Done(done.returncode, done.stdout.decode(), seen.decode())


@pytest.mark.parametrize("command", ["scan", "dump"])
def test_who_stops_reading_ends_it_quietly(db: Path, command: str) -> None:
    with subprocess.Popen(
        [*COMMAND, str(db), command], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""

    assert process.returncode == -signal.SIGPIPE


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs a device that is full")
@pytest.mark.parametrize(
    "command", [["scan"], ["scan", "--limit", "1"], ["get", "--raw", "00001"]]
)
def test_a_full_standard_output_is_named(db: Path, command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*COMMAND, str(db), *command], stdout=full, stderr=subprocess.PIPE, check=False
        )

    assert done.returncode == 1
    assert done.stderr == b"blobkv: standard output: No space left on device\n"


def test_clear_asks_on_a_terminal(db: Path) -> None:
    no = on_terminal(db, "clear", "--prefix", "0", typed=b"n\n")
    assert no.exit_code == 1
    assert f"Delete the keys that start with 0 in {db}? [y/N]: " in no.stderr
    assert "blobkv: nothing is deleted" in no.stderr
    assert json.loads(run(db, "stats", "--json").output)["sequence"] == 1

    yes = on_terminal(db, "clear", "--prefix", "00", typed=b"y\n")
    assert (yes.exit_code, yes.output) == (0, "deleted 1000 keys\n")

    unasked = on_terminal(db, "clear", "--yes", typed=b"")
    assert (unasked.exit_code, unasked.output, unasked.stderr) == (0, "deleted 9000 keys\n", "")


@pytest.mark.parametrize("options", [[], ["--hex"]])
def test_load_reads_what_dump_writes(tmp_path: Path, options: list[str]) -> None:
    with blobkv.open(tmp_path / "db") as store, store.update() as txn:
        txn.put(b"", b"")
        txn.put(b"\xff\x00", bytes(range(256)))
        txn.put(b"text", "caf\xe9 \\ \n".encode())
        txn.bucket("fruit", b"\x00\xff").put(b"k", b"nested")
        txn.bucket("many").update({b"%04d" % n: b"v" for n in range(2_500)})
    dumped = run(tmp_path / "db", "dump", *options).output

    done = run(tmp_path / "copy", "load", *options, stdin=dumped)

    assert (done.exit_code, done.output) == (0, "loaded 2504 entries\n")
    assert run(tmp_path / "copy", "dump", *options).output == dumped
    # Three commits of at most a thousand entries.
    assert json.loads(run(tmp_path / "copy", "stats", "--json").output)["sequence"] == 3


def test_load_goes_into_a_bucket_and_leaves_what_is_there(tmp_path: Path) -> None:
    line = '{"bucket": ["inner"], "key": "k", "value": "v"}\n'
    run(tmp_path / "db", "put", "--bucket", "outer", "there", "before")

    assert json.loads(
        run(tmp_path / "db", "load", "--bucket", "outer", "--json", stdin=line).output
    ) == {"loaded": 1}
    assert run(tmp_path / "db", "dump").output == (
        '{"bucket": ["outer"], "key": "there", "value": "before"}\n'
        '{"bucket": ["outer", "inner"], "key": "k", "value": "v"}\n'
    )


TOO_LARGE = json.dumps({"bucket": [], "key": "k" * 100_000, "value": ""})


@pytest.mark.parametrize(
    ("wrong", "reason"), [("nonsense", "not JSON: "), (TOO_LARGE, "key is 100000 bytes")]
)
def test_load_says_which_line_is_wrong_and_what_is_loaded(
    db: Path, tmp_path: Path, wrong: str, reason: str
) -> None:
    lines = run(db, "dump").output.splitlines(keepends=True)
    done = run(tmp_path / "copy", "load", stdin="".join(lines[:2100]) + wrong)

    assert (done.exit_code, done.output) == (1, "")
    assert done.stderr.startswith(f"blobkv: line 2101: {reason}")
    assert done.stderr.endswith("; 2000 lines before it loaded\n")
    assert run(tmp_path / "copy", "dump").output == "".join(lines[:2000])


def test_load_shows_progress_on_a_terminal(db: Path, tmp_path: Path) -> None:
    lines = run(db, "dump").output.splitlines(keepends=True)[:2100]
    # A line ends at a line feed; 0x04 at the start of one ends what is typed.
    typed = "".join(lines[:3]).encode() + b"\x04"

    done = on_terminal(tmp_path / "copy", "load", typed=typed)

    assert (done.exit_code, done.output) == (0, "loaded 3 entries\n")
    assert done.stderr.endswith("\n3\r")
    assert shell(tmp_path / "copy", "load", stdin="".join(lines).encode()).stderr == b""


def test_an_interrupt_exits_with_130(db: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(calls, "print_line", interrupt)

    assert run(db, "scan").exit_code == cli.INTERRUPTED == 130
