"""A child process writes the tables of large jobs, and its death at any moment costs nothing.

Method: on the real file system every job counts as large enough for a child. It is killed, or
its parent is, while it works; what is then in the store is compared with what was committed,
and the files with those that the manifest names.
"""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from support.file_names import ALWAYS
from support.piece_sizes import set_piece_size

import blobkv
from blobkv import Store
from blobkv._engine import builder, child
from blobkv._engine.child import Child, ChildError
from blobkv._engine.worker import Worker
from blobkv.errors import CorruptionError
from blobkv.testing import SimulatedDisk

pytestmark = pytest.mark.skipif(
    len(os.sched_getaffinity(0)) < 2 if hasattr(os, "sched_getaffinity") else False,
    reason="one processor only",
)


@pytest.fixture(autouse=True)
def small_jobs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(builder, "CHILD_SIZE_MIN", 0)
    set_piece_size(monkeypatch, 40_000)


def fill(store: Store, seed: int, count: int = 2000) -> dict[bytes, bytes]:
    rng = random.Random(seed)
    pairs = {b"%06d" % rng.randrange(9000): rng.randbytes(60) for _ in range(count)}
    with store.update() as txn:
        txn.update(pairs)
    return pairs


def two_layers(store: Store) -> dict[bytes, bytes]:
    pairs = fill(store, 1)
    store._freeze().maintenance.flush()
    pairs |= fill(store, 2)
    with store.update() as txn:
        txn.clear(b"0000")
        txn.delete(b"never there")
    pairs = {key: value for key, value in pairs.items() if not key.startswith(b"0000")}
    store._freeze().maintenance.flush()
    return pairs


def shown(store: Store) -> dict[bytes, bytes]:
    with store.view() as txn:
        return dict(txn)


def files(path: Path) -> set[str]:
    return {file.name for file in path.iterdir()} - ALWAYS


def check(path: Path, pairs: dict[bytes, bytes]) -> None:
    with blobkv.open(path) as store:
        assert shown(store) == pairs
        assert store.verify().ok
        assert files(path) == store._source.manifest.names


def test_a_child_writes_the_same_bytes_as_this_process(tmp_path: Path) -> None:
    digests = []
    for name in ("child", "here"):
        with blobkv.open(tmp_path / name) as store:
            if name == "here":
                store._source.maintenance.builder._impossible = "the test wants it here"
            pairs = two_layers(store)
            flushed = [file.sha256 for file in store._source.manifest.tables]
            store.compact()
            stats = store.stats()
            merged = [file.sha256 for file in store._source.manifest.tables]
            digests.append((flushed, merged))

            assert shown(store) == pairs
            assert stats.child_reason == (None if name == "child" else "the test wants it here")
            assert stats.child_tables == (2 + len(merged) if name == "child" else 0)

    assert digests[0] == digests[1]
    assert len(digests[0][1]) > 1


def test_the_simulated_disk_has_no_child() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        two_layers(store)
        stats = store.stats()

    assert (stats.child_tables, stats.child_reason) == (0, "not the real file system")


@pytest.mark.parametrize(
    "moment", ["before the job", "within the job", "between pieces", "before its answer came"]
)
def test_what_a_killed_child_leaves_undone_is_done_here(
    tmp_path: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = Child.ask
    asked = []

    def killed(self: Child, name: str, *job: object) -> object:
        asked.append(name)
        if moment == "before the job" or asked.count("piece") == 2:
            self._process.kill()
            self._process.wait()
        elif moment == "within the job" and name == "piece":
            threading.Timer(0.001, self.kill).start()
        answer = ask(self, name, *job)
        if moment == "before its answer came" and name == "piece":
            # So that there surely is what it had written.
            self._process.kill()
            self._process.wait()
            raise ChildError("it died")
        return answer

    with blobkv.open(tmp_path / "db") as store:
        pairs = two_layers(store)
        monkeypatch.setattr(Child, "ask", killed)
        store.compact()

        assert shown(store) == pairs
        assert moment == "within the job" or store.stats().child_reason is not None
        assert files(tmp_path / "db") == store._source.manifest.names
    check(tmp_path / "db", pairs)


def test_one_thread_at_a_time_asks_the_child(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two would read each other's answers, a byte here and a byte there."""
    ask, close, asking, overlaps = Child.ask, Child.close, threading.Lock(), []

    def slow(self: Child, name: str, *job: object) -> object:
        if not asking.acquire(blocking=False):
            overlaps.append(name)
            return None
        try:
            time.sleep(0.01)
            return ask(self, name, *job)
        finally:
            asking.release()

    def closing(self: Child) -> None:
        if asking.locked():
            overlaps.append("close")
        close(self)

    with blobkv.open(tmp_path / "db") as store:
        pairs = two_layers(store)
        monkeypatch.setattr(Child, "ask", slow)
        monkeypatch.setattr(Child, "close", closing)
        merging = threading.Thread(target=store.compact)
        merging.start()
        while merging.is_alive():
            pairs |= fill(store, 3, 200)
            store._freeze().maintenance.flush()
        merging.join()

        assert overlaps == []
        assert shown(store) == pairs
        assert store.verify().ok


def test_a_child_that_cannot_start_is_no_reason_to_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no interpreter"))
    with blobkv.open(tmp_path / "db") as store:
        pairs = two_layers(store)
        assert "could not be started" in str(store.stats().child_reason)
    check(tmp_path / "db", pairs)


def test_closing_ends_the_child_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = blobkv.open(tmp_path / "db", memtable_size=30_000)
    pairs: dict[bytes, bytes] = {}
    for seed in range(8):
        pairs |= fill(store, seed, 400)
    store._freeze().maintenance.flush()
    process = store._source.maintenance.builder._child
    store.close()

    assert process is not None
    assert process._process.returncode is not None
    check(tmp_path / "db", pairs)


def test_an_idle_child_ends_and_the_next_job_has_another(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        impatient = child._PROGRAM.replace(
            "from blobkv._engine.worker import main; main()",
            "from blobkv._engine import worker; worker._IDLE_SECONDS = 0.01; worker.main()",
        )
        assert impatient != child._PROGRAM
        patch.setattr(child, "_PROGRAM", impatient)
        first = Child()
    assert first._process.wait(timeout=20) == 0
    with blobkv.open(tmp_path / "db") as store:
        store._source.maintenance.builder._child = first
        pairs = two_layers(store)
        assert store.stats().child_tables == 2
        assert store.stats().child_reason is None
        assert store._source.maintenance.builder._child is not first
    check(tmp_path / "db", pairs)


def test_a_child_that_says_there_was_nothing_to_write_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with blobkv.open(tmp_path / "db") as store:
        pairs = fill(store, 1)
        with monkeypatch.context() as patch:
            patch.setattr(Child, "ask", lambda *_: [None, 0, None])
            with pytest.raises(CorruptionError, match=f"no table .* {len(pairs)} entries"):
                store._freeze().maintenance.flush()
        assert shown(store) == pairs
        store.flush()
    check(tmp_path / "db", pairs)


def test_a_child_whose_input_ends_writes_nothing_more() -> None:
    process = Child()
    source = process._process.stdin
    assert source is not None
    source.close()

    assert process._process.wait(timeout=20) == 0
    with pytest.raises(ChildError, match="broke off"):
        process.ask("piece", 1)
    process.close()


def test_a_child_ends_within_a_job_when_its_input_has_ended(tmp_path: Path) -> None:
    with blobkv.open(tmp_path / "db") as store:
        pairs = fill(store, 1)
        writer = store._freeze()
        job = writer.maintenance._flush_job(writer.tree.oldest_frozen, bottom=True)
        source, target = io.StringIO(json.dumps(["flush", job, 900]) + "\n"), io.StringIO()
        worker = Worker(source, target)
        # It hears of the job, and of the end, before it begins.
        worker._listen()
        worker.run()

        assert target.getvalue() == "", "nobody would hear an answer"
        assert "000900.tbl" not in files(tmp_path / "db")
        writer.maintenance.flush()
    check(tmp_path / "db", pairs)


PARENT = """
import sys, blobkv, random
from blobkv._engine import builder, tiers
builder.CHILD_SIZE_MIN = 0
tiers._PIECE_SIZE_MIN = tiers._LOAD_PIECE_SIZE_MIN = tiers._PIECE_SIZE_MAX = 40_000
with blobkv.open(sys.argv[1], memtable_size=60_000) as store:
    number = 0
    while True:
        with store.update() as txn:
            for i in range(50):
                txn.put(b"%06d" % ((number * 50 + i) * 7919 % 9000), b"%d" % number * 20)
            txn.put(b"number", b"%d" % number)
        print(number, flush=True)
        number += 1
"""


@pytest.mark.slow
def test_a_killed_parent_takes_its_child_along_and_the_next_open_is_not_disturbed(
    tmp_path: Path,
) -> None:
    rng = random.Random(5)
    for _ in range(6):
        process = subprocess.Popen(
            [sys.executable, "-c", PARENT, str(tmp_path / "db")],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert process.stdout is not None
        last = -1
        for _ in range(rng.randrange(5, 120)):
            last = int(process.stdout.readline())
        process.send_signal(signal.SIGKILL)
        process.wait()
        process.stdout.close()
        with blobkv.open(tmp_path / "db") as store:
            assert int(store.view()[b"number"]) >= last
            # While an orphan may still be at work.
            two_layers(store)
            before = shown(store)
            store.compact()
            assert store.verify().ok
        with blobkv.open(tmp_path / "db") as store:
            assert shown(store) == before
            assert store.verify().ok


def test_numbers_given_to_a_child_are_used_as_far_as_the_manifest_knows(tmp_path: Path) -> None:
    with blobkv.open(tmp_path / "db") as store:
        tree = store._source.tree
        for _ in range(20):
            assert tree.reserved_number() < tree.manifest.next_number
            assert tree.new_number() not in tree._reserved


def test_a_forked_process_lets_go_of_the_child(tmp_path: Path) -> None:
    process = Child()
    source = process._process.stdin
    pid = os.fork()
    if pid == 0:
        os._exit(0 if source is not None and source.closed else 1)
    assert os.waitpid(pid, 0)[1] == 0
    process.close()


def test_why_there_is_no_child_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    real = blobkv.opening.OSFileSystem()
    assert child.child_is_possible(real) is None
    monkeypatch.setattr(child, "processor_count", lambda: 1)
    assert child.child_is_possible(real) == "one processor only"
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    assert child.child_is_possible(real) == "no interpreter to start"
