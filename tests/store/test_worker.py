"""The child's side of writing tables: what it answers to each job, also to those it cannot do.

Method: a `Worker` in this process, given lines and asked for what it says. Its jobs are those
of a store that was just killed, and what it writes is what the store itself would have written.
That it is a process of its own, and dies, is for `test_child.py`.
"""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from support.pairs import flush_only, pairs, put

import blobkv
from blobkv import Store
from blobkv._engine import builder, tiers, worker
from blobkv._engine.child import Child, ChildError
from blobkv._engine.fs import OSFileSystem
from blobkv._engine.jobs import FlushJob, MergeJob
from blobkv._engine.table import Table, TableFile
from blobkv._engine.worker import Worker
from blobkv.errors import CorruptionError


def answers(*lines: object) -> list[object]:
    said = io.StringIO()
    Worker(io.StringIO("".join(json.dumps(line) + "\n" for line in lines)), said).run()
    return [json.loads(line) for line in said.getvalue().splitlines()]


class Lines:
    """Lines that come one at a time: the next when the one before was answered."""

    def __init__(self, *lines: object) -> None:
        self.said: list[object] = []
        self._left = [json.dumps(line) + "\n" for line in lines]
        self._worker = Worker(self, self)  # type: ignore[arg-type]  # All that it needs.

    def run(self) -> list[object]:
        for line in self._left:
            self._worker._lines.put(line)
        self._worker._lines.put("")
        self._worker._listen = bool
        self._worker.run()
        return self.said

    def write(self, text: str) -> None:
        self.said.append(json.loads(text))

    def flush(self) -> None:
        pass


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = blobkv.open(tmp_path / "db")
    for layer in range(2):
        with store.update() as txn:
            txn.update({b"%03d" % i: b"%d" % layer * 900 for i in range(layer, 40)})
        flush_only(store)
    put(store, b"log")
    with store.update() as txn:
        txn.delete(b"001")
        txn.clear(b"00")
    yield store
    store.close()


def flush_job(store: Store, **changes: object) -> FlushJob:
    manifest = store._source.manifest
    job = FlushJob(
        directory=str(store.path),
        store=manifest.store_id.hex(),
        logs=[(log.number, log.log_id) for log in manifest.logs],
        after=manifest.sequence,
        upto=store.sequence,
        bottom=False,
    )
    return job._replace(**changes)


def merge_job(store: Store) -> MergeJob:
    tables = store._source.manifest.tables
    return MergeJob(
        directory=str(store.path),
        runs=[[file] for file in tables],
        start="",
        cuts=[],
        piece_size=10_000,
        bottom=True,
    )


def keys(store: Store, file: object) -> list[bytes]:
    assert isinstance(file, list)
    table = Table.open(OSFileSystem(), str(store.path), TableFile(*file))
    return [key[1:] for found, _ in table.chunks(b"", None) for key in found]


def test_it_flushes_what_the_logs_hold(store: Store) -> None:
    ((file, entries, end),) = Lines(["flush", flush_job(store), 77]).run()  # type: ignore[misc]

    assert keys(store, file) == sorted([b"log", *(b"%03d" % i for i in range(10))])
    assert entries == 11
    assert end is None


def test_it_merges_in_pieces(store: Store) -> None:
    said = Lines(["merge", merge_job(store)], *(["piece", n] for n in range(80, 90))).run()

    assert said[0] is True
    pieces = [piece for piece in said[1:] if isinstance(piece, list)]
    assert len(pieces) > 1
    assert [end is None for _, _, end in pieces] == [False] * (len(pieces) - 1) + [True]
    found = [key for file, _, _ in pieces for key in keys(store, file)]
    assert found == [b"%03d" % i for i in range(40)]
    assert sum(entries for _, entries, _ in pieces) == 40
    # And then there is nothing left to be asked for.
    assert said[len(pieces) + 1 :] == [{"error": "no merge is under way"}] * (10 - len(pieces))


@pytest.mark.parametrize("upto", [2, 99])
def test_logs_that_hold_other_commits_than_they_should_are_not_flushed(
    store: Store, upto: int
) -> None:
    (said,) = Lines(["flush", flush_job(store, upto=upto), 77]).run()

    assert isinstance(said, dict)
    assert said["error"].startswith("CorruptionError: ")
    assert f"not {upto}" in said["error"]
    assert not (store.path / "000077.tbl").exists()


def test_a_number_that_is_taken_is_an_answer_and_ends_the_merge(store: Store) -> None:
    taken = store._source.manifest.tables[0].number
    job = merge_job(store)

    merged, said, after = Lines(["merge", job], ["piece", taken], ["piece", 80]).run()

    assert merged is True
    assert "FileExistsError" in str(said)
    assert after == {"error": "no merge is under way"}


def test_it_stops_as_its_input_ends(store: Store) -> None:
    said = answers(["merge", merge_job(store)], ["piece", 80], ["piece", 81])

    assert len(said) < 4
    assert not [line for line in said if isinstance(line, dict)]


def test_it_ends_when_nobody_has_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker, "_IDLE_SECONDS", 0.01)
    lines = Lines()
    lines._worker._listen = bool
    lines._worker.run()

    assert lines.said == [worker.IDLE]


# What the store makes of such answers.


def test_a_child_that_cannot_do_a_job_is_done_without(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "CHILD_SIZE_MIN", 0)
    monkeypatch.setattr(
        Child, "ask", lambda *_: (_ for _ in ()).throw(ChildError("MemoryError: "))
    )
    store.compact()

    if store._source.maintenance.builder._impossible is None:
        assert store.stats().child_reason == "MemoryError: "
    assert store.stats().child_tables == 0
    assert store.stats().table_count == 1


def test_a_job_that_comes_after_the_child_was_stopped_starts_no_other(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "CHILD_SIZE_MIN", 0)
    made = store._source.maintenance.builder
    made._impossible = None
    made.stop()
    store.compact()

    assert made._child is None
    assert store.stats().child_reason == "the store was closed meanwhile"
    assert store.stats().table_count == 1


def test_an_interrupt_as_the_child_is_asked_leaves_neither_table_nor_child(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    maintenance = store._source.maintenance
    maintenance.builder._impossible = None
    monkeypatch.setattr(builder, "CHILD_SIZE_MIN", 0)

    def interrupted(_: Child, *job: object) -> None:
        if job[0] == "flush":
            (store.path / f"{job[-1]:06d}.tbl").write_bytes(b"half")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Child, "ask", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.flush()
        assert maintenance.builder._child is None
    manifest = store._source.manifest
    assert {path.name for path in store.path.glob("*.tbl")} == {
        table.name for table in manifest.tables
    }
    store.flush()
    with store.view() as txn:
        assert list(txn) == [b"%03d" % i for i in range(10, 40)] + [b"log"]


def test_a_merge_by_the_child_that_is_given_up_leaves_no_child_at_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its next answer would be a piece that nobody wants any more."""
    made = store._source.maintenance.builder
    if made._impossible is not None:
        pytest.skip(made._impossible)
    monkeypatch.setattr(builder, "CHILD_SIZE_MIN", 0)
    monkeypatch.setattr(tiers, "whole_piece_size", lambda _: 8000)
    before = pairs(store)

    def interrupted(*_: object, **__: object) -> None:
        assert made._child is not None
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store._source.maintenance, "_keep_up", interrupted)
        with pytest.raises(KeyboardInterrupt):
            store.compact()
    assert made._child is None
    assert pairs(store) == before
    store.compact()
    assert pairs(store) == before
    assert store.verify().ok


def test_a_child_meets_rot_and_the_store_reports_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "CHILD_SIZE_MIN", 0)
    path = store.path / store._source.manifest.tables[0].name
    with path.open("r+b") as file:
        file.seek(9000)
        file.write(b"rot")

    with pytest.raises(CorruptionError, match=path.name):
        store.compact()
