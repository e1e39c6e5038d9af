"""Across processes: one writer, readers beside it, dead forks, kills that lose nothing.

Method: real processes on the real disk. A child writes and reports each acknowledged commit
on its standard output; the parent reads beside it, or kills it with SIGKILL and looks at what
is there.
"""

from __future__ import annotations

import fcntl
import json
import os
import random
import socket
import subprocess
import sys
import threading
import warnings
from typing import TYPE_CHECKING

import pytest
from support.fault_table import Note

import blobkv
from blobkv.errors import ClosedError, LockedError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WRITER = """
import sys, blobkv
with blobkv.open(sys.argv[1], memtable_size=8192) as store:
    with store.view() as txn:
        number = int(txn.get(b"n", b"0"))
    while True:
        number += 1
        with store.update() as txn:
            txn.put(b"n", b"%d" % number)
            txn.put(b"k%d" % (number % 50), b"%d" % number * 40)
            txn.bucket("twin").put(b"n", b"%d" % number)
        print(number, flush=True)
"""


def start_writer(path: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True
    )


def stop(process: subprocess.Popen[str]) -> list[int]:
    """Kill the writer; return what else it had acknowledged."""
    process.kill()
    assert process.stdout is not None
    # Not by `communicate`, which misses what `readline` has read ahead.
    with process.stdout:
        rest = process.stdout.read()
    process.wait(timeout=30)
    # The kill may cut the last line short.
    return [int(line) for line in rest.splitlines(keepends=True) if line.endswith("\n")]


@pytest.fixture
def writer(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    process = start_writer(tmp_path / "db")
    assert process.stdout is not None
    assert process.stdout.readline() == "1\n"
    yield process
    stop(process)


@pytest.mark.slow
def test_a_reader_sees_every_acknowledged_commit_of_a_live_writer(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    assert writer.stdout is not None
    shown = 0
    with blobkv.open(tmp_path / "db", read_only=True) as store:
        for _ in range(200):
            acknowledged = int(writer.stdout.readline())
            with store.view() as txn:
                number = int(txn[b"n"])
                assert number >= max(acknowledged, shown)
                assert txn.bucket("twin")[b"n"] == txn[b"n"]
                assert txn[b"k%d" % (number % 50)] == b"%d" % number * 40
                shown = number


def test_a_second_writer_is_told_who_holds_the_store(
    writer: subprocess.Popen[str], tmp_path: Path
) -> None:
    with pytest.raises(LockedError, match=f"process {writer.pid} ") as caught:
        blobkv.open(tmp_path / "db")
    assert caught.value.pid == writer.pid


@pytest.mark.slow
def test_killing_the_writer_over_and_over_loses_no_acknowledged_commit(
    tmp_path: Path, tried: Note
) -> None:
    rng = random.Random(0)
    acknowledged = 0
    for _ in range(12):
        process = start_writer(tmp_path / "db")
        assert process.stdout is not None
        for _ in range(rng.randrange(1, 60)):
            acknowledged = int(process.stdout.readline())
        acknowledged = max([acknowledged, *stop(process)])
        with blobkv.open(tmp_path / "db") as store:
            assert store.verify().ok
            with store.view() as txn:
                survived = int(txn[b"n"])
                assert survived in (acknowledged, acknowledged + 1)
                assert txn.bucket("twin")[b"n"] == txn[b"n"]
                for number in range(max(1, survived - 49), survived + 1):
                    assert txn[b"k%d" % (number % 50)] == b"%d" % number * 40
        acknowledged = survived
    tried("SIGKILL of a writer", 12)


def test_a_reader_needs_no_write_permission(tmp_path: Path) -> None:
    with blobkv.open(tmp_path / "db") as store, store.update() as txn:
        txn.put(b"k", b"v")
    before = sorted((tmp_path / "db").iterdir())
    script = (
        "import os, sys, blobkv\n"
        "if os.getuid() == 0: os.setgid(65534); os.setuid(65534)\n"
        "with blobkv.open(sys.argv[1], read_only=True) as store, store.view() as txn:\n"
        "    print(txn[b'k'].decode())\n"
    )
    for path in (tmp_path.parents[1], tmp_path.parent, tmp_path, tmp_path / "db"):
        path.chmod(0o755)
    for path in (tmp_path / "db").iterdir():
        path.chmod(0o444)

    result = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "db")],
        capture_output=True,
        text=True,
        check=False,
    )

    assert (result.stdout, result.stderr) == ("v\n", "")
    assert sorted((tmp_path / "db").iterdir()) == before


def test_the_store_of_a_forked_child_is_dead_and_the_parent_goes_on(tmp_path: Path) -> None:
    with blobkv.open(tmp_path / "db") as store:
        with store.update() as txn:
            txn.put(b"k", b"v")
        view = store.view()
        with warnings.catch_warnings():
            # Newer Pythons warn of forking beside threads, which is what is tested.
            warnings.simplefilter("ignore", DeprecationWarning)
            pid = os.fork()
        if pid == 0:
            wrong = 1
            try:
                wrong = _uses_that_are_not_refused(store, view)
            finally:
                os._exit(wrong)
        _, status = os.waitpid(pid, 0)

        assert os.waitstatus_to_exitcode(status) == 0
        assert view[b"k"] == b"v"
        view.rollback()
        with pytest.raises(LockedError):
            blobkv.open(tmp_path / "db")
        with store.update() as txn:
            txn.put(b"k", b"parent")
    with blobkv.open(tmp_path / "db") as store, store.view() as txn:
        assert txn[b"k"] == b"parent"


def _uses_that_are_not_refused(store: blobkv.Store, view: blobkv.Transaction) -> int:
    """Run in the child: count what should raise ClosedError and did not; closing is fine."""
    wrong = 0
    for use in (store.view, store.update, store.flush, store.sync, lambda: view.get(b"k")):
        try:
            use()
        except ClosedError:
            continue
        wrong += 1
    store.close()
    return wrong


def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    stop(start_writer(tmp_path / "db"))

    blobkv.open(tmp_path / "db").close()


@pytest.mark.parametrize("let_go", [True, False])
def test_a_lock_that_outlives_its_holder_is_waited_for_a_moment(
    tmp_path: Path, *, let_go: bool
) -> None:
    """As a process keeps it that the holder, when it was killed, was just starting."""
    blobkv.open(tmp_path / "db").close()
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait(timeout=30)
    with (tmp_path / "db/LOCK").open("w") as file:
        json.dump({"pid": dead.pid, "host": socket.gethostname()}, file)
        file.flush()
        fcntl.flock(file, fcntl.LOCK_EX)
        if let_go:
            release = threading.Timer(0.2, fcntl.flock, [file, fcntl.LOCK_UN])
            release.start()
            blobkv.open(tmp_path / "db").close()
            release.join()
        else:
            with pytest.raises(LockedError, match=f"process {dead.pid} "):
                blobkv.open(tmp_path / "db")


def test_a_child_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    store = blobkv.open(tmp_path / "db")
    child = subprocess.Popen(
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE, close_fds=False
    )
    try:
        store.close()
        # The kernel closes what the child inherited a moment after the child has started.
        blobkv.open(tmp_path / "db", lock_timeout=10).close()
    finally:
        child.communicate(b"\n", timeout=30)


@pytest.mark.parametrize("survivor", ["parent", "child"])
def test_a_fork_does_not_keep_the_lock(tmp_path: Path, survivor: str) -> None:
    """Nor does a store closed in the child take the lock from its parent."""
    script = """
import os, sys, blobkv
store = blobkv.open(sys.argv[1])
pid = os.fork()
if pid == 0:
    store.close()
    sys.stdin.read()
    os._exit(0)
if sys.argv[2] == "parent":
    store.close()
    store = blobkv.open(sys.argv[1])
    print("open again", flush=True)
    sys.stdin.read()
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path / "db"), survivor],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        if survivor == "parent":
            assert process.stdout.readline() == "open again\n"
            with pytest.raises(LockedError):
                blobkv.open(tmp_path / "db")
        else:
            process.wait(timeout=30)
            blobkv.open(tmp_path / "db").close()
    finally:
        process.stdin.close()
        process.stdout.close()
        process.wait(timeout=30)


def test_a_store_opened_twice_is_said_to_be_open_in_this_process(tmp_path: Path) -> None:
    with (
        blobkv.open(tmp_path / "db"),
        pytest.raises(LockedError, match=", this very one, has the store open"),
    ):
        blobkv.open(tmp_path / "db")
