"""A layer applied to a directory leaves what the layers below and the layer itself say.

Method: small tars made in memory are applied, one on the other, to a plain directory; what
is there afterwards is looked at with `lstat` and compared.
"""

from __future__ import annotations

import hashlib
import io
import os
import stat
import subprocess
import tarfile
from pathlib import Path

import pytest
from support.images import (
    MTIME,
    compress,
    digest_of,
    directory,
    link,
    member,
    read_tree,
    symlink,
    tar,
)
from support.layers import apply, names
from support.nobody import NOBODY, nobody

from blobmap._oci.layer import Applied, apply_layer, check_layer
from blobmap.errors import DataLoss, InvalidArgument

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root may set owners")


@pytest.mark.parametrize("how", ["", "gzip", "zstd"])
def test_every_compression_gives_the_same_tree_and_diff_id(tmp_path: Path, how: str) -> None:
    data = tar(directory("a"), member("a/b", os.urandom(300_000)), symlink("c", "a/b"))

    applied = apply_layer(io.BytesIO(compress(data, how)), tmp_path, diff_id=digest_of(data))

    assert applied == Applied(digest_of(data), len(data), 3, {})
    assert names(tmp_path) == {"a", "a/b", "c"}


@pytest.mark.parametrize("how", ["gzip", "zstd"])
def test_a_stream_of_several_members_or_frames_is_one_layer(tmp_path: Path, how: str) -> None:
    data = tar(member("a", b"x" * 5000), member("b", b"y" * 5000))
    pieces = compress(data[:700], how) + compress(data[700:6000], how) + compress(b"", how)

    apply_layer(io.BytesIO(pieces + compress(data[6000:], how)), tmp_path)

    assert names(tmp_path) == {"a", "b"}


def test_the_diff_id_covers_what_follows_the_last_member(tmp_path: Path) -> None:
    data = tar(member("a")) + b"tail"

    assert apply_layer(io.BytesIO(data), tmp_path).diff_id == digest_of(data)


def test_another_diff_id_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataLoss, match=r"uncompressed layer is sha256:.*the image says"):
        apply_layer(io.BytesIO(tar(member("a"))), tmp_path, diff_id=digest_of(b""))


@pytest.mark.parametrize("how", ["apply", "check"])
def test_a_diff_id_may_be_sha512(tmp_path: Path, how: str) -> None:
    data = tar(member("a", b"x"))
    diff_id = f"sha512:{hashlib.sha512(data).hexdigest()}"

    if how == "apply":
        assert apply_layer(io.BytesIO(data), tmp_path, diff_id=diff_id).diff_id == diff_id
    else:
        check_layer(io.BytesIO(data), diff_id)
    with pytest.raises(DataLoss, match="the image says"):
        check_layer(io.BytesIO(data + bytes(512)), diff_id)


@pytest.mark.parametrize("data", [b"", bytes(1024)])
def test_an_empty_layer_changes_nothing(tmp_path: Path, data: bytes) -> None:
    before = read_tree(tmp_path)

    assert apply_layer(io.BytesIO(data), tmp_path).member_count == 0
    assert read_tree(tmp_path) == before


@pytest.mark.parametrize("size", [513, 1000, 1024, 1100, 1536])
def test_padding_and_end_marks_may_be_missing(tmp_path: Path, size: int) -> None:
    data = tar(member("a", b"x"))[:size]
    assert data.count(b"x") == 1

    apply_layer(io.BytesIO(data), tmp_path, diff_id=digest_of(data))

    assert (tmp_path / "a").read_bytes() == b"x"


def test_modes_and_times_are_the_members(tmp_path: Path) -> None:
    apply(
        tmp_path,
        directory("d", mode=0o1777, mtime=1000),
        member("d/setuid", b"x", mode=0o6755, mtime=2000.5),
        directory("d/readonly", mode=0o555, mtime=3000),
        member("d/readonly/f", mode=0),
        symlink("d/l", "nowhere", mtime=4000),
        member("d/fifo", type=tarfile.FIFOTYPE, mode=0o622),
        directory(".", mode=0o711, mtime=5000),
    )

    def facts(name: str) -> tuple[int, int]:
        there = (tmp_path / name).lstat()
        return stat.S_IMODE(there.st_mode), there.st_mtime_ns

    assert facts("d") == (0o1777, 1000 * 10**9)
    assert facts("d/setuid") == (0o6755, 2000_500_000_000)
    assert facts("d/readonly") == (0o555, 3000 * 10**9)
    assert facts("d/readonly/f") == (0, MTIME * 10**9)
    assert facts("d/l")[1] == 4000 * 10**9
    assert facts("d/fifo") == (0o622, MTIME * 10**9)
    assert facts(".") == (0o711, 5000 * 10**9)


def test_a_time_is_exact_to_the_nanosecond_and_nonsense_is_1970(tmp_path: Path) -> None:
    texts = {
        "exact": "1600000000.123456789",
        "early": "-5.5",
        "bad": "never",
        "huge": "9" * 400,
        "nan": "nan",
    }
    apply(
        tmp_path, *[member(name, pax_headers={"mtime": text}) for name, text in texts.items()]
    )

    times = {name: (tmp_path / name).stat().st_mtime_ns for name in texts}
    assert times["exact"] == 1600000000123456789
    assert times["early"] == -5_500_000_000
    assert times["bad"] == times["huge"] == times["nan"] == 0


def test_missing_parents_are_made_0755_with_the_time_of_the_first_member(
    tmp_path: Path,
) -> None:
    apply(tmp_path, member("a/b/c"))

    there = (tmp_path / "a/b").stat()
    assert stat.S_IMODE(there.st_mode) == 0o755
    assert there.st_mtime_ns == MTIME * 10**9


def test_a_directory_of_a_lower_layer_keeps_its_mode_and_time(tmp_path: Path) -> None:
    apply(tmp_path, directory("d", mode=0o750, mtime=7), member("d/old"), member("d/e/older"))

    apply(tmp_path, member("d/new"), member("d/.wh.old"))

    there = (tmp_path / "d").stat()
    assert (stat.S_IMODE(there.st_mode), there.st_mtime_ns) == (0o750, 7 * 10**9)
    assert names(tmp_path) == {"d", "d/new", "d/e", "d/e/older"}


@needs_root
def test_owners_are_the_members(tmp_path: Path) -> None:
    kinds = [
        directory("d", uid=1, gid=2),
        member("f", uid=3, gid=4, mode=0o4755),
        symlink("l", "f", uid=5, gid=6),
        member("p", type=tarfile.FIFOTYPE, uid=7, gid=8),
        link("h", "f", uid=9, gid=9, mode=0o600),
    ]
    apply(tmp_path, *kinds)

    owners = {name: facts[1] for name, facts in read_tree(tmp_path).items() if name != "."}
    assert owners == {"d": (1, 2), "f": (3, 4), "l": (5, 6), "p": (7, 8), "h": (3, 4)}
    assert stat.S_IMODE((tmp_path / "h").stat().st_mode) == 0o4755


@needs_root
def test_devices_are_made(tmp_path: Path) -> None:
    numbers = {"devmajor": 1, "devminor": 3}
    apply(tmp_path, member("null", type=tarfile.CHRTYPE, mode=0o666, **numbers))

    there = (tmp_path / "null").stat()
    assert stat.S_ISCHR(there.st_mode)
    assert stat.S_IMODE(there.st_mode) == 0o666
    assert there.st_rdev == os.makedev(1, 3)


def test_extended_attributes_are_set_or_counted(tmp_path: Path) -> None:
    value = b"\xff\x00\n=binary"
    text = value.decode("utf-8", "surrogateescape")
    attributes = {"SCHILY.xattr.user.mine": text, "SCHILY.xattr.nonsense": "x"}
    applied = apply(
        tmp_path, member("f", pax_headers=attributes), directory("d", pax_headers=attributes)
    )

    assert os.getxattr(tmp_path / "f", "user.mine") == value
    assert os.getxattr(tmp_path / "d", "user.mine") == value
    assert applied.left_out == {"extended attribute": 2}


@needs_root
def test_without_privileges_the_rest_is_applied_and_the_loss_counted(tmp_path: Path) -> None:
    first = tar(
        directory("ro", mode=0o555, uid=0),
        member("ro/f", b"x", uid=12),
        member("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3),
        member("mine", uid=NOBODY, gid=NOBODY),
    )
    second = tar(member("ro/g", uid=NOBODY, gid=NOBODY), member("ro/.wh.f"))
    root = tmp_path / "root"
    root.mkdir()
    os.chown(root, NOBODY, NOBODY)
    for folder in tmp_path.parents[:3]:
        folder.chmod(folder.stat().st_mode | 0o711)
    tmp_path.chmod(0o711)

    with nobody():
        applied = [apply_layer(io.BytesIO(data), root) for data in (first, second)]

    assert [one.left_out for one in applied] == [{"owner": 2, "device": 1}, {}]
    assert names(root) == {"ro", "ro/g", "mine"}
    assert stat.S_IMODE((root / "ro").stat().st_mode) == 0o555


def test_kinds_replace_each_other_and_a_directory_keeps_a_directory(tmp_path: Path) -> None:
    apply(
        tmp_path,
        *[
            member("dir-to-file/x"),
            member("dir-to-link/x"),
            directory("dir-to-dir", mode=0o700),
        ],
        *[
            member("dir-to-dir/kept"),
            member("file-to-dir", b"old"),
            symlink("link-to-dir", "a"),
        ],
        *[directory("a"), member("a/untouched"), symlink("link-to-file", "a/untouched")],
    )

    apply(
        tmp_path,
        *[member("dir-to-file", b"new"), symlink("dir-to-link", "a"), directory("dir-to-dir")],
        *[directory("file-to-dir"), directory("link-to-dir"), member("link-to-file", b"new")],
    )

    kinds = {
        name: stat.S_IFMT(int(str(facts[0]), 8)) for name, facts in read_tree(tmp_path).items()
    }
    assert kinds["dir-to-file"] == kinds["link-to-file"] == stat.S_IFREG
    assert kinds["dir-to-link"] == stat.S_IFLNK
    assert kinds["file-to-dir"] == kinds["link-to-dir"] == stat.S_IFDIR
    assert names(tmp_path) >= {"dir-to-dir/kept", "a/untouched"}
    assert (tmp_path / "a/untouched").read_bytes() == b""
    assert stat.S_IMODE((tmp_path / "dir-to-dir").stat().st_mode) == 0o755


def test_the_last_of_members_with_one_name_wins(tmp_path: Path) -> None:
    apply(
        tmp_path,
        *[member("a", b"1"), member("./a", b"22"), member("b/c"), member("b", b"file")],
        *[directory("e", mode=0o700), member("e/f"), symlink("e", "a"), directory("e")],
    )

    assert (tmp_path / "a").read_bytes() == b"22"
    assert (tmp_path / "b").read_bytes() == b"file"
    assert names(tmp_path) == {"a", "b", "e"}
    assert stat.S_IMODE((tmp_path / "e").stat().st_mode) == 0o755


def test_a_file_is_a_new_one_and_never_written_through_its_other_names(tmp_path: Path) -> None:
    apply(tmp_path, member("a", b"old"), link("b", "a"))

    apply(tmp_path, member("a", b"new"))

    assert (tmp_path / "b").read_bytes() == b"old"


def test_a_hard_link_may_name_a_lower_layers_file_or_a_symlink_itself(tmp_path: Path) -> None:
    apply(tmp_path, member("d/a", b"low"), symlink("s", "/etc/passwd"))

    apply(tmp_path, link("e/b", "./d/a"), link("t", "s"))

    assert (tmp_path / "e/b").stat().st_ino == (tmp_path / "d/a").stat().st_ino
    assert (tmp_path / "t").readlink() == Path("/etc/passwd")


def test_a_symlinks_target_is_kept_as_it_is(tmp_path: Path) -> None:
    targets = {"a": "/etc/passwd", "b": "../../..", "c": "/x/y", "d": "\udcff", "e": "é"}

    apply(tmp_path, *[symlink(name, target) for name, target in targets.items()])

    assert {name: str((tmp_path / name).readlink()) for name in targets} == targets


@pytest.mark.parametrize("kind", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_names_of_any_bytes_and_of_any_length_come_through(tmp_path: Path, kind: int) -> None:
    odd = ["caf\udce9", "\udcff\udcfe", "new\nline", "x" * 255, "\u00e9", "a" * 200 + "/b" * 60]

    apply(tmp_path, *[member(name) for name in odd], format=kind)

    assert names(tmp_path) >= set(odd)


@pytest.mark.parametrize("version", ["old", "0.0", "0.1", "1.0"])
def test_a_sparse_file_has_its_holes(tmp_path: Path, version: str) -> None:
    folder = tmp_path / "source"
    folder.mkdir()
    with (folder / "sparse").open("wb") as file:
        for offset in (0, 1 << 20, 3 << 20):
            file.seek(offset)
            file.write(b"data" * 1024)
        file.truncate(5 << 20)
    old = version == "old"
    kind = ["--format=gnu"] if old else ["--format=pax", f"--sparse-version={version}"]
    command = ["tar", "-C", folder, "--sparse", *kind, "-cf", "-", "sparse"]
    data = subprocess.run(command, capture_output=True, check=True).stdout
    root = tmp_path / "root"
    root.mkdir()

    apply_layer(io.BytesIO(data), root)

    assert len(data) < 1 << 20
    assert (root / "sparse").read_bytes() == (folder / "sparse").read_bytes()


def test_a_type_without_a_meaning_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match=r"layer: member 'v': its type b'V'"):
        apply(tmp_path, member("v", type=b"V"))


def test_what_overlayfs_would_take_for_its_own_is_left_out(tmp_path: Path) -> None:
    marks = {
        "SCHILY.xattr.trusted.overlay.redirect": "/elsewhere",
        "SCHILY.xattr.user.overlay.opaque": "y",
        "SCHILY.xattr.user.mine": "kept",
    }
    (tmp_path / "hidden").write_text("below")
    applied = apply(
        tmp_path,
        directory("d", pax_headers=marks),
        member("hidden", type=tarfile.CHRTYPE, devmajor=0, devminor=0),
    )

    assert applied.left_out["mark of overlayfs"] == 2
    assert applied.left_out["device"] == 1
    assert not (tmp_path / "hidden").exists()
    assert not any("overlay" in name for name in os.listxattr(tmp_path / "d"))
