"""The command `blobmap` as a subprocess, as a user runs it."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

Result = subprocess.CompletedProcess[str]


def run(*arguments: str | Path, code: int = 0, **environment: str) -> Result:
    result = subprocess.run(
        [sys.executable, "-m", "blobmap", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == code, result.stderr
    return result


def lines(*arguments: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]


def error(*arguments: str | Path, code: int = 1, **environment: str) -> str:
    """The one line that a failing call prints."""
    result = run(*arguments, code=code, **environment)
    assert result.stdout == ""
    assert result.stderr.startswith("blobmap: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def on_terminal(*arguments: str | Path) -> str:
    """What a terminal shows of standard output and standard error."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "blobmap", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    try:
        while data := os.read(parent, 1 << 16):
            shown += data
    except OSError:
        pass  # Linux says so when the other end is closed.
    os.close(parent)
    assert process.wait() == 0
    return shown.decode()
