"""Do the tests bite? Seeds bugs into copies of the project, one at a time, and runs the tests.

    python tests/mutants/run.py [NAME...] [--list] [--jobs N] [--json | --markdown]

Ends with status 1 unless every bug was noticed. Which bugs there are is in `in_*.py`; how one
is tried, in `trial.py`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Final

from catalog import ALL, BY_NAME
from mutant import mutated
from trial import Outcome, TrialError, Trials

if TYPE_CHECKING:
    from collections.abc import Sequence

    from mutant import Mutant

ROOT: Final = Path(__file__).parents[2]
_LIMIT_SECONDS: Final = 1200.0
# A trial that said nothing.
UNKNOWN: Final = "UNKNOWN"


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the bugs that are named, or all."""
    options = _options(arguments)
    bugs = [BY_NAME[name] for name in options.names] or list(ALL)
    if options.list:
        for bug in bugs:
            print(f"{bug.name}: {bug.does}; {bug.costs}")
        return 0
    start = time.monotonic()
    found = _try_all(bugs, options.jobs, options.limit)
    if options.json:
        print(json.dumps([asdict(found[bug.name]) for bug in bugs], indent=1))
    elif options.markdown:
        print(table(bugs, found))
    caught_count = sum(outcome.test is not None for outcome in found.values())
    _say(f"{time.monotonic() - start:.0f} s")
    verdict = f"caught {caught_count} of {len(bugs)}"
    print(verdict, file=sys.stderr if options.json or options.markdown else sys.stdout)
    return 0 if caught_count == len(bugs) else 1


def table(bugs: Sequence[Mutant], found: dict[str, Outcome]) -> str:
    """Return the outcomes as a table for a document."""
    lines = ["| seeded bug | what it does | noticed by |", "| --- | --- | --- |"]
    for bug in bugs:
        outcome = found[bug.name]
        by = outcome.verdict if outcome.test is None else f"`{_short(outcome.test)}`"
        how = "" if outcome.verdict in {"caught", by} else f"{outcome.verdict}: "
        lines.append(f"| {bug.name} | {bug.does} | {how}{by} |")
    return "\n".join(lines)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Seed bugs, and see whether a test notices.")
    parser.add_argument("names", nargs="*", metavar="NAME", help="a seeded bug; else all")
    parser.add_argument("--list", action="store_true", help="say which there are")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, metavar="N")
    parser.add_argument("--limit", type=float, default=_LIMIT_SECONDS, metavar="SECONDS")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print records")
    form.add_argument("--markdown", action="store_true", help="print a table")
    options = parser.parse_args(arguments)
    for name in options.names:
        if name not in BY_NAME:
            parser.error(f"no seeded bug is called {name}; --list says which there are")
    return options


def _try_all(bugs: Sequence[Mutant], jobs: int, limit: float) -> dict[str, Outcome]:
    for bug in bugs:
        # Before anything takes time: all of them fit the code, or this raises.
        mutated(bug, ROOT / "blobkv")
    found: dict[str, Outcome] = {}
    with Trials(ROOT, limit) as trials, ThreadPoolExecutor(jobs) as pool:
        futures = {pool.submit(trials.of, bug): bug for bug in bugs}
        try:
            for future in as_completed(futures):
                name = futures[future].name
                try:
                    outcome = future.result()
                except TrialError as error:
                    outcome = Outcome(name, UNKNOWN, None, 0.0)
                    _say(str(error))
                found[name] = outcome
                by = "" if outcome.test is None else f" by {_short(outcome.test)}"
                seconds = f"{outcome.seconds:.1f} s"
                _say(f"[{len(found)}/{len(bugs)}] {name}: {outcome.verdict}{by}, {seconds}")
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            trials.end()
            raise
    return found


def _short(test: str) -> str:
    return test.removeprefix("tests/store/")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
