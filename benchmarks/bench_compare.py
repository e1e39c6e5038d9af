"""The comparison runs, and its engines do the same work: a tiny run, so that it cannot rot."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from compare import TASKS, compare, measure
from engines import ENGINES

if TYPE_CHECKING:
    from pathlib import Path


def test_all_engines_do_the_same_work(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    rounds = {name: measure(name, tmp_path, keys=30) for name in ENGINES}

    assert len({result.fingerprint for result in rounds.values()}) == 1
    assert all(set(result.times) == set(TASKS) for result in rounds.values())


@pytest.mark.slow
def test_the_table_names_every_task_and_engine(tmp_path: Path) -> None:
    pytest.importorskip("lmdb")
    shown = compare(tmp_path, keys=10, rounds=1)

    assert all(name in shown for name in (*TASKS, *ENGINES))
