"""Processes that run a module of `support`, and what they say, line by line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

_TESTS = Path(__file__).parents[1]
TIMEOUT_SECONDS = 120.0


def start(
    module: str, *arguments: object, before: list[str] | None = None
) -> subprocess.Popen[str]:
    """Start `python -m support.<module>`, with another command line before it.

    It writes no bytecode, so that all it renames and removes is the store's.
    """
    return subprocess.Popen(
        [*(before or []), sys.executable, "-m", f"support.{module}", *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(_TESTS), "PYTHONDONTWRITEBYTECODE": "1"},
    )


def read_until_killed(process: subprocess.Popen[str], count: int) -> list[str]:
    """Read so many lines, kill the process, wait for its end; return all it said."""
    assert process.stdin is not None
    assert process.stdout is not None
    lines = []
    # Not by `communicate`, which misses what `readline` has read ahead.
    with process.stdin, process.stdout:
        try:
            for _ in range(count):
                line = process.stdout.readline()
                assert line, "it ended by itself"
                lines.append(line.strip())
        finally:
            process.kill()
            rest = process.stdout.read()
            process.wait(timeout=TIMEOUT_SECONDS)
    return lines + rest.splitlines()


def run(
    module: str, *arguments: object, before: list[str] | None = None
) -> tuple[list[str], int]:
    """Run it to its end; return all it said, and its exit code."""
    process = start(module, *arguments, before=before)
    try:
        output, _ = process.communicate(timeout=TIMEOUT_SECONDS)
    finally:
        process.kill()
        process.wait(timeout=TIMEOUT_SECONDS)
    return output.splitlines(), process.returncode
