"""The plots of docs/benchmarks.md as SVG: the same results give the same bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import matplotlib as mpl
from marks import MARKS, PEERS, reached
from matplotlib import pyplot as plt
from plan import GROWTH
from tables import GROWING, MEBIBYTE

if TYPE_CHECKING:
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as Drawing
    from plan import Measurement, Plan
    from results import Results

# Okabe and Ito's colours, which colour-blind readers tell apart; black is ours.
COLOURS = {
    "blobkv": "#000000",
    "py-lmdb": "#0072b2",
    "bbolt": "#d55e00",
    "SQLite": "#009e73",
    "LevelDB": "#cc79a7",
    "RocksDB": "#e69f00",
    "tuned LevelDB": "#e2b7cd",
    "tuned RocksDB": "#f2cf80",
}
MARKERS = dict(zip(COLOURS, "osD^vP<X", strict=True))
# White behind, so that black reads on a dark page too; text stays text; nothing is random.
STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "blobkv",
    "font.size": 9,
    "axes.grid": True,
    "grid.color": "#dddddd",
    "axes.axisbelow": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
}


def draw(plan: Plan, results: Results, directory: Path) -> list[str]:
    """Draw what was measured, and return the names of the files."""
    directory.mkdir(parents=True, exist_ok=True)
    drawn = []
    with mpl.rc_context(STYLE):
        mpl.use("svg")
        for name, drawing in (
            ("ratios", ratios(plan, results)),
            ("churn", churn(plan.churn, results)),
            ("long_churn", churn(plan.long_churn, results)),
            ("growth", growth(plan, results)),
        ):
            if drawing is not None:
                path = directory / f"{name}.svg"
                metadata = {"Date": None, "Creator": None}
                drawing.savefig(path, bbox_inches="tight", metadata=metadata)
                plt.close(drawing)
                drawn.append(path.name)
    return drawn


def ratios(plan: Plan, results: Results) -> Drawing | None:
    """For each kind of work, how many times longer each peer takes."""
    main = plan.main()
    points = [
        (peer, row, found.value)
        for row, mark in enumerate(MARKS)
        for peer in PEERS
        if (found := reached(results, main, mark, peer))
    ]
    if not points:
        return None
    drawing, axes = plt.subplots(figsize=(7, 3.6))
    for peer in PEERS:
        mine = [(value, row) for name, row, value in points if name == peer]
        x, y = zip(*mine, strict=True) if mine else ((), ())
        axes.plot(x, y, MARKERS[peer], color=COLOURS[peer], label=peer, linestyle="none", ms=7)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_yticks(range(len(MARKS)), [mark.work for mark in MARKS])
    axes.invert_yaxis()
    axes.set_xlabel("peer's time / blobkv's time; right of 1, blobkv is faster")
    axes.legend(ncols=len(PEERS), loc="lower center", bbox_to_anchor=(0.4, 1.0), frameon=False)
    return drawing


def churn(measurement: Measurement, results: Results) -> Drawing | None:
    """Space on disk, as a multiple of the live bytes, while they are overwritten."""
    outcomes = results.outcomes(measurement)
    if not outcomes:
        return None
    drawing, axes = plt.subplots(figsize=(7, 3))
    for engine, (*_, outcome) in outcomes.items():
        seconds, sizes = zip(*outcome.space, strict=True)
        shown = [size / measurement.scale.live_size for size in sizes]
        axes.plot(seconds, shown, color=COLOURS[engine], label=engine, linewidth=1.2)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("seconds of overwriting")
    axes.set_ylabel("bytes on disk / live bytes")
    axes.legend(ncols=3, frameon=False)
    return drawing


def growth(plan: Plan, results: Results) -> Drawing | None:
    """How figures grow with the number of keys."""
    by_keys = plan.growing()
    drawing, grid = plt.subplots(2, 3, figsize=(8, 4.6))
    *panels, spare = grid.flat
    spare.set_axis_off()
    lines = [
        panel_lines(axes, results, by_keys, *where)
        for axes, where in zip(panels, GROWING.values(), strict=True)
    ]
    for axes, label in zip(panels, GROWING, strict=True):
        axes.set_title(label, fontsize=9)
        axes.set_xlabel("keys")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("MiB" if "memory" in label else "us")
        axes.minorticks_off()
    spare.legend(*panels[0].get_legend_handles_labels(), frameon=False, loc="center")
    drawing.tight_layout()
    if not any(lines):
        plt.close(drawing)
        return None
    return drawing


def panel_lines(
    axes: Axes,
    results: Results,
    by_keys: dict[int, dict[str, Measurement]],
    name: str,
    figure: str,
) -> int:
    """Draw a line for each engine, and return how many there are."""
    unit = MEBIBYTE if figure == "memory" else 1000
    drawn = 0
    for engine in GROWTH:
        points = [
            (keys, found.median / unit)
            for keys, measurements in by_keys.items()
            if (found := results.figure(measurements[name], engine, figure))
        ]
        if points:
            x, y = zip(*points, strict=True)
            axes.semilogx(x, y, MARKERS[engine] + "-", color=COLOURS[engine], label=engine)
            drawn += 1
    return drawn
