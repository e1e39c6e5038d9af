"""The layer of a difference, applied to the parent, makes the child; and is always the same.

Method: two trees are made from drawn steps, the second beginning as a copy of the first, with
few names, sizes, and times, so that they meet. The layer is applied to a copy of the first by
`apply_layer`, and what comes out is compared with the second in all that a layer can say.
Single cases follow, each with the members that are to be there.
"""

from __future__ import annotations

import io
import logging
import os
import shutil
import socket
import sys
import tarfile
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import digest_of, read_tree
from support.nobody import nobody
from support.trees import describe

from blobmap._oci.layer import apply_layer
from blobmap._oci.layer_writer import write_layer
from blobmap.errors import InvalidArgument
from blobmap.local import tree

NAMES = ("a", "b", "c", "caf\udce9", "new\nline", "n" * 255)
TIMES = (0, 1_600_000_000 * 10**9, 1_600_000_000 * 10**9 + 1, -1)
needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root makes devices")

Step = tuple[str, tuple[str, ...], tuple[str, ...], int]
PATHS = st.lists(st.sampled_from(NAMES), min_size=1, max_size=3).map(tuple)
KINDS = ("file", "directory", "symlink", "fifo", "link", "remove", "mode", "xattr", "time")
STEPS = st.lists(
    st.tuples(st.sampled_from(KINDS), PATHS, PATHS, st.integers(0, 3)), max_size=14
)


def leaves(root: Path, path: Path) -> bool:
    """Whether a step to `path` would go through a link, which may lead out of the tree."""
    between = path.relative_to(root).parents
    return any((root / folder).is_symlink() for folder in between)


def make(root: Path, steps: list[Step]) -> None:
    """Change the tree, and nothing outside it; a step that cannot be taken is none."""
    for kind, names, others, number in steps:
        path, other = root.joinpath(*names), root.joinpath(*others)
        if leaves(root, path) or leaves(root, other):
            continue
        if path.is_symlink() and kind not in {"remove", "time"}:
            continue
        if path.is_fifo() and kind == "file":
            continue  # It would wait for a reader.
        try:
            take(kind, path, other, number)
        except (OSError, shutil.Error):
            continue
    # Times are drawn as well, and not the clock's, so that trees can agree.
    for path in sorted(root.rglob("*"), reverse=True):
        if path.lstat().st_mtime_ns not in TIMES:
            os.utime(path, ns=(0, TIMES[1]), follow_symlinks=False)


def take(kind: str, path: Path, other: Path, number: int) -> None:
    if kind == "remove":
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    elif kind == "mode":
        path.chmod((0o644, 0o755, 0o4711, 0o700)[number])
    elif kind == "xattr":
        os.setxattr(path, f"user.{number}", b"\x00\xff=\n"[:number])
    elif kind == "time":
        os.utime(path, ns=(0, TIMES[number]), follow_symlinks=False)
    else:
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "file":
            # Most have one size, and what was there is replaced or written over.
            path.write_bytes(bytes([number]) * 5)
        elif kind == "directory":
            path.mkdir()
        elif kind == "symlink":
            path.symlink_to(("a", "/nowhere/at/all", "../a", "x" * 120)[number])
        elif kind == "fifo":
            os.mkfifo(path)
        else:
            os.link(other, path, follow_symlinks=False)


def layer(child: Path, parent: Path | None, **options: int) -> bytes:
    out = io.BytesIO()
    write_layer(child, parent, out.write, **options)
    return out.getvalue()


def members(data: bytes) -> list[tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        return archive.getmembers()


def names(data: bytes) -> list[str]:
    return [member.name for member in members(data)]


def facts(root: Path) -> tuple[object, object]:
    """All that a layer can say, and which names are one file; the root's time is its own."""
    there = read_tree(root)
    there["."] = (*there["."][:4], *there["."][5:])
    groups: dict[int, set[str]] = {}
    for path in root.rglob("*"):
        if not path.is_dir() or path.is_symlink():
            groups.setdefault(path.lstat().st_ino, set()).add(str(path.relative_to(root)))
    return there, sorted(map(sorted, groups.values()))


def assert_makes(parent: Path | None, child: Path, where: Path) -> bytes:
    data = layer(child, parent)
    if parent is None:
        where.mkdir(mode=0o755)
    else:
        tree.copy(str(parent), str(where))
    apply_layer(io.BytesIO(data), where, diff_id=digest_of(data))
    assert facts(where) == facts(child)
    return data


def test_no_step_leaves_the_tree(tmp_path: Path) -> None:
    """They are root's: one that went through a link would change what is not the test's."""
    outside, root = tmp_path / "outside", tmp_path / "root"
    (outside / "a").mkdir(parents=True)
    (outside / "b").write_bytes(b"mine")
    root.mkdir()
    (root / "a").symlink_to(outside)
    (root / "b").symlink_to(outside / "b")
    before = read_tree(outside)

    make(
        root,
        [
            (kind, names, others, 3)
            for kind in KINDS
            for names in (("a",), ("b",), ("a", "a"), ("a", "b"), ("a", "c"), ("a", "a", "c"))
            for others in (("c",), ("a", "b"))
            if (kind, len(names)) != ("remove", 1)
        ],
    )

    assert read_tree(outside) == before


@pytest.mark.slow
@given(first=STEPS, second=STEPS)
def test_the_parent_with_the_layer_is_the_child(first: list[Step], second: list[Step]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        base = Path(directory)
        parent, child, again = base / "parent", base / "child", base / "again"
        parent.mkdir(mode=0o755)
        make(parent, first)
        tree.copy(str(parent), str(child))
        make(child, second)

        whole = assert_makes(None, child, base / "from nothing")
        change = assert_makes(parent, child, base / "from parent")

        tree.copy(str(child), str(again))
        assert layer(again, parent) == change
        assert layer(again, None) == whole
        assert names(layer(again, child)) == []
        paths = [tuple(member.name.split("/")) for member in members(change)]
        if not any(path[-1] == ".wh..wh..opq" for path in paths):
            assert [*map(fs, paths)] == sorted(map(fs, paths))


def fs(path: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(map(os.fsencode, path))


@pytest.fixture
def parent(tmp_path: Path) -> Path:
    root = tmp_path / "parent"
    make(
        root,
        [
            ("file", ("d", "f"), (), 1),
            ("file", ("d", "g"), (), 2),
            ("link", ("d", "h"), ("d", "g"), 0),
            ("file", ("e", "f"), (), 1),
            ("symlink", ("s",), (), 0),
        ],
    )
    return root


@pytest.fixture
def child(parent: Path) -> Path:
    """A copy of the parent, to be changed."""
    root = parent.with_name("child")
    tree.copy(str(parent), str(root))
    return root


def keep_time(path: Path) -> None:
    os.utime(path, ns=(0, TIMES[1]))


def test_what_is_gone_is_hidden_and_the_way_there_is_told(parent: Path, child: Path) -> None:
    (child / "d/f").unlink()
    keep_time(child / "d")

    data = layer(child, parent)

    assert names(data) == ["d", "d/.wh.f"]
    assert members(data)[1].size == members(data)[1].mode == members(data)[1].mtime == 0


def test_other_bytes_of_the_same_size_and_time_are_a_change(parent: Path, child: Path) -> None:
    (child / "e/f").write_bytes(b"other")
    keep_time(child / "e/f")

    assert names(layer(child, parent)) == ["e", "e/f"]


@pytest.mark.parametrize("what", ["directory to file", "file to directory", "link to file"])
def test_another_type_takes_the_place_without_a_whiteout(
    parent: Path, child: Path, what: str
) -> None:
    if what == "directory to file":
        shutil.rmtree(child / "d")
        (child / "d").write_text("file")
        expected = ["d"]
    elif what == "file to directory":
        (child / "d/f").unlink()
        (child / "d/f/in").mkdir(parents=True)
        expected = ["d", "d/f", "d/f/in"]
    else:
        (child / "s").unlink()
        (child / "s").write_text("file")
        expected = ["s"]

    assert names(assert_makes(parent, child, parent.with_name("made"))) == expected


def test_a_new_name_of_a_file_brings_all_its_names(parent: Path, child: Path) -> None:
    os.link(child / "e/f", child / "z")

    found = members(assert_makes(parent, child, parent.with_name("made")))

    assert [(m.name, m.linkname) for m in found] == [("e", ""), ("e/f", ""), ("z", "e/f")]


def test_names_that_part_are_two_files(parent: Path, child: Path) -> None:
    shutil.copy2(child / "d/h", child / "d/copy")
    (child / "d/copy").replace(child / "d/h")
    keep_time(child / "d")

    assert names(assert_makes(parent, child, parent.with_name("made"))) == ["d", "d/h"]


def test_a_name_too_long_to_hide_makes_its_directory_opaque(parent: Path, child: Path) -> None:
    (parent / "d" / ("n" * 252)).write_text("too long with .wh. before it")

    data = assert_makes(parent, child, parent.with_name("made"))

    assert names(data) == ["d", "d/.wh..wh..opq", "d/f", "d/g", "d/h"]


def test_a_name_of_251_bytes_can_be_hidden(parent: Path, child: Path) -> None:
    name = "n" * 251
    (parent / "d" / name).write_text("fits")
    keep_time(parent / "d")

    assert names(assert_makes(parent, child, parent.with_name("made"))) == [
        "d",
        f"d/.wh.{name}",
    ]


@pytest.mark.parametrize("side", ["parent", "child"])
def test_a_name_like_a_whiteouts_is_refused(parent: Path, child: Path, side: str) -> None:
    (parent.with_name(side) / "d/.wh.x").write_text("no whiteout")

    with pytest.raises(InvalidArgument, match=r"d/\.wh\.x'.*rename it"):
        layer(child, parent)


@pytest.mark.slow
def test_a_tree_deeper_than_descriptors_and_stack_reach(tmp_path: Path) -> None:
    root = tmp_path / "deep"
    root.mkdir()
    depth = sys.getrecursionlimit() + 200
    here = os.open(root, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("d", dir_fd=here)
        os.mkdir("e", dir_fd=here)
        below = os.open("d", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)

    out = io.BytesIO()
    write_layer(root, None, out.write)
    assert out.getvalue().count(b"ustar\x0000") >= 2 * depth

    tree.remove(str(tmp_path), "deep")


def test_a_socket_is_left_out_and_said(
    parent: Path, child: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (child / "d/f").unlink()
    monkeypatch.chdir(child / "d")  # Its path must be short.
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("f")
    keep_time(child / "d")

    with caplog.at_level(logging.WARNING, "blobmap"):
        assert names(layer(child, parent)) == ["d", "d/.wh.f"]

    assert "a socket: 'd/f'" in caplog.text


@needs_root
def test_owners_devices_and_links_are_kept(parent: Path, child: Path) -> None:
    os.mknod(child / "null", 0o020666, os.makedev(1, 3))
    os.mknod(child / "disk", 0o060600, os.makedev(259, 1_048_575))
    os.chown(child / "e/f", 3_000_000, 4_294_967_294)
    os.chown(child / "s", 5, 6, follow_symlinks=False)
    child.chmod(0o711)

    assert_makes(parent, child, parent.with_name("made"))
    assert describe(child)["e/f"][1:3] == (3_000_000, 4_294_967_294)


@needs_root
def test_an_ordinary_owner_reads_what_its_mode_forbids() -> None:
    # pytest's own directory is closed to others.
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o777)
        with nobody():
            child = Path(directory, "child")
            (child / "d").mkdir(parents=True)
            (child / "d/secret").write_text("mode 0")
            (child / "d/secret").chmod(0)
            (child / "d").chmod(0o300)

            data = layer(child, None)

            told = {m.name: oct(m.mode) for m in members(data)}
            assert (told["d"], told["d/secret"]) == ("0o300", "0o0")
            assert b"mode 0" in data
            assert oct((child / "d").stat().st_mode) == "0o40300"
            assert layer(child, child.parent / "child").count(b"mode 0") == 0


def test_holes_are_zeroes(parent: Path, child: Path) -> None:
    with (child / "sparse").open("wb") as file:
        file.truncate(3 << 20)
        file.seek(1 << 20)
        file.write(b"data")

    data = assert_makes(parent, child, parent.with_name("made"))

    assert members(data)[-1].size == 3 << 20


def test_times_are_kept_or_clamped(child: Path) -> None:
    os.utime(child / "e/f", ns=(0, -1_500_000_000))

    def times(data: bytes) -> dict[str, str | float]:
        return {m.name: m.pax_headers.get("mtime", m.mtime) for m in members(data)}

    assert times(layer(child, None))["e/f"] == "-1.5"
    clamped = times(layer(child, None, clamp_mtime=1000))
    assert clamped.pop("e/f") == "-1.5"
    assert set(clamped.values()) == {1000}


def test_an_attribute_that_no_header_can_hold_is_refused(child: Path) -> None:
    os.setxattr(child / "e/f", "user.a=b", b"value")

    with pytest.raises(InvalidArgument, match=r"'e/f': .*'user\.a=b'.*remove it"):
        layer(child, None)
