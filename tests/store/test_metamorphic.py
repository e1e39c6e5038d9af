"""The same program gives the same answers, whatever happens to the store between its steps.

Method: a program of changes and questions (`support/programs.py`) is run once in peace. Then it
is run under each of the circumstances below: with memtables, pieces, and tombstones of other
sizes; with flushes, merges, backups, and verifications between its steps, and while its answers
are being read; closed, killed, and opened again; with a backup put in the store's place; on
real files, mapped or not, with child processes; with readers beside it, in this process and in
another. Every answer must be what it was. No model says what is right: other tests have one.

BLOBKV_METAMORPHIC_COUNT says how many programs; BLOBKV_METAMORPHIC_SEED which is the first.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from support.piece_sizes import set_piece_size
from support.programs import Answers, Run, Step, ask, make_program
from support.room_ahead import make_at_once

import blobkv
from blobkv import Store
from blobkv._engine import builder, merge, overlay, tiers
from blobkv._engine.fs import OSFileSystem
from blobkv._engine.ranges import Ranges
from blobkv._engine.table import Table
from blobkv.testing import SimulatedDisk

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("BLOBKV_METAMORPHIC_COUNT", "4"))
SEED = int(os.environ.get("BLOBKV_METAMORPHIC_SEED", "1"))
STEPS = 60
TESTS = str(Path(__file__).parents[1])

WORK = ("flush", "compact", "freeze", "sync", "verify", "backup")
UPHEAVAL = ("reopen", "swap")


@dataclass(frozen=True)
class Circumstances:
    """What a program is run under.

    Attributes:
        memtable_size: As of `blobkv.open`.
        between: What may be done between two steps.
        amid: What may be done while an answer is read.
        clear_by_range: Whether every clearing is a range tombstone.
        small_pieces: Whether merges are cut into many pieces, and made for little.
        room: Whether logs grow ahead of every commit.
        real: Whether on real files; mapped, or read.
        child: Whether a child writes every table.
        beside: Who reads beside: "reader" in this process, "process" in another.
    """

    memtable_size: int = 1 << 30
    between: tuple[str, ...] = ()
    amid: tuple[str, ...] = ()
    clear_by_range: bool = False
    small_pieces: bool = False
    room: bool = False
    real: str = ""
    child: bool = False
    beside: str = ""


ALL = {
    "small memtables": Circumstances(memtable_size=2000),
    "work between": Circumstances(between=WORK, small_pieces=True),
    "work amid": Circumstances(memtable_size=20_000, amid=WORK[:4], small_pieces=True),
    "range tombstones": Circumstances(
        memtable_size=9000, between=("flush", "compact"), clear_by_range=True
    ),
    "opened again": Circumstances(9000, between=(*UPHEAVAL, "kill"), room=True),
    "all at once": Circumstances(
        3000, (*WORK, *UPHEAVAL, "kill"), WORK[:4], clear_by_range=True, small_pieces=True
    ),
    "a reader beside": Circumstances(6000, ("flush", *UPHEAVAL), beside="reader", room=True),
    "mapped files": Circumstances(9000, (*WORK[:4], *UPHEAVAL), WORK[:2], real="mapped"),
    "read files": Circumstances(9000, (*WORK[:4], *UPHEAVAL), real="read"),
    "children": Circumstances(
        20_000, ("flush", "compact"), real="mapped", child=True, small_pieces=True
    ),
    "a process beside": Circumstances(
        9000, ("flush", "compact", "reopen"), real="mapped", beside="process"
    ),
}


class World:
    """A store, and what is done to it beside its program."""

    def __init__(self, what: Circumstances, rng: Random, folder: Path) -> None:
        self.what = what
        self.rng = rng
        self.disk = SimulatedDisk()
        self.fs = OSFileSystem(use_mmap=what.real == "mapped") if what.real else self.disk
        self.folder = folder if what.real else Path("/stores")
        self.number = 0
        self.copies = 0
        self.run = Run(self.open(), self.pause)

    @property
    def path(self) -> Path:
        return self.folder / f"db{self.number}"

    def open(self, *, read_only: bool = False) -> Store:
        return blobkv.open(
            self.path,
            fs=self.fs if self.what.real else self.disk,
            memtable_size=self.what.memtable_size,
            read_only=read_only,
        )

    def play(self, program: list[Step]) -> Answers:
        """Run the program; return all answers."""
        with self.beside() as other:
            for step in program:
                self.run.step(step)
                kind, question = step
                if kind == "ask" and self.what.beside:
                    assert other(question) == self.run.answers[-1]
                if self.what.between and self.rng.random() < 0.3:
                    self.disturb(self.rng.choice(self.what.between))
            assert self.run.store.verify().ok
        self.run.store.close()
        return self.run.answers

    def pause(self) -> None:
        if self.what.amid and self.rng.random() < 0.2:
            self.disturb(self.rng.choice(self.what.amid))

    def disturb(self, how: str) -> None:
        run = self.run
        if how == "freeze":
            run.store._freeze()
        elif how == "verify":
            assert run.store.verify().ok
        elif how == "backup":
            self.back_up(self.folder / f"copy{self.copies}")
        elif how in {"flush", "compact", "sync"}:
            getattr(run.store, how)()
        elif not run.views:
            # What is read from a store that was closed ends.
            self.open_again(how)

    def open_again(self, how: str) -> None:
        if how == "kill":
            after = self.disk.crash(self.rng, keep="all")
            self.run.store.close()
            self.disk = after
        else:
            if how == "swap":
                self.back_up(self.folder / f"db{self.number + 1}")
            self.run.store.close()
            self.number += how == "swap"
        self.run.store = self.open()

    def back_up(self, path: Path) -> None:
        self.run.store.backup(path)
        self.copies += 1

    @contextmanager
    def beside(self) -> Iterator[Callable[[object], object]]:
        """Who answers the same questions, if anybody does."""
        if self.what.beside == "process":
            with reading_process(self.path) as answer:
                yield answer
        else:
            yield self.answer_of_reader

    def answer_of_reader(self, question: object) -> object:
        with self.open(read_only=True) as store, store.view() as txn:
            return ask(txn, question)  # type: ignore[arg-type]


@contextmanager
def reading_process(path: Path) -> Iterator[Callable[[object], object]]:
    """Have another process answer questions from the store."""
    program = (
        f"import sys; sys.path[:0] = {[TESTS]!r}; "
        f"from support.programs import serve; serve({str(path)!r})"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        source, target = process.stdin, process.stdout
        assert source is not None
        assert target is not None

        def answer(question: object) -> object:
            print(repr(question), file=source, flush=True)
            return ast.literal_eval(target.readline())

        yield answer
        source.close()
        assert process.wait(timeout=60) == 0


def play(name: str, seed: int, program: list[Step], folder: Path) -> Answers:
    what = ALL[name] if name else Circumstances()
    with pytest.MonkeyPatch.context() as patch:
        if what.clear_by_range:
            patch.setattr(overlay, "_POINT_DELETES_MAX", 0)
        if what.small_pieces:
            set_piece_size(patch, 6000)
            patch.setattr(tiers, "_GARBAGE_MIN", 1)
            patch.setattr(merge, "_GATHERED_MAX", 16)
        if what.room:
            make_at_once(patch)
        if what.child:
            patch.setattr(builder, "CHILD_SIZE_MIN", 0)
        return World(what, Random(f"{name} {seed}"), folder).play(program)


@pytest.mark.parametrize("name", ALL)
def test_the_answers_are_the_same_with(name: str, tmp_path: Path) -> None:
    # The dear ones take fewer programs.
    count = COUNT if not ALL[name].real else max(COUNT // 3, 1)
    for seed in range(SEED, SEED + count):
        program = make_program(Random(seed), STEPS)
        expected = play("", seed, program, tmp_path)

        answers = play(name, seed, program, tmp_path / str(seed))
        assert answers == expected, f"seed {seed}"
        assert len(answers) > STEPS // 2


def test_an_answer_that_differs_is_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = make_program(Random(SEED), STEPS)
    expected = play("", SEED, program, tmp_path)
    # As if tables forgot what was cleared.
    monkeypatch.setattr(Table, "_read_ranges", lambda *_: Ranges())

    assert play("range tombstones", SEED, program, tmp_path) != expected
