"""Feed bytes that nobody wrote to a part of blobkv, until the time is over or it goes wrong.

    python tests/fuzz/fuzz.py TARGET [--seconds N] [--seed N] [--blind]

The targets are those of `tests/support/fuzz_targets.py`. Inputs are found by coverage with
atheris (`pip install -e '.[fuzz]'`), which keeps those that reach something new, and the one
that went wrong, under .cache/fuzz/TARGET and goes on with them the next time. Where it is not
installed, or with --blind, they are drawn at random. An input given as --input FILE is run
alone.
"""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
import time
import traceback
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).parents[1]))

if TYPE_CHECKING:
    from support.fuzz_targets import Target

INPUT_SIZE_MAX = 4096
MEMORY_MIB_MAX = 1024
INPUT_SECONDS_MAX = 20


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Fuzz a part of blobkv.")
    parser.add_argument("target")
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--blind", action="store_true", help="do without atheris")
    parser.add_argument("--input", type=Path, help="run this one alone")
    return parser.parse_args(arguments)


def load(name: str) -> Target:
    from support.fuzz_targets import TARGETS  # noqa: PLC0415  # Once blobkv is instrumented.

    if name not in TARGETS:
        sys.exit(f"fuzz: no target {name!r}; there are {', '.join(TARGETS)}")
    return TARGETS[name]


def run_blind(target: Target, seconds: int, seed: int) -> int:
    """Run random inputs; return 1 if one went wrong, which is then printed."""
    end = time.monotonic() + seconds
    for count, data in enumerate(target.inputs(Random(seed)), 1):
        try:
            target.run(data)
        except Exception:  # noqa: BLE001  # Whatever it is, it is what was looked for.
            traceback.print_exc()
            print(f"input {count} of seed {seed}: {data.hex()}", file=sys.stderr)
            return 1
        if time.monotonic() >= end:
            break
    print(f"{count} inputs, none went wrong")
    return 0


def import_instrumented() -> None:
    """Import all of the engine so that what it reaches is counted."""
    import atheris  # noqa: PLC0415  # Optional.

    with atheris.instrument_imports(include=["blobkv"]):
        import blobkv._engine  # noqa: PLC0415

        for module in pkgutil.iter_modules(blobkv._engine.__path__, "blobkv._engine."):
            importlib.import_module(module.name)


def run_guided(name: str, seconds: int, seed: int) -> None:
    """Have atheris choose inputs. Does not return."""
    import atheris  # noqa: PLC0415

    import_instrumented()
    target = load(name)
    folder = Path(".cache/fuzz", name)
    (folder / "corpus").mkdir(parents=True, exist_ok=True)
    for number, data in enumerate(target.seeds()):
        (folder / "corpus" / f"seed-{number}").write_bytes(data)
    options = [
        f"-max_total_time={seconds}",
        f"-seed={seed}",
        f"-max_len={INPUT_SIZE_MAX}",
        f"-rss_limit_mb={MEMORY_MIB_MAX}",
        f"-timeout={INPUT_SECONDS_MAX}",
        f"-artifact_prefix={folder}/",
        "-print_final_stats=1",
    ]
    mutator = edit_mutator(target) if target.by_edits else None
    atheris.Setup(
        [sys.argv[0], str(folder / "corpus"), *options], target.run, custom_mutator=mutator
    )
    atheris.Fuzz()


def edit_mutator(target: Target) -> Callable[[bytes, int, int], bytes]:
    """Return what makes new programs half of the time, and lets atheris change old ones."""
    import atheris  # noqa: PLC0415
    from support.edits import random_program  # noqa: PLC0415

    assert target.by_edits

    def mutate(data: bytes, size_max: int, seed: int) -> bytes:
        rng = Random(seed)
        if rng.random() < 0.5:
            return bytes(atheris.Mutate(data, size_max))
        kept = data[: 2 + 15 * rng.randrange(3)] if len(data) >= 2 else rng.randbytes(2)
        return (kept + random_program(rng))[:size_max]

    return mutate


def main(arguments: list[str]) -> int:
    given = parsed(arguments)
    if given.input is not None:
        load(given.target).run(given.input.read_bytes())
        return 0
    if not given.blind and find_spec("atheris") is not None:
        run_guided(given.target, given.seconds, given.seed)
    return run_blind(load(given.target), given.seconds, given.seed)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
