"""What a test needs of the machine it runs on, and why it is skipped where that is not there.

A tool that is missing is a failure in CI, which can install it; a right that is missing, as in
a container that may not mount, is not.
"""

from __future__ import annotations

import functools
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

# Where Debian keeps mkfs; not in everybody's PATH.
_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


def require(*tools: str) -> None:
    """Skip the test unless these tools are here, by the names of their programs."""
    if sys.platform != "linux":
        pytest.skip("the faults are made as Linux makes them")
    for tool in tools:
        if shutil.which(tool, path=_PATH) is not None:
            continue
        if "CI" in os.environ and os.geteuid() == 0 and Path("/etc/debian_version").exists():
            pytest.fail(f"{tool} is missing; CI must install it")
        pytest.skip(f"{tool} is not installed")


def require_mounts(*tools: str) -> None:
    """Skip the test unless these tools are here, and this process may mount."""
    require("mount", "umount", *tools)
    if os.geteuid() != 0:
        pytest.skip("only root may mount")


def require_injection() -> None:
    """Skip the test unless strace is here, and may trace."""
    require("strace")
    refusal = _tracing_refused()
    if refusal is not None:
        pytest.skip(f"strace may not trace here: {refusal}")


def command(tool: str, *arguments: object) -> list[str]:
    """Return the command line of a tool that `require` has found."""
    found = shutil.which(tool, path=_PATH)
    assert found is not None
    return [found, *map(str, arguments)]


def run(tool: str, *arguments: object, directory: str | None = None) -> None:
    """Run a tool, in a directory if one is given; its standard error is the error."""
    done = subprocess.run(
        command(tool, *arguments),
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | {"LC_ALL": "C"},
        cwd=directory,
    )
    if done.returncode != 0:
        raise OSError(f"{tool}: {done.stderr.strip()}")


@functools.cache
def _tracing_refused() -> str | None:
    done = subprocess.run(
        command("strace", "-f", "-qq", "-o", os.devnull, sys.executable, "-c", ""),
        capture_output=True,
        text=True,
        check=False,
    )
    return None if done.returncode == 0 else done.stderr.strip()
