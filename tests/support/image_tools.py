"""What the tests with other image tools share: the tools, and trees with every kind of file."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from support.images import read_tree

# Real programs, libraries, and links between them; where there is no busybox, the system's own.
CONTENT = [Path("/bin/busybox"), Path("/usr/share/zoneinfo"), Path("/usr/lib/os-release")]


def tool(name: str, *, required: bool = True) -> str:
    """The tool's path; without it the test is skipped, but in CI it fails if required."""
    found = shutil.which(name)
    if found is None and required and "CI" in os.environ:
        pytest.fail(f"{name} is missing; CI must install it: apt-get install {name}")
    if found is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    if os.geteuid() != 0:
        pytest.skip("umoci unpacks owners and devices as root only")
    return found


def run(*command: str | Path) -> None:
    subprocess.run(command, check=True, capture_output=True)


def fill(root: Path) -> None:
    """The base layer: real content and every kind of file."""
    for source in CONTENT:
        target = root / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, symlinks=True, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy2(source, target)
    bin_ = root / "usr/local/bin"
    bin_.mkdir(parents=True)
    (bin_ / "tool").write_bytes(os.urandom(3 << 20))
    (bin_ / "tool").chmod(0o4755)
    for i in range(40):
        (bin_ / f"applet{i}").symlink_to("tool")
        os.link(bin_ / "tool", bin_ / f"link{i}")
    (root / "tmp").mkdir(mode=0o1777)
    (root / "tmp").chmod(0o1777)
    for folder in ("opaque/old", "gone/deep", "becomes-file", "becomes-up", "cut"):
        (root / folder).mkdir(parents=True)
        for i in range(10):
            (root / folder / f"file{i}").write_text(f"{folder} {i}")
    (root / "becomes-directory").write_text("a file for now")
    (root / "becomes-link").write_text("a file for now")
    (root / "absolute").symlink_to("/etc/passwd")
    (root / "up").symlink_to("../../../etc/passwd")
    (root / "dangling").symlink_to("nowhere/at/all")
    os.mkfifo(root / "fifo", 0o620)
    os.mknod(root / "null", 0o020666, os.makedev(1, 3))
    for name in (b"caf\xe9", b"new\nline", b"\xff\xfe", "日本".encode(), b"x" * 200):
        (root / os.fsdecode(name)).write_bytes(name)
    owned = root / "owned"
    owned.mkdir()
    os.chown(owned, 1000, 2000)
    (owned / "secret").write_text("mode 0")
    os.chown(owned / "secret", 3000, 4000)
    (owned / "secret").chmod(0)
    os.utime(owned / "secret", ns=(0, 1_234_567_890_987_654_321))
    os.setxattr(owned, "user.directory", b"\x00\xff")
    os.setxattr(owned / "secret", "user.file", b"value")


def replace_kinds(root: Path) -> None:
    """A layer in which paths change what they are."""
    shutil.rmtree(root / "becomes-file")
    (root / "becomes-file").write_text("a file now")
    (root / "becomes-directory").unlink()
    (root / "becomes-directory").mkdir(mode=0o700)
    (root / "becomes-directory/inside").write_text("a directory now")
    shutil.rmtree(root / "becomes-up")
    (root / "becomes-up").symlink_to("owned")
    (root / "becomes-link").unlink()
    (root / "becomes-link").symlink_to("becomes-directory")


def hide(root: Path) -> None:
    """A layer of whiteouts, and of changes that are not of content."""
    shutil.rmtree(root / "gone")
    for i in range(0, 10, 2):
        (root / f"cut/file{i}").unlink()
    (root / "dangling").unlink()
    (root / "usr/local/bin/applet7").unlink()
    (root / "tmp").chmod(0o755)
    os.chown(root / "owned", 5, 6)


def link_below(root: Path) -> None:
    """A layer that links to what a lower one holds."""
    os.link(root / "cut/file1", root / "linked")
    (root / "cut/new").write_text("new")


def comparable(root: Path | str) -> dict[str, tuple[object, ...]]:
    """The tree without the times of directories, which umoci spoils while it unpacks."""
    return {
        name: (*facts[:4], None if str(facts[0]).startswith("0o4") else facts[4], *facts[5:])
        for name, facts in read_tree(root).items()
        if name != "."
    }
