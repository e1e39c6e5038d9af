"""Figures count by their median, and are refused where engines did different work."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import tables
from marks import MARKS, PEERS
from plan import Measurement, Plan, Scale
from results import Figure, Ratio, Results, ratio
from runner import result_path
from task import Outcome, Task

if TYPE_CHECKING:
    from pathlib import Path

MEASUREMENT = Measurement("gets", "gets", "gets", Scale(10), engines=("blobkv", "bbolt"))


def put(root: Path, engine: str, number: int, outcome: Outcome) -> None:
    path = result_path(root, MEASUREMENT, engine, number)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(outcome.encode(), encoding="utf-8")


def test_a_figure_is_its_median_and_keeps_the_best() -> None:
    figure = Figure((3.0, 1.0, 2.0))

    assert (figure.median, figure.best, figure.spread) == (2.0, 1.0, 1.0)


def test_a_ratio_is_above_one_where_the_peer_is_slower() -> None:
    assert ratio(Figure((6.0, 6.0, 9.0)), Figure((3.0,))) == Ratio(2.0, 0.5)
    assert ratio(None, Figure((3.0,))) is None


def test_engines_that_did_different_work_are_refused(tmp_path: Path) -> None:
    put(tmp_path, "blobkv", 0, Outcome({"get": 1.0}, fingerprint=1))
    put(tmp_path, "bbolt", 0, Outcome({"get": 2.0}, fingerprint=2))

    with pytest.raises(ValueError, match="different work"):
        Results(tmp_path).outcomes(MEASUREMENT)


def test_tables_show_every_round_in_one_cell(tmp_path: Path) -> None:
    for number, time in enumerate((1000.0, 2000.0, 3000.0)):
        put(tmp_path, "blobkv", number, Outcome({"get": time}, fingerprint=1))
    put(tmp_path, "bbolt", 0, Outcome({"get": 4000.0}, fingerprint=1))
    results = Results(tmp_path)

    assert "| get | 2 us (1 us) ±100% | 4 us |" in tables.times(results, [MEASUREMENT])
    assert "| get | 2.00 ±100% |" in tables.ratios(results, [MEASUREMENT])


def test_a_task_and_an_outcome_survive_their_spelling() -> None:
    task = Task("gets", "bbolt", "somewhere", {"hits": "file"}, keys=7, seconds=0.5)
    outcome = Outcome({"get": 1.5}, 7, 8, "1.0", {"commits": 3.0}, 9, [(0.5, 10)])

    assert Task.decode(task.encode()) == task
    assert Outcome.decode(outcome.encode()).times == outcome.times


def test_marks_name_measurements_and_all_peers() -> None:
    main = Plan(1000, 1000, 1.0, 1.0, 1).main()

    for mark in MARKS:
        assert set(mark.measured) <= main.keys()
        assert len(mark.wanted) == len(PEERS)


def test_every_result_has_a_file_of_its_own(tmp_path: Path) -> None:
    plan = Plan(1_000_000, 10_000_000, 1.0, 1.0, 1).measurements()
    paths = [result_path(tmp_path, m, engine, 0) for m in plan for engine in m.engines]

    assert len(set(paths)) == len(paths)
