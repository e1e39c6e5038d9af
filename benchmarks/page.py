"""docs/benchmarks.md: the words of `page.md`, with tables where it names them."""

from __future__ import annotations

from pathlib import Path
from string import Template
from typing import TYPE_CHECKING

import tables
from plan import CHURN_BATCH, KILLED_PAIRS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from plan import Measurement, Plan
    from results import Results

HERE = Path(__file__).parent
PLOTS = {
    "ratios": "What each peer takes, by what blobkv takes, for each kind of work",
    "churn": "Space on disk over time while pairs are overwritten",
    "long_churn": "Space on disk over a long time of the same",
    "growth": "How gets, scans, loads and memory grow with the number of keys",
}


def page(plan: Plan, results: Results, machine: dict[str, str], drawn: Sequence[str]) -> str:
    """Return the whole page."""
    everything = plan.measurements()
    groups: dict[str, list[Measurement]] = {}
    for measurement in everything:
        groups.setdefault(measurement.group, []).append(measurement)
    main = f"{tables.scale_name(groups['load'][0])}"
    scale = tables.scale_name(plan.churn)
    shown = {
        "machine": two_columns("machine", machine),
        "versions": two_columns("engine", results.versions(everything)),
        "rounds": str(plan.rounds),
        "main": main,
        "marks": tables.marks(results, plan),
        "bounds": tables.bounds(results, plan),
        "findings": (HERE / "findings.md").read_text("utf-8").strip(),
        "churn_batch": str(CHURN_BATCH),
        "killed": f"{KILLED_PAIRS:,}",
        "commits": both(results, groups["commits"]),
        "loads": both(results, groups["load"]),
        "space": tables.space(results, loads(everything)),
        "reads": both(results, groups["gets"] + groups["scans"]),
        "mixes": both(results, groups["mix"]),
        "opening": both(results, groups["open"]),
        "churn_what": f"{scale}, {CHURN_BATCH} a commit, for {plan.seconds:g} seconds.",
        "churn": tables.churn(results, plan.churn),
        "long_churn_what": f"blobkv for {plan.seconds_max:g} seconds.",
        "long_churn": tables.churn(results, plan.long_churn),
        "values": values(results, groups["values"]),
        "growth": tables.growth(results, plan.growing()),
        "peers": titled(results, groups["peers"]),
        "blob_map": both(results, groups["blobmap"]),
        **{f"{name}_plot": image(name, drawn) for name in ("churn", "long_churn", "growth")},
        "ratio_plot": image("ratios", drawn),
    }
    return Template((HERE / "page.md").read_text("utf-8")).substitute(shown)


def both(results: Results, measurements: Sequence[Measurement]) -> str:
    """The ratios, then the times they come from."""
    ratios = tables.ratios(results, measurements)
    return f"{ratios}\n\n{tables.times(results, measurements)}"


def titled(results: Results, measurements: Sequence[Measurement]) -> str:
    """The same, below the scale."""
    return f"{tables.scale_name(measurements[0])}:\n\n{both(results, measurements)}"


def values(results: Results, measurements: Sequence[Measurement]) -> str:
    """The same for each size of values."""
    scales = dict.fromkeys(measurement.scale for measurement in measurements)
    parts = ([m for m in measurements if m.scale == scale] for scale in scales)
    return "\n\n".join(titled(results, part) for part in parts)


def loads(measurements: Sequence[Measurement]) -> list[Measurement]:
    """The loads in which all engines took part."""
    return [m for m in measurements if m.workload == "load" and m.group in {"load", "values"}]


def two_columns(head: str, rows: dict[str, str]) -> str:
    """A table of names and what they stand for."""
    return tables.table([[head, ""], *(list(row) for row in rows.items())])


def image(name: str, drawn: Sequence[str]) -> str:
    """A plot, if it was drawn."""
    return f"![{PLOTS[name]}](plots/{name}.svg)" if f"{name}.svg" in drawn else ""
