"""Trees are copied faithfully, measured by what differs, and removed whatever they hold.

Method: build a tree with one of everything the privileges at hand allow, and compare what
`lstat` and `readlink` say of each path before and after.
"""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest
from support.trees import describe

from blobmap.contracts import Usage
from blobmap.local import durable, tree

ROOT = os.geteuid() == 0
TIME_NS = 1_000_000_000_123_456_789


def build(path: Path) -> None:
    """Make a tree with one of everything, its times all set to `TIME_NS`."""
    path.mkdir(mode=0o755)
    (path / "empty").mkdir()
    (path / "sticky").mkdir()
    (path / "sticky").chmod(0o1777)
    (path / "sealed").mkdir()
    (path / "sealed" / "inside").write_bytes(b"inside")
    (path / "file").write_bytes(b"some bytes")
    (path / "set-id").write_bytes(b"#!")
    (path / "set-id").chmod(0o4755)
    os.link(path / "file", path / "sealed" / "hard-link")
    (path / "dangling").symlink_to("/nowhere/at/all")
    (path / "upward").symlink_to("..")
    (path / os.fsdecode(b"not-utf8-\xff")).write_bytes(b"")
    os.mkfifo(path / "fifo")
    if ROOT:
        os.mknod(path / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
        os.chown(path / "file", 12, 34)
        os.chown(path / "dangling", 56, 78, follow_symlinks=False)
    for directory, names, files in os.walk(path, topdown=False):
        for name in [*names, *files, "."]:
            os.utime(Path(directory, name), ns=(TIME_NS, TIME_NS), follow_symlinks=False)
    (path / "sealed").chmod(0o500)


def run_unprivileged(program: str, directory: Path) -> None:
    """Run a program that gives up its privileges itself, and expect it to succeed."""
    done = subprocess.run(
        [Path(sys.executable).absolute(), "-B", "-c", program],
        cwd=directory,
        env={"PYTHONPATH": str(Path(tree.__file__).parents[2])},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.fixture
def original(tmp_path: Path) -> Path:
    path = tmp_path / "original"
    build(path)
    return path


def test_a_copy_is_the_same_tree(original: Path, tmp_path: Path) -> None:
    tree.copy(str(original), str(tmp_path / "made"))

    assert describe(tmp_path / "made") == describe(original)


def test_a_copy_shares_no_inode_with_its_source(original: Path, tmp_path: Path) -> None:
    tree.copy(str(original), str(tmp_path / "made"))

    assert (tmp_path / "made" / "file").stat().st_ino != (original / "file").stat().st_ino


@pytest.mark.skipif(sys.platform != "linux", reason="extended attributes differ elsewhere")
def test_a_copy_keeps_extended_attributes(tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    (tmp_path / "original" / "file").write_bytes(b"")
    os.setxattr(tmp_path / "original", "user.blobmap", b"directory")
    os.setxattr(tmp_path / "original" / "file", "user.blobmap", b"file")
    (tmp_path / "original" / "file").chmod(0o400)

    tree.copy(str(tmp_path / "original"), str(tmp_path / "made"))

    assert os.getxattr(tmp_path / "made", "user.blobmap") == b"directory"
    assert os.getxattr(tmp_path / "made" / "file", "user.blobmap") == b"file"


def test_a_copy_of_a_sparse_file_is_sparse(tmp_path: Path) -> None:
    (tmp_path / "original").mkdir()
    with (tmp_path / "original" / "sparse").open("wb") as file:
        file.write(b"start")
        file.seek(1 << 20)
        file.write(b"middle")
        file.truncate(8 << 20)

    tree.copy(str(tmp_path / "original"), str(tmp_path / "made"))

    made, source = tmp_path / "made" / "sparse", tmp_path / "original" / "sparse"
    assert made.read_bytes() == source.read_bytes()
    assert made.stat().st_blocks <= source.stat().st_blocks + 16


def test_an_unchanged_copy_measures_nothing(original: Path, tmp_path: Path) -> None:
    tree.copy(str(original), str(tmp_path / "made"))

    assert tree.measure(str(tmp_path / "made"), str(original)) == Usage(0, 0)


def test_what_is_new_or_changed_is_measured_once(original: Path, tmp_path: Path) -> None:
    made = tmp_path / "made"
    tree.copy(str(original), str(made))
    (made / "new").write_bytes(b"12345")
    os.link(made / "new", made / "new-again")
    os.link(made / "set-id", made / "another-name-of-old-bytes")
    (made / "dangling").unlink()
    (made / "dangling").symlink_to("elsewhere")
    (made / "empty").chmod(0o700)
    (made / "upward").unlink()

    assert tree.measure(str(made), str(original)) == Usage(size=5, inodes=3)


def test_a_tree_without_a_base_is_all_its_own(tmp_path: Path) -> None:
    (tmp_path / "t").mkdir()
    (tmp_path / "t" / "file").write_bytes(b"123")
    (tmp_path / "t" / "link").symlink_to("file")

    assert tree.measure(str(tmp_path / "t")) == Usage(size=3, inodes=3)
    assert tree.measure(str(tmp_path / "missing")) == Usage(size=0, inodes=0)


def test_removing_leaves_nothing_and_follows_no_link(original: Path, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"kept")
    (original / "out").symlink_to(outside)

    tree.remove(str(tmp_path), "original")

    assert [path.name for path in tmp_path.iterdir()] == ["outside"]
    assert (outside / "kept").read_bytes() == b"kept"


def test_a_tree_deeper_than_paths_and_stack_allow_is_removed(tmp_path: Path) -> None:
    depth = 1100
    at = os.open(tmp_path, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deep", dir_fd=at)
        below = os.open("deep", os.O_RDONLY, dir_fd=at)
        os.close(at)
        at = below
    os.close(at)

    tree.remove(str(tmp_path), "deep")

    assert not any(tmp_path.iterdir())


@pytest.mark.skipif(not ROOT, reason="without root, the test beside this one shows it")
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o500])
def test_the_owner_without_privileges_removes_closed_directories(
    tmp_path: Path, mode: int
) -> None:
    # The directories above are private to root, so the process works by relative paths.
    program = (
        "import os, sys\n"
        "from blobmap.local import tree\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "os.makedirs('victim/a/b'); open('victim/a/b/c', 'w').close()\n"
        "open('victim/d', 'w').close()\n"
        f"[os.chmod(p, {mode}) for p in ('victim/a/b', 'victim/a', 'victim')]\n"
        "tree.remove('.', 'victim')\n"
        "sys.exit(os.path.lexists('victim'))\n"
    )
    tmp_path.chmod(0o777)
    run_unprivileged(program, tmp_path)


@pytest.mark.skipif(not ROOT, reason="gives its privileges up, to see what is left")
def test_the_owner_without_privileges_copies_what_modes_close_to_them(tmp_path: Path) -> None:
    program = (
        "import os\n"
        "from blobmap.local import tree\n"
        "os.setgid(65534); os.setuid(65534)\n"
        "os.makedirs('old/listless'); open('old/listless/file', 'w').close()\n"
        "modes = {'shadow': 0, 'sudo': 0o4111, 'listless': 0o111}\n"
        "open('old/shadow', 'w').write('secret'); open('old/sudo', 'w').close()\n"
        "[os.chmod(f'old/{name}', mode) for name, mode in modes.items()]\n"
        "tree.copy('old', 'new')\n"
        "for top in ('old', 'new'):\n"
        "    for name, mode in modes.items():\n"
        "        assert os.stat(f'{top}/{name}').st_mode & 0o7777 == mode, (top, name)\n"
        "assert tree.measure('new', 'old') == tree.measure('old', 'new')\n"
        "assert tree.measure('new', 'old').inodes == 0\n"
        "os.chmod('new/shadow', 0o400)\n"
        "assert open('new/shadow').read() == 'secret'\n"
        "assert os.path.exists('new/listless/file')\n"
    )
    tmp_path.chmod(0o777)
    run_unprivileged(program, tmp_path)


@pytest.mark.skipif(ROOT, reason="root may read every directory")
@pytest.mark.parametrize("mode", [0o000, 0o400, 0o500])
def test_closed_directories_are_removed(tmp_path: Path, mode: int) -> None:
    (tmp_path / "victim" / "a" / "b").mkdir(parents=True)
    (tmp_path / "victim" / "a" / "b" / "c").touch()
    for path in ("victim/a/b", "victim/a", "victim"):
        (tmp_path / path).chmod(mode)

    tree.remove(str(tmp_path), "victim")

    assert not any(tmp_path.iterdir())


def test_a_tree_syncs_with_and_without_one_call_for_all(
    original: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    durable.sync_tree(str(original))
    monkeypatch.setattr(durable, "_SYNCFS", None)
    durable.sync_tree(str(original))

    with pytest.raises(FileNotFoundError):
        durable.sync_tree(str(original / "missing"))


def test_making_a_directory_makes_private_parents(tmp_path: Path) -> None:
    durable.make_directory(tmp_path / "a" / "b")
    durable.make_directory(tmp_path / "a" / "b")

    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700
    assert stat.S_IMODE((tmp_path / "a" / "b").stat().st_mode) == 0o700
