"""Measure blobkv beside other stores and write docs/benchmarks.md. See there what it means.

    python benchmarks/report.py                          everything, an hour or two
    python benchmarks/report.py --only gets scans        two groups
    python benchmarks/report.py --keys 20000 --rounds 1  a quick look
    python benchmarks/report.py --render                 the page again, from what was measured

A round that was measured is not measured again: to start anew, with another blobkv say, remove
the root. Under it each edition of the inputs has a folder of its own.
Use a root on the disk that matters: in memory a sync costs nothing and commits say nothing.
"""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import asdict
from pathlib import Path

import golang
import machine
import page
import plots
from engines import ADAPTERS, BBOLT, missing
from inputs import EDITION
from plan import BLOBMAP, Plan
from results import Results
from runner import Runner

PROJECT = Path(__file__).parents[1]
ENGINES = (*ADAPTERS, BBOLT, BLOBMAP)


def measure(plan: Plan, root: Path, engines: set[str], groups: set[str]) -> None:
    """Carry out the plan, or some groups of it, with the engines that are here."""
    root.mkdir(parents=True, exist_ok=True)
    absent = {name: reason for name in sorted(engines) if (reason := missing(name))}
    for name, reason in absent.items():
        progress(f"without {name}: {reason}")
    present = frozenset(engines - absent.keys())
    if BBOLT in present:
        golang.build(root)
    about = {"plan": asdict(plan), "machine": machine.facts(root)}
    (root / "about.json").write_text(json.dumps(about, indent=1), encoding="utf-8")
    wanted = [m for m in plan.measurements() if not groups or m.group in groups]
    Runner(root, present, progress).run(wanted)


def render(root: Path, docs: Path) -> None:
    """Write the page and its plots from what was measured last under the root."""
    about = json.loads((root / "about.json").read_text("utf-8"))
    plan, results = Plan(**about["plan"]), Results(root)
    drawn = plots.draw(plan, results, docs / "plots")
    text = page.page(plan, results, about["machine"], drawn)
    (docs / "benchmarks.md").write_text(text, encoding="utf-8")


def progress(line: str) -> None:
    """Say what was done."""
    print(line, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> None:
    """Do what the command line says."""
    default = Plan(keys=1_000_000, keys_max=10_000_000, seconds=60, seconds_max=600, rounds=3)
    groups = list(dict.fromkeys(m.group for m in default.measurements()))
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=groups, default=[], metavar="GROUP")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=ENGINES)
    parser.add_argument("--keys", type=int, default=default.keys, help="of the main store")
    parser.add_argument("--keys-max", type=int, default=default.keys_max, help="of growth")
    parser.add_argument("--seconds", type=float, default=default.seconds, help="of churn")
    parser.add_argument(
        "--seconds-max", type=float, help="of the long churn; ten times as many by default"
    )
    parser.add_argument("--rounds", type=int, default=default.rounds)
    parser.add_argument("--root", type=Path, default=PROJECT / ".cache/benchmarks")
    parser.add_argument("--docs", type=Path, default=PROJECT / "docs")
    parser.add_argument("--render", action="store_true", help="measure nothing")
    options = parser.parse_args(arguments)
    # What was measured with other inputs must never stand beside what is measured now.
    root = options.root / EDITION
    if not options.render:
        plan = Plan(
            options.keys,
            options.keys_max,
            options.seconds,
            options.seconds_max or 10 * options.seconds,
            options.rounds,
        )
        measure(plan, root, set(options.engines), set(options.only))
    render(root, options.docs)


if __name__ == "__main__":
    main()
