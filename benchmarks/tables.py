"""Figures as cells and cells as Markdown tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from marks import BOUNDS, MARKS, PEERS, reached
from plan import GROWTH
from results import ratio

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from plan import Measurement, Plan
    from results import Figure, Ratio, Results

NOTHING = "-"
MEBIBYTE = 1 << 20
UNITS = ((1e9, "s"), (1e6, "ms"), (1e3, "us"), (1.0, "ns"))
# What is looked at as stores grow: the measurement and its figure.
GROWING = {
    "get": ("gets", "get"),
    "get of a missing key": ("gets", "get of a missing key"),
    "scan, a pair": ("scans", "scan"),
    "load, a pair, settled": ("load", "settled"),
    "peak memory of the load": ("load", "memory"),
}
# The names of these say all about their figures already.
PLAIN = ("gets", "scans", "blob map", "churn", "long churn")


def times(results: Results, measurements: Sequence[Measurement]) -> str:
    """The median, the best and the spread of each figure, for each engine."""
    engines = engines_of(measurements)
    rows = [["", *engines]]
    for measurement, name, label in figures(results, measurements):
        found = (results.figure(measurement, engine, name) for engine in engines)
        rows.append([label, *map(time_cell, found)])
    return table(rows)


def ratios(results: Results, measurements: Sequence[Measurement]) -> str:
    """How many times longer each peer took than we did."""
    ours, *peers = engines_of(measurements)
    rows = [["", *peers]]
    for measurement, name, label in figures(results, measurements):
        base = results.figure(measurement, ours, name)
        found = (ratio(results.figure(measurement, peer, name), base) for peer in peers)
        rows.append([label, *map(ratio_cell, found)])
    return table(rows)


def marks(results: Results, plan: Plan) -> str:
    """Each mark, what was reached, and whether that is enough."""
    main = plan.main()
    rows = [["work", *PEERS]]
    for mark in MARKS:
        cells = []
        for peer, wanted in zip(PEERS, mark.wanted, strict=True):
            found = reached(results, main, mark, peer)
            verdict = "met" if found and found.value >= wanted else "**short**"
            cells.append(f"{ratio_cell(found)} ({wanted:g}, {verdict})" if found else NOTHING)
        rows.append([mark.work, *cells])
    return table(rows)


def bounds(results: Results, plan: Plan) -> str:
    """Each bound of blobkv's own, and what was reached."""
    main = plan.main()
    rows = [["", "at the most", "reached", ""]]
    for bound in BOUNDS:
        figure = results.figure(main[bound.measured], "blobkv", bound.figure)
        most = f"{bound.most:g} {bound.unit_name}"
        if figure is None:
            rows.append([bound.work, most, NOTHING, ""])
            continue
        verdict = "met" if figure.median <= bound.most * bound.unit else "**short**"
        shown = f"{figure.median / bound.unit:.1f} {bound.unit_name}"
        if len(figure.rounds) > 1:
            shown += spread_text(figure.spread)
        rows.append([bound.work, most, shown, verdict])
    return table(rows)


def space(results: Results, measurements: Sequence[Measurement]) -> str:
    """Peak memory and the size on disk of each load, by engine."""
    engines = engines_of(measurements)
    rows = [["", *engines]]
    for measurement in measurements:
        where = f"{measurement.name}, {scale_name(measurement)}"
        for name, unit, shown in (
            ("memory", MEBIBYTE, "peak memory, MiB"),
            ("disk", measurement.scale.live_size, "on disk, by live bytes"),
        ):
            found = [results.figure(measurement, engine, name) for engine in engines]
            cells = [f"{figure.median / unit:.2f}" if figure else NOTHING for figure in found]
            rows.append([f"{where}: {shown}", *cells])
    return table(rows)


def churn(results: Results, measurement: Measurement) -> str:
    """Latencies, throughput and space of each engine under overwrites."""
    names = results.names(measurement)
    head = ["", *names, "pairs a second", "space at the end", "most space"]
    rows = [head]
    for engine, outcomes in results.outcomes(measurement).items():
        outcome, live = outcomes[-1], measurement.scale.live_size
        sizes = [size / live for _, size in outcome.space]
        rows.append(
            [
                engine,
                *(time_text(outcome.times[name]) for name in names),
                f"{outcome.others['pairs a second']:,.0f}",
                f"{sizes[-1]:.2f}" if sizes else NOTHING,
                f"{max(sizes):.2f}" if sizes else NOTHING,
            ]
        )
    return table(rows)


def growth(results: Results, by_keys: dict[int, dict[str, Measurement]]) -> str:
    """How figures grow with the number of keys, for each engine that was asked."""
    rows = [["", "engine", *(f"{keys:,}" for keys in by_keys)]]
    for label, (name, figure) in GROWING.items():
        for engine in GROWTH:
            cells = []
            for measurements in by_keys.values():
                found = results.figure(measurements[name], engine, figure)
                memory = figure == "memory"
                cells.append(memory_cell(found) if memory else time_cell(found))
            rows.append([label, engine, *cells])
    return table(rows)


def figures(
    results: Results, measurements: Iterable[Measurement]
) -> Iterable[tuple[Measurement, str, str]]:
    """Every time that was measured, with what to call it."""
    for measurement in measurements:
        names = results.names(measurement)
        for name in names:
            full = measurement.name if len(names) == 1 else f"{measurement.name}: {name}"
            yield measurement, name, name if measurement.name in PLAIN else full


def engines_of(measurements: Iterable[Measurement]) -> list[str]:
    """The engines that any of them names, ours first."""
    return list(dict.fromkeys(engine for m in measurements for engine in m.engines))


def scale_name(measurement: Measurement) -> str:
    """How much the store holds, for readers."""
    scale = measurement.scale
    size = scale.value_size
    return f"{scale.keys:,} keys of {f'{size >> 10} KiB' if size >= 1 << 10 else f'{size} B'}"


def time_text(nanoseconds: float) -> str:
    """A time with three digits, in the unit that suits it."""
    unit, name = next((u for u in UNITS if nanoseconds >= u[0]), UNITS[-1])
    return f"{nanoseconds / unit:.3g} {name}"


def time_cell(figure: Figure | None) -> str:
    """Median, best and spread."""
    if figure is None:
        return NOTHING
    if len(figure.rounds) == 1:
        return time_text(figure.median)
    return f"{time_text(figure.median)} ({time_text(figure.best)}){spread_text(figure.spread)}"


def memory_cell(figure: Figure | None) -> str:
    """Mebibytes."""
    return f"{figure.median / MEBIBYTE:.0f} MiB" if figure else NOTHING


def ratio_cell(found: Ratio | None) -> str:
    """A ratio and how far its figures spread."""
    if found is None:
        return NOTHING
    return f"{found.value:.2f}{spread_text(found.spread)}"


def spread_text(spread: float | None) -> str:
    """A spread, if there was more than one round."""
    return "" if spread is None else f" ±{spread:.0%}"


def table(rows: Sequence[Sequence[str]]) -> str:
    """Rows of cells as Markdown, the first row as its head."""
    head, *body = rows
    lines = [head, ["---", *("---:" for _ in head[1:])], *body]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
