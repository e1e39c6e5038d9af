"""The command `blobkv` as tests run it: in a shell of its own, or in this process."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import dataclass

from click.testing import CliRunner

from blobkv import cli


@dataclass(frozen=True)
class Done:
    """What a run in this process left."""

    exit_code: int
    output: str
    stderr: str


def shell(*arguments: object, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    """Run the command as a shell would."""
    return subprocess.run(
        [sys.executable, "-m", "blobkv", *map(str, arguments)],
        input=stdin,
        capture_output=True,
        check=False,
    )


def run(*arguments: object, stdin: str | bytes = b"") -> Done:
    """The same in this process, where a subprocess would only cost time."""
    with CliRunner().isolation(stdin) as streams:
        status = cli.run([*map(str, arguments)])
        output, errors = (stream.getvalue().decode() for stream in streams[:2] if stream)
    return Done(status, output, errors)
