"""What the command says when something is wrong with what it was given, or with what it keeps.

Method: the command is a subprocess, as a user runs it; one thing is wrong at a time.
"""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support import images
from support.blobmap_command import error, lines, run
from support.images import LayoutBuilder, digest_of, layout, member, tar

import blobmap

BASE = tar(member("a", os.urandom(3000)), member("b", b"b"))
SECOND = tar(member("c", b"c"), member(".wh.b"))
LAYER = digest_of(images.compress(BASE, "gzip"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return layout(tmp_path / "layout", BASE, SECOND)


@pytest.fixture
def root(tmp_path: Path, source: Path) -> Path:
    """A root with one image, "latest"."""
    run("--root", tmp_path / "root", "import", source)
    return tmp_path / "root"


def blob_file(root: Path, digest: str) -> Path:
    path = root / "content/blobs" / digest.replace(":", "/")
    path.chmod(0o600)
    return path


def test_a_root_that_is_a_file_is_no_directory(tmp_path: Path, source: Path) -> None:
    (tmp_path / "file").write_text("precious")
    for arguments in (["ls"], ["import", source]):
        assert "file: not a directory" in error("--root", tmp_path / "file", *arguments)
    assert "not a directory" in error("--root", tmp_path / "file/below", "import", source)

    assert (tmp_path / "file").read_text() == "precious"


def test_a_directory_of_other_things_is_no_root(tmp_path: Path, source: Path) -> None:
    before = sorted(source.rglob("*"))

    assert "layout: not empty" in error("--root", source, "import", source)

    assert sorted(source.rglob("*")) == before
    for name in ("empty", "disk/lost+found"):
        (tmp_path / name).mkdir(parents=True)
        run("--root", tmp_path / name.split("/")[0], "import", source)


@pytest.mark.parametrize("what", ["missing", "empty", "garbage", "garbage.gz", "no such ref"])
def test_an_import_of_no_layout_makes_no_root(tmp_path: Path, source: Path, what: str) -> None:
    path, arguments = tmp_path / what, list[str]()
    if what == "empty":
        path.mkdir()
    elif what == "garbage":
        path.write_bytes(b"garbage" * 100)
    elif what == "garbage.gz":
        path.write_bytes(gzip.compress(b"garbage" * 100))
    elif what == "no such ref":
        path, arguments = source, ["--ref", "other"]

    said = error("--root", tmp_path / "root", "import", path, *arguments)

    assert not (tmp_path / "root").exists()
    assert ("skopeo copy" in said) == (what in {"empty", "garbage", "garbage.gz"})


@pytest.mark.parametrize("packing", ["", "gzip"])
def test_a_tar_of_the_layouts_directory_is_as_good(
    tmp_path: Path, source: Path, packing: str
) -> None:
    path = tmp_path / "packed.tar"
    with tarfile.open(path, f"w:{'gz' if packing else ''}") as archive:
        archive.add(source, arcname="some name/")

    (image,) = lines("--root", tmp_path / "root", "import", path)

    assert len(image["snapshots"]) == 2


def test_a_tar_that_is_cut_short_is_said_to_be(tmp_path: Path) -> None:
    big = tar(member("big", os.urandom(1 << 20)))
    path = layout(tmp_path / "layout.tar", (big, ""), how="tar")
    path.write_bytes(path.read_bytes()[: 1 << 19])

    said = error("--root", tmp_path / "root", "import", path)

    assert "the tar is cut short" in said
    assert not (tmp_path / "root").exists()


@pytest.mark.parametrize("size", [0, 10, 5000])
def test_a_blob_of_another_size_is_found_and_mended_by_an_import(
    root: Path, source: Path, size: int
) -> None:
    whole = blob_file(root, LAYER).read_bytes()
    blob_file(root, LAYER).write_bytes((whole * 2)[:size])

    found = run("--root", root, "reconcile", code=1).stdout
    assert f"blob size: {LAYER}: {len(whole)} bytes were recorded, {size} are there" in found
    assert "to do about blob size: import the images again" in found
    result = run("--root", root, "import", source)

    assert f"blob {LAYER} was damaged" in result.stderr
    assert blob_file(root, LAYER).read_bytes() == whole
    assert "all is well: names and sizes agree" in run("--root", root, "reconcile").stdout
    run("--root", root, "verify")


def test_every_part_of_an_image_is_mended_by_an_import(root: Path, source: Path) -> None:
    files = {info["digest"]: b"" for info in lines("--root", root, "blobs")}
    assert len(files) == 4
    for digest in files:
        files[digest] = blob_file(root, digest).read_bytes()
        blob_file(root, digest).write_bytes(b"damaged")

    run("--root", root, "import", source)

    assert {digest: blob_file(root, digest).read_bytes() for digest in files} == files


def test_verify_finds_a_blob_that_is_damaged_or_missing(root: Path, source: Path) -> None:
    (report,) = lines("--root", root, "verify")
    assert (report["ok"], report["blob_count"], report["damages"]) == (True, 4, [])
    assert "all bytes are what their digests say" in run("--root", root, "verify").stdout
    upper = digest_of(images.compress(SECOND, "gzip"))
    data = bytearray(blob_file(root, LAYER).read_bytes())
    data[50] ^= 1
    blob_file(root, LAYER).write_bytes(data)
    blob_file(root, upper).unlink()

    run("--root", root, "reconcile", "--dry-run", code=1)
    found = run("--root", root, "verify", code=1).stdout
    assert f"blob damaged: {LAYER}: its bytes are {digest_of(data)}" in found
    assert f"blob missing: {upper}" in found
    report = json.loads(run("--root", root, "verify", "--json", code=1).stdout)
    assert not report["ok"]
    assert {damage["digest"] for damage in report["damages"]} == {LAYER, upper}

    run("--root", root, "rm", "latest")
    run("--root", root, "import", source)
    run("--root", root, "verify")


def test_a_refused_reconcile_prints_its_report_and_how_to_force_it(root: Path) -> None:
    with blobmap.open(root) as target:
        for info in sorted(target.walk(), key=lambda info: not info.parent):
            target.inner.remove(info.name)

    result = run("--root", root, "reconcile", "--json", code=1)
    assert "force it with --force" in result.stderr
    report = json.loads(result.stdout)
    assert report["counts"]["snapshot gone"] == 2
    assert report["repaired"] == 0
    assert "blobmap: " + report["refused"] + "\n" == result.stderr
    forced = run("--root", root, "reconcile", "--force", code=1)
    assert forced.stderr == ""
    assert "4 findings, 2 repaired" in forced.stdout
    assert "to do about image broken: import them again, or remove them" in forced.stdout
    run("--root", root, "rm", "latest")
    assert "all is well" in run("--root", root, "reconcile").stdout


@pytest.mark.parametrize("code", [0, 1])
def test_the_status_does_not_depend_on_whether_somebody_reads(root: Path, code: int) -> None:
    if code:
        blob_file(root, LAYER).unlink()
    for arguments in (["reconcile"], ["reconcile", "--json"], ["verify"]):
        reading, writing = os.pipe()
        os.close(reading)
        command = [sys.executable, "-m", "blobmap", "--root", root, *arguments]
        result = subprocess.run(command, stdout=writing, stderr=subprocess.PIPE, check=False)
        os.close(writing)
        assert (result.returncode, result.stderr) == (code, b"")


def test_an_image_whose_descriptor_lies_about_a_size_does_no_harm(
    tmp_path: Path, root: Path
) -> None:
    builder = LayoutBuilder()
    entry = builder.image(BASE, SECOND)
    builder.put({**entry, "size": entry["size"] + 1})

    said = error("--root", root, "import", builder.write(tmp_path / "liar.tar", "gzip"))

    assert "where its descriptor says" in said
    run("--root", root, "verify")


def test_a_name_with_a_newline_forges_no_line(root: Path) -> None:
    evil = "evil\n└── image trusted"
    with blobmap.open(root) as target:
        base = next(info for info in target.walk() if not info.parent)
        target.prepare("key", base.name)
        target.commit(evil, "key")
        target.set_blob(evil, LAYER)

    tree = run("--root", root, "explain", LAYER).stdout
    with blobmap.open(root) as target:
        target.inner.remove(evil)
    report = run("--root", root, "reconcile", "--dry-run", code=1).stdout

    for shown in (tree, report):
        assert "evil\\n" in shown
        assert not [line for line in shown.splitlines() if line.startswith("└── image")]


@pytest.mark.parametrize(
    "arguments", ["ls", "ls --json", "import {source}", "--help", "explain {layer}", "verify"]
)
def test_standard_streams_closed_or_full_end_in_a_line_at_most(
    root: Path, source: Path, arguments: str
) -> None:
    said = arguments.format(source=source, layer=LAYER)
    command = f"{sys.executable} -m blobmap --root {root} {said}"

    def shell(redirection: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            f"{command} {redirection}", shell=True, capture_output=True, text=True, check=False
        )

    closed, silent, full = shell(">&-"), shell("2>&-"), shell(">/dev/full")

    assert (closed.returncode, closed.stderr) == (0, "")
    assert silent.returncode == 0
    assert (full.returncode, full.stderr) == (1, "blobmap: No space left on device\n")


def test_what_can_be_read_only_once_and_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    said = error("--root", tmp_path / "root", "import", tmp_path / "pipe")

    assert "neither a directory nor a regular file" in said
    assert not (tmp_path / "root").exists()
