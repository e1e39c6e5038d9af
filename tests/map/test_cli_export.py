"""The command `blobmap export`: what a user sees of it.

Method: as for the other commands, it is a subprocess, and some runs are on a pseudo-terminal.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest
from support.blobmap_command import error, lines, on_terminal, run
from support.images import LayoutBuilder, digest_of, member, tar

import blobmap

BASE = tar(member("a", b"a" * 3000), member("b", b"b"))

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with an image "one", and a snapshot "mine" on it that stands for no blob."""
    base = tmp_path_factory.mktemp("cli")
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, name="one"))
    run("--root", base / "root", "import", builder.write(base / "layout"))
    with blobmap.open(base / "root") as target:
        (mount,) = target.prepare("making", digest_of(BASE))
        Path(mount.source, "new").write_text("new")
        target.commit("mine", "making")
    return base / "root"


def test_an_image_and_a_snapshot_in_one_layout_are_imported_again(
    root: Path, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    (one,) = lines("--root", root, "export", "one", "--output", out)
    (mine,) = lines("--root", root, "export", "mine", "-o", out, "--ref", "my:1")

    (image,) = lines("--root", root, "images")
    assert one["digest"] == image["digest"]
    assert (one["name"], one["layer_count"]) == ("one", 1)
    assert (mine["name"], mine["layer_count"]) == ("my:1", 2)
    again = lines("--root", tmp_path / "again", "import", out)
    assert [image["digest"] for image in again] == [one["digest"], mine["digest"]]
    (snapshot,) = lines("--root", root, "ls", "name==mine")
    assert snapshot["blob"]["media_type"].endswith("+gzip")


def test_columns_and_short_digests(root: Path, tmp_path: Path) -> None:
    digits = digest_of(BASE).partition(":")[2][:12]

    shown = run("--root", root, "export", digits, "-o", tmp_path / "out").stdout

    heading, row = (line.split("\t") for line in shown.splitlines())
    assert heading == ["NAME", "MANIFEST", "LAYERS", "SIZE"]
    assert row[0] == digest_of(BASE)
    assert row[2] == "1"


def test_a_dash_is_a_tar_on_standard_output(root: Path, tmp_path: Path) -> None:
    run("--root", root, "export", "one", "-o", tmp_path / "out.tar")
    command = [sys.executable, "-m", "blobmap", "--root", str(root), "export", "one", "-o", "-"]

    result = subprocess.run(command, check=True, capture_output=True)

    assert result.stdout == (tmp_path / "out.tar").read_bytes()
    assert result.stderr == b""
    with tarfile.open(tmp_path / "out.tar") as archive:
        document = archive.extractfile("index.json")
        assert document is not None
        assert len(json.load(document)["manifests"]) == 1


def test_a_terminal_sees_a_bar(root: Path, tmp_path: Path) -> None:
    shown = on_terminal("--root", root, "export", "one", "-o", tmp_path / "out")

    assert "copy" in shown
    assert "━" in shown
    assert "MANIFEST" in shown


def test_what_cannot_be_done_is_one_line(root: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    assert "no image and no snapshot" in error("--root", root, "export", "none", "-o", out)
    assert "nowhere: there is no" in error(
        "--root", root, "export", "one", "-o", tmp_path / "nowhere/out"
    )
    assert "Missing option" in error("--root", root, "export", "one", code=2)
    assert "nothing was imported" in error("--root", out, "export", "one", "-o", out)
    assert not out.exists()


def test_how_layers_are_made_can_be_said(root: Path, tmp_path: Path) -> None:
    with blobmap.open(root) as target:
        target.prepare("making", "mine")
        target.commit("more", "making")
    how = ("--compression", "zstd", "--level", "19", "--clamp-mtime", "1")

    run("--root", root, "export", "more", "-o", tmp_path / "out", *how)

    (snapshot,) = lines("--root", root, "ls", "name==more")
    assert snapshot["blob"]["media_type"].endswith("+zstd")
    bad = ("export", "more", "-o", tmp_path / "x", "--level", "20")
    assert "gzip has no level 20" in error("--root", root, *bad)
    assert not (tmp_path / "x").exists()
