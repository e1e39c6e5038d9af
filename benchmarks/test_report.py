"""The whole command runs, tiny: every engine that is installed, every workload, the page.

What the engines print must agree: the rendering refuses fingerprints that differ.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import report
from engines import ADAPTERS, BBOLT, missing
from inputs import EDITION
from plan import BLOBMAP, Plan
from results import Results
from runner import Runner

if TYPE_CHECKING:
    from pathlib import Path

TINY = ["--keys", "200", "--keys-max", "200", "--rounds", "1"]
TINY += ["--seconds", "0.1", "--seconds-max", "0.1"]

PLAN = Plan(200, 200, 0.1, 0.1, 1)


@pytest.fixture(scope="module")
def measured(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root and a folder of documents after one run of the command."""
    pytest.importorskip("matplotlib")
    directory = tmp_path_factory.mktemp("benchmarks")
    report.main([*TINY, "--root", str(directory), "--docs", str(directory / "docs")])
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("engine", [*ADAPTERS, BBOLT, BLOBMAP])
def test_every_measurement_has_a_result_of(engine: str, measured: Path) -> None:
    if reason := missing(engine):
        pytest.skip(reason)
    results = Results(measured / EDITION)
    asked = [m for m in PLAN.measurements() if engine in m.engines]

    assert asked
    for measurement in asked:
        (outcome,) = results.outcomes(measurement)[engine]
        assert all(time > 0 for time in outcome.times.values()), measurement.name
        assert outcome.memory > 0


@pytest.mark.slow
def test_the_page_is_whole_and_shows_every_plot(measured: Path) -> None:
    text = (measured / "docs/benchmarks.md").read_text("utf-8")

    assert "${" not in text
    assert "nan" not in text
    for name in ("ratios", "churn", "long_churn", "growth"):
        assert f"plots/{name}.svg" in text
        assert (measured / "docs/plots" / f"{name}.svg").stat().st_size > 1000


@pytest.mark.slow
def test_rendering_again_changes_no_byte(measured: Path, tmp_path: Path) -> None:
    report.main(["--render", "--root", str(measured), "--docs", str(tmp_path)])

    for path in [measured / "docs/benchmarks.md", *(measured / "docs/plots").iterdir()]:
        again = tmp_path / path.relative_to(measured / "docs")
        assert again.read_bytes() == path.read_bytes()


@pytest.mark.slow
def test_a_second_run_measures_nothing(measured: Path) -> None:
    said: list[str] = []
    Runner(measured / EDITION, frozenset(["blobkv"]), said.append).run([PLAN.churn])

    assert said == []
