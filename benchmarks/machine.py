"""What a run was made on: figures without it cannot be compared with others."""

from __future__ import annotations

import datetime as dt
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path


def facts(directory: Path) -> dict[str, str]:
    """Name the machine, its software, the file system of the directory, and the day."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "processor": f"{processor()}, {os.cpu_count()} cores",
        "memory": f"{memory / (1 << 30):.0f} GiB",
        "file system": file_system(directory.resolve()),
        "system": f"{platform.system()} {platform.release()}",
        "Python": sys.version.split(" (")[0],
        "Go": go(),
        "date": dt.datetime.now(dt.UTC).date().isoformat(),
    }


def processor() -> str:
    """The model of the processor, as the system names it."""
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text("utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def file_system(directory: Path) -> str:
    """The kind of file system that holds the directory, on Linux."""
    mounts = Path("/proc/mounts")
    if not mounts.exists():
        return "not known"
    kinds = {}
    for line in mounts.read_text("utf-8").splitlines():
        _, point, kind, *_ = line.split()
        kinds[Path(point)] = kind
    return next(kinds[path] for path in [directory, *directory.parents] if path in kinds)


def go() -> str:
    """The version of Go, if there is one."""
    if shutil.which("go") is None:
        return "none"
    shown = subprocess.run(["go", "version"], capture_output=True, text=True, check=True)
    return shown.stdout.split()[2].removeprefix("go")
