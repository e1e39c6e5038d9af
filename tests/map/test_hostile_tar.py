"""No tar leads out of the directory it is applied to, hangs, or takes memory at will.

Method: each hostile layer is applied beside a directory of victims. It must be refused with
the right error, and everything outside the root must be as it was, times included. Mutated
tars (a flipped byte, a cut end) may do anything inside the root and nothing else.
"""

from __future__ import annotations

import io
import random
import sys
import tarfile
import tracemalloc
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import (
    Member,
    compress,
    digest_of,
    directory,
    link,
    member,
    read_tree,
    symlink,
    tar,
)

from blobmap._oci import archive, compression
from blobmap._oci.layer import apply_layer
from blobmap.errors import BlobMapError, DataLoss, InvalidArgument

REFUSED: dict[str, list[Member]] = {
    "dot dot": [member("../victim/file", b"x")],
    "dot dot inside": [member("a/../b", b"x")],
    "dot dot last": [directory("a/..")],
    "absolute": [member("/tmp/absolute", b"x")],
    "through a symlink": [symlink("out", "../victim"), member("out/file", b"x")],
    "through an absolute symlink": [symlink("out", "/"), member("out/tmp/x", b"x")],
    "through two symlinks": [
        symlink("a", "b"),
        symlink("b", "../victim"),
        member("a/file", b"x"),
    ],
    "through a symlink further up": [
        directory("d"),
        symlink("d/out", "../../victim"),
        directory("d/out/deep"),
    ],
    "directory through a symlink": [symlink("out", "../victim"), directory("out/new")],
    "symlink through a symlink": [symlink("out", "../victim"), symlink("out/new", "x")],
    "through a symlink within": [directory("a"), symlink("b", "a"), member("b/c", b"x")],
    "through a dangling symlink": [symlink("a", "nowhere"), member("a/b", b"x")],
    "through a file": [member("a"), member("a/b")],
    "whiteout through a symlink": [symlink("out", "../victim"), member("out/.wh.file")],
    "opaque through a symlink": [symlink("out", "../victim"), member("out/.wh..wh..opq")],
    "whiteout of dot dot": [member("a/.wh..."), member("a/b")],
    "whiteout of dot": [member("a"), member(".wh..")],
    "whiteout of nothing": [member(".wh.")],
    "below a whiteout": [member(".wh.a/b")],
    "hard link out": [link("a", "../victim/file")],
    "hard link absolute": [link("a", "/etc/passwd")],
    "hard link through a symlink": [symlink("out", "../victim"), link("a", "out/file")],
    "hard link to nothing": [link("a", "missing")],
    "hard link to itself": [member("a"), link("a", "a")],
    "hard link to a directory": [directory("a"), link("b", "a")],
    "hard link to the root": [link("a", ".")],
    "NUL in a name": [member("x", b"x", pax_headers={"path": "a\0b"})],
    "NUL in a target": [symlink("x", "y", pax_headers={"linkpath": "a\0b"})],
    "NUL in an attribute": [member("x", pax_headers={"SCHILY.xattr.user.\0": "v"})],
    "empty symlink": [symlink("a", "")],
    "name too long": [member("a" * 256)],
    "path too long": [member("/".join(["a" * 200] * 30))],
    "path too deep": [member("a/" * 300)],
    "root is a file": [member(".", b"x")],
    "root is a symlink": [symlink("./.", "../victim")],
    "owner out of range": [member("a", uid=2**40)],
    "a symlink's target too long": [symlink("a", "x" * 4096)],
    "a path too long below the root": [member("/".join(["a" * 200] * 20) + "/" + "b" * 70)],
    "device out of range": [member("a", type=tarfile.CHRTYPE, devmajor=2**20, devminor=1)],
    "a socket": [member("a", type=b"s")],
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim/file").write_bytes(b"precious")
    (tmp_path / "root").mkdir()
    return tmp_path / "root"


def outside(root: Path) -> dict[str, tuple[object, ...]]:
    return read_tree(root.parent / "victim")


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_nothing_written_outside(root: Path, name: str) -> None:
    before = outside(root)
    kind = tarfile.GNU_FORMAT if name == "owner out of range" else tarfile.PAX_FORMAT
    hostile = tar(*REFUSED[name], format=kind)

    with pytest.raises(InvalidArgument, match=r"^evil: member '"):
        apply_layer(io.BytesIO(hostile), root, name="evil")

    assert outside(root) == before
    assert {path.name for path in root.parent.iterdir()} == {"root", "victim"}
    assert not Path("/tmp/absolute").exists()


@pytest.mark.parametrize(
    "name", ["hard link out", "through a symlink", "opaque through a symlink"]
)
def test_a_planted_link_in_a_lower_layer_is_no_way_out_either(root: Path, name: str) -> None:
    apply_layer(io.BytesIO(tar(symlink("out", "../victim"))), root)

    with pytest.raises(InvalidArgument):
        apply_layer(io.BytesIO(tar(*REFUSED[name][-1:])), root)

    assert (root.parent / "victim/file").read_bytes() == b"precious"


def test_a_link_to_a_victim_is_replaced_and_never_written_through(root: Path) -> None:
    layer = [
        symlink("a", "../victim/file"),
        link("b", "a"),
        member("a", b"x"),
        member("b", b"y"),
    ]

    apply_layer(io.BytesIO(tar(*layer)), root)

    assert (root / "a").read_bytes() + (root / "b").read_bytes() == b"xy"
    assert (root.parent / "victim/file").read_bytes() == b"precious"


def test_metadata_for_a_symlink_stays_on_the_symlink(root: Path) -> None:
    before = outside(root)

    apply_layer(io.BytesIO(tar(symlink("a", "../victim/file", mode=0o777, uid=1))), root)

    assert outside(root) == before


def header(**fields: Any) -> bytes:
    return member("x", **fields)[0].tobuf(tarfile.USTAR_FORMAT)


SOUND = tar(directory("d"), member("d/a", b"x" * 2000), symlink("s", "d"), link("h", "d/a"))


def extended(body: bytes, kind: bytes = tarfile.XHDTYPE) -> bytes:
    """An extended header of any bytes."""
    return header(type=kind, size=len(body)) + body + bytes(-len(body) % 512)


def with_pax(body: bytes) -> bytes:
    """A tar that is sound but for what its first extended header says."""
    return extended(body) + tar(member("x"))


def with_mode(mode: int) -> bytes:
    """A tar of one file with a mode that `tarfile` itself would not write."""
    block = bytearray(header())
    block[100:108] = (mode & (1 << 63) - 1 | 1 << 63).to_bytes(8, "big")
    # The sum is taken with blanks in its own place.
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + bytes(1024)


DAMAGED: dict[str, bytes] = {
    "cut in a header": SOUND[:700],
    "cut in a body": SOUND[:1600],
    "garbage": b"\x01" * 2048,
    "garbage after a member": tar(member("a"))[:512] + b"\x01" * 2048,
    "half a header of garbage": tar(member("a"))[:512] + b"\x01" * 100,
    "gzip cut": compress(SOUND, "gzip")[:-10],
    "gzip with a wrong sum": compress(SOUND, "gzip")[:-8] + bytes(8),
    "gzip with a tail": compress(SOUND, "gzip") + b"tail",
    "gzip of garbage": b"\x1f\x8b\x08" + b"\xff" * 500,
    "zstd of garbage": b"\x28\xb5\x2f\xfd" + b"\xff" * 500,
    "a negative size": tar(member("a", size=0))[:124] + b"\xff" * 12 + bytes(1024),
    "a pax header of a gigabyte": header(type=tarfile.XHDTYPE, size=1 << 30) + bytes(4096),
    "headers in headers": tar(member("x", b"y" * 500, type=tarfile.XHDTYPE))[:1024] * 1000,
    "a negative pax size": tar(member("x", b"y", pax_headers={"size": "-4096"})),
    "a pax header of digits": with_pax(b"1" * 1_000_000),
    "a pax value of digits": with_pax(b"1000000 k=" + b"1" * 999_989 + b"\n"),
    "a pax length of 21 digits": with_pax(b"9" * 21 + b" k=v\n"),
    "a pax length too short": with_pax(b"5 k=v\n"),
    "a pax length beyond the header": with_pax(b"7 k=v\n"),
    "a pax record that does not end in a newline": with_pax(b"6 k=vv"),
    "a pax record without a key": with_pax(b"5 =v\n"),
    "a pax record without an equals sign": with_pax(b"5 kv\n"),
    "a tail after the pax records": with_pax(b"6 k=v\n\0\0"),
    "a sparse map of letters": tar(member("x", pax_headers={"GNU.sparse.map": "a,b"})),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damage_is_data_loss(root: Path, name: str) -> None:
    with pytest.raises(DataLoss, match=r"^layer: "):
        apply_layer(io.BytesIO(DAMAGED[name]), root)


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_no_cut_anywhere_goes_unseen_with_a_diff_id(root: Path, how: str) -> None:
    data = compress(SOUND, how)

    for size in range(0, len(data), 97 if how else 512):
        with pytest.raises(DataLoss):
            apply_layer(io.BytesIO(data[:size]), root, diff_id=digest_of(SOUND))


@pytest.mark.parametrize("text", ["4,4,0,4", "0,99999999", "-8,4", "0,-4"])
def test_a_sparse_map_out_of_order_is_refused(root: Path, text: str) -> None:
    headers = {"GNU.sparse.map": text, "GNU.sparse.size": "4096"}

    with pytest.raises((InvalidArgument, DataLoss), match=r"map of holes|sound tar header"):
        apply_layer(io.BytesIO(tar(member("x", b"y" * 8, pax_headers=headers))), root)


def test_a_file_of_holes_alone_cannot_be_huge(root: Path) -> None:
    headers = {"GNU.sparse.map": "0,8", "GNU.sparse.size": str(1 << 40)}

    with pytest.raises(InvalidArgument, match="bytes of holes"):
        apply_layer(io.BytesIO(tar(member("x", b"y" * 8, pax_headers=headers))), root)


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_bomb_is_refused_at_its_bound(
    root: Path, how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compression, "EXPANSION_FREE", 1 << 20)
    monkeypatch.setattr(compression, "EXPANSION_MAX", 10)
    bomb = compress(tar(member("zeroes", bytes(8 << 20))), how)

    with pytest.raises(InvalidArgument, match="decompression bomb"):
        apply_layer(io.BytesIO(bomb), root)

    assert (root / "zeroes").stat().st_size < 2 << 20


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_memory_does_not_grow_with_the_size_of_a_file(root: Path, how: str) -> None:
    source = io.BytesIO(compress(tar(member("big", bytes(32 << 20))), how))
    tracemalloc.start()
    try:
        apply_layer(source, root)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert peak < 4 << 20


def test_memory_does_not_grow_with_the_number_of_members() -> None:
    data = tar(*[member(f"member{i}") for i in range(5000)])
    tracemalloc.start()
    try:
        count = sum(1 for _ in archive.Archive(io.BytesIO(data), name="many"))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()

    assert count == 5000
    assert peak < 1 << 20


def test_a_header_is_bounded_where_it_says_so(root: Path) -> None:
    fits = tar(member("x", pax_headers={"comment": "c" * (archive.HEADER_SIZE_MAX - 8192)}))
    over = tar(member("x", pax_headers={"comment": "c" * archive.HEADER_SIZE_MAX}))

    apply_layer(io.BytesIO(fits), root)
    with pytest.raises(DataLoss, match="takes more than"):
        apply_layer(io.BytesIO(over), root)


def test_what_global_headers_say_is_bounded(root: Path) -> None:
    def layer(size: int) -> bytes:
        keys = [f"key{i:05}" for i in range(size // 1000)]
        bodies = [f"1000 {key}={'v' * 985}\n".encode() for key in keys]
        headers = [extended(body, tarfile.XGLTYPE) + header() for body in bodies]
        return b"".join(headers) + bytes(1024)

    apply_layer(io.BytesIO(layer(archive.GLOBAL_SIZE_MAX - 2000)), root)
    with pytest.raises(DataLoss, match="global headers of"):
        apply_layer(io.BytesIO(layer(archive.GLOBAL_SIZE_MAX + 2000)), root)


def test_bits_above_the_permissions_are_dropped(root: Path) -> None:
    apply_layer(io.BytesIO(with_mode(2**40 + 0o640)), root)

    assert (root / "x").stat().st_mode & 0o7777 == 0o640


def test_a_negative_mode_is_refused(root: Path) -> None:
    with pytest.raises(InvalidArgument, match="no file has mode -5"):
        apply_layer(io.BytesIO(with_mode(-5)), root)


def test_a_sparse_file_beyond_any_file_system_is_refused(root: Path) -> None:
    headers = {"GNU.sparse.map": f"{2**62},8", "GNU.sparse.size": str(2**62 + 8)}

    with pytest.raises(InvalidArgument, match="bytes of holes"):
        apply_layer(io.BytesIO(tar(member("x", b"y" * 8, pax_headers=headers))), root)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere none is set")
@pytest.mark.parametrize(
    ("name", "size"), [("user.a", 70_000), ("", 1), ("user." + "n" * 300, 1)]
)
def test_an_attribute_that_the_file_system_refuses_is_left_out(
    root: Path, name: str, size: int
) -> None:
    headers = {f"SCHILY.xattr.{name}": "v" * size}

    applied = apply_layer(io.BytesIO(tar(member("a", b"x", pax_headers=headers))), root)

    assert applied.left_out["extended attribute"] == 1
    assert (root / "a").read_bytes() == b"x"


@given(seed=st.integers(0, 2**32), cut=st.booleans())
def test_a_mutated_tar_stays_inside_and_raises_only_typed_errors(
    tmp_path_factory: pytest.TempPathFactory, seed: int, *, cut: bool
) -> None:
    base = tmp_path_factory.mktemp("mutated")
    (base / "victim").mkdir()
    (base / "root").mkdir()
    before = read_tree(base / "victim")
    rng = random.Random(seed)
    data = bytearray(rng.choice(MUTABLE)())
    for _ in range(rng.randint(1, 4)):
        data[rng.randrange(len(data))] = rng.choice(b"\x00/.07\x80\xff")
    if cut:
        del data[rng.randrange(len(data)) :]

    with suppress(BlobMapError, OSError):
        apply_layer(io.BytesIO(bytes(data)), base / "root")

    assert read_tree(base / "victim") == before
    assert {path.name for path in base.iterdir()} == {"root", "victim"}


MUTABLE: list[Callable[[], bytes]] = [
    lambda: SOUND,
    lambda: compress(SOUND, "gzip"),
    lambda: compress(SOUND, "zstd"),
    lambda: tar(symlink("out", "../victim"), member("ou_/x"), link("k", "out")),
    lambda: tar(member("x" * 300, pax_headers={"SCHILY.xattr.user.a": "b", "mtime": "1.5"})),
    lambda: tar(member("y" * 300, b"z" * 700), format=tarfile.GNU_FORMAT),
]
