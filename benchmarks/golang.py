"""The Go program that runs bbolt: built from `bbolt/` and Debian's packages, without a network.

apt-get install golang-go golang-github-coreos-bbolt-dev
"""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

LIBRARIES = Path("/usr/share/gocode")
SOURCES = Path(__file__).with_name("bbolt")
PROGRAM = "bbolt-driver"
PACKAGES = ("golang-go", "golang-github-coreos-bbolt-dev")


def missing() -> str | None:
    """Why the program cannot be built here, or None if it can."""
    if shutil.which("go") is None:
        return f"there is no `go`; on Debian: apt-get install {' '.join(PACKAGES)}"
    if not (LIBRARIES / "src/go.etcd.io/bbolt").is_dir():
        return f"{PACKAGES[1]} is not installed"
    return None


def build(directory: Path) -> Path:
    """Build the program in `directory` and return its path.

    Raises:
        subprocess.CalledProcessError: It does not build; Go has said why.
    """
    program = directory.absolute() / PROGRAM
    environment = {**os.environ, "GO111MODULE": "off", "GOPATH": str(LIBRARIES)}
    environment["GOCACHE"] = str(directory.absolute() / "go")
    command = ["go", "build", "-trimpath", "-o", str(program), "."]
    subprocess.run(command, cwd=SOURCES, env=environment, check=True)
    return program


def version() -> str:
    """The version of bbolt, which only its package knows."""
    command = ["dpkg-query", "--show", "--showformat=${Version}", PACKAGES[1]]
    shown = subprocess.run(command, capture_output=True, text=True, check=False)
    return shown.stdout or "of unknown version"
