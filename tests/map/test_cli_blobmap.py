"""The command does the main job, pipes well, and fails in one line that says what to do.

Method: the command is a subprocess, as a user runs it; some runs are on a pseudo-terminal.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from support import images
from support.images import LayoutBuilder, digest_of, layout, member, symlink, tar

import blobmap

BASE = tar(member("a", b"a" * 3000), member("b", b"b"))
SECOND = tar(member("c", b"c"), member(".wh.b"))
LAYER = digest_of(images.compress(BASE, "gzip"))

EXAMPLES = Path(__file__).parents[2] / "docs/examples"

Result = subprocess.CompletedProcess[str]


def run(*arguments: str | Path, code: int = 0, **environment: str) -> Result:
    result = subprocess.run(
        [sys.executable, "-m", "blobmap", *arguments],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )
    assert result.returncode == code, result.stderr
    return result


def lines(*arguments: str | Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in run(*arguments, "--json").stdout.splitlines()]


def error(*arguments: str | Path, code: int = 1, **environment: str) -> str:
    """The one line that a failing call prints."""
    result = run(*arguments, code=code, **environment)
    assert result.stdout == ""
    assert result.stderr.startswith("blobmap: ")
    assert result.stderr.count("\n") == 1
    return result.stderr


def on_terminal(*arguments: str | Path) -> str:
    """What a terminal shows of standard output and standard error."""
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "blobmap", *arguments]
    environment = {**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    process = subprocess.Popen(command, stdout=child, stderr=child, env=environment)
    os.close(child)
    shown = b""
    try:
        while data := os.read(parent, 1 << 16):
            shown += data
    except OSError:
        pass  # Linux says so when the other end is closed.
    os.close(parent)
    assert process.wait() == 0
    return shown.decode()


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A root with two images that share a layer. Tests only look at it."""
    base = tmp_path_factory.mktemp("cli")
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, name="one"))
    builder.put(builder.image(BASE, SECOND, name="two"))
    run("--root", base / "root", "import", builder.write(base / "layout"))
    return base / "root"


@pytest.fixture
def own(tmp_path: Path) -> Path:
    """A root of one's own, with one image, "latest"."""
    run("--root", tmp_path / "root", "import", layout(tmp_path / "layout", BASE, SECOND))
    return tmp_path / "root"


def test_import_prints_the_images(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", BASE)

    (image,) = lines("--root", tmp_path / "root", "import", path)

    assert image["name"] == "latest"
    assert image["snapshots"] == [digest_of(BASE)]
    assert image["layers"] == 1
    assert len(image["blobs"]) == 2


def test_import_by_name(tmp_path: Path) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, name="one"))
    builder.put(builder.image(SECOND, name="two"))
    path = builder.write(tmp_path / "layout.tar", "tar")
    root = tmp_path / "root"

    assert [i["name"] for i in lines("--root", root, "import", path, "--ref", "two")] == ["two"]
    assert "there are: one, two" in error("--root", root, "import", path, "--ref", "three")


def test_every_list_is_columns_with_tabs_and_the_same_in_json(root: Path) -> None:
    fields = {
        "images": ["name", "digest", "layers", "created"],
        "blobs": ["digest", "size", "holders", "media_type"],
    }
    for command, names in fields.items():
        plain = run("--root", root, command).stdout
        expected = [
            ["-" if record[name] is None else str(record[name]) for name in names]
            for record in lines("--root", root, command)
        ]
        assert [line.split("\t") for line in plain.splitlines()] == expected
        assert len(expected) > 1


def test_ls_shows_snapshots_with_their_blobs_and_filters_them(root: Path) -> None:
    records = lines("--root", root, "ls")
    upper = next(record for record in records if record["parent"])

    assert len(records) == 2
    assert {record["kind"] for record in records} == {"committed"}
    assert {record["blob"]["digest"] for record in records} >= {LAYER}
    assert lines("--root", root, "ls", 'parent!=""') == [upper]
    assert lines("--root", root, "ls", 'parent!=""', f"name=={digest_of(BASE)}") == records
    assert run("--root", root, "ls", "kind==active").stdout == ""
    plain = run("--root", root, "ls").stdout.splitlines()
    assert [line.split("\t")[0] for line in plain] == [record["name"] for record in records]


def test_usage_adds_up_to_its_total(root: Path) -> None:
    *rows, total = lines("--root", root, "usage")

    assert [row["name"] for row in rows] == [r["name"] for r in lines("--root", root, "ls")]
    assert sum(row["exclusive"] for row in rows) == total["total"]["exclusive"]
    assert total["total"]["size"] == total["total"]["exclusive"] + total["total"]["shared"]
    last = run("--root", root, "usage").stdout.splitlines()[-1]
    assert last == f"total\t-\t-\t{total['total']['exclusive']}\t{total['total']['shared']}"


@pytest.mark.parametrize("start", [LAYER, LAYER[:14], LAYER.removeprefix("sha256:")[:10]])
def test_explain_takes_the_start_of_a_digest(root: Path, start: str) -> None:
    (tree,) = lines("--root", root, "explain", start)

    assert tree["digest"] == LAYER
    assert tree["holders"][0]["name"] == digest_of(BASE)
    assert {holder["kind"] for holder in tree["holders"][0]["holders"]} == {"image", "snapshot"}
    assert f"snapshot {digest_of(BASE)}" in run("--root", root, "explain", start).stdout


def test_explain_wants_a_digest_that_is_there_and_one_only(root: Path) -> None:
    assert "no blob's digest starts so" in error("--root", root, "explain", "sha256:zz")
    assert "give more digits" in error("--root", root, "explain", "sha256:", code=2)


def test_rm_removes_an_image_with_its_blobs(own: Path) -> None:
    assert lines("--root", own, "rm", "latest") == [{"removed": "image", "name": "latest"}]

    assert run("--root", own, "blobs").stdout == ""
    assert run("--root", own, "ls").stdout == ""
    assert "no image and no snapshot" in error("--root", own, "rm", "latest")


def test_rm_removes_a_snapshot_by_its_name_or_by_what_a_table_shows_of_it(own: Path) -> None:
    with blobmap.open(own) as target:
        target.prepare("active")
        names = list(target.get_image("latest").snapshots)

    assert run("--root", own, "rm", "active").stdout == ""
    error("--root", own, "rm", names[0])
    (removed,) = lines("--root", own, "rm", names[1].removeprefix("sha256:")[:12])
    assert removed["removed"] == "snapshot"
    assert [record["name"] for record in lines("--root", own, "ls")] == [names[0]]


def test_reconcile_is_well_or_exits_with_1(own: Path) -> None:
    (report,) = lines("--root", own, "reconcile", "--dry-run")
    assert (report["ok"], report["dry_run"], report["findings"]) == (True, True, [])
    with blobmap.open(own) as target:
        target.content.delete(LAYER)

    found = run("--root", own, "reconcile", code=1)

    assert f"blob missing: {LAYER}" in found.stdout
    (report,) = [json.loads(run("--root", own, "reconcile", "--json", code=1).stdout)]
    assert not report["ok"]
    assert report["counts"] == {"blob missing": 1}


def test_the_root_may_come_from_the_environment(root: Path) -> None:
    assert run("images", BLOBMAP_ROOT=str(root)).stdout == run("--root", root, "images").stdout
    assert "--root DIR or BLOBMAP_ROOT" in error("images", code=2)


def test_looking_makes_no_directory(tmp_path: Path) -> None:
    for command in (["images"], ["ls"], ["blobs"], ["usage"], ["rm", "x"], ["reconcile"]):
        assert "nothing was imported here" in error("--root", tmp_path / "no", *command)

    assert not (tmp_path / "no").exists()


def test_a_wrong_call_is_one_line_and_status_2(root: Path) -> None:
    assert "See: blobmap --help" in error("bogus", code=2)
    assert "See: blobmap import --help" in error("--root", root, "import", code=2)
    assert "No such option" in error("--root", root, "ls", "--bogus", code=2)


def test_a_failure_is_one_line_and_status_1(root: Path, tmp_path: Path) -> None:
    def failing(*arguments: str | Path) -> str:
        return error("--root", root, *arguments)

    assert "there is no such file or directory" in failing("import", tmp_path / "missing")
    assert "not an OCI image layout" in failing("import", tmp_path)
    assert "position" in failing("ls", "kind==")
    evil = layout(tmp_path / "evil", tar(symlink("out", "/"), member("out/x")))
    assert "member 'out/x'" in failing("import", evil)
    (tmp_path / "file").write_text("")
    assert "file" in error("--root", tmp_path / "file", "import", evil)


def test_a_root_in_use_names_its_holder(own: Path) -> None:
    with blobmap.open(own):
        assert str(os.getpid()) in error("--root", own, "ls")


def test_a_hostile_name_moves_no_cursor(own: Path) -> None:
    hostile = "x\x1b[2J\ty\nz\u202e"
    with blobmap.open(own) as target:
        target.prepare(hostile)

    plain = run("--root", own, "ls", "kind==active").stdout
    assert plain == "x\\x1b[2J\\ty\\nz\\u202e\tactive\t-\t-\t-\n"
    assert "\x1b[2J" not in on_terminal("--root", own, "ls")
    (record,) = lines("--root", own, "ls", "kind==active")
    assert record["name"] == hostile


def test_a_terminal_sees_a_table_and_a_progress_bar(root: Path, tmp_path: Path) -> None:
    shown = on_terminal("--root", root, "blobs")
    assert "MEDIA TYPE" in shown
    assert LAYER.removeprefix("sha256:")[:12] in shown
    assert LAYER not in shown

    path = layout(tmp_path / "layout", BASE)
    assert "━" in on_terminal("--root", tmp_path / "root", "import", path)
    assert run("--root", tmp_path / "root", "import", path).stderr == ""


def test_a_warning_is_a_line_on_standard_error(tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", tar(member(".wh..wh.aufs"), member("a")))

    result = run("--root", tmp_path / "root", "import", path)

    assert result.stderr.startswith("blobmap: warning: layer sha256:")
    assert result.stderr.endswith("AUFS bookkeeping file, 1 times\n")


def test_a_reader_that_has_seen_enough_is_no_error(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with blobmap.open(root) as target:
        for i in range(300):
            target.prepare(f"active {i:0500}")
    command = [sys.executable, "-m", "blobmap", "--root", root, "ls"]

    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()

    assert process.stderr.read() == b""
    process.stderr.close()
    process.wait()


def test_ctrl_c_is_quiet_and_leaves_nothing(tmp_path: Path) -> None:
    big = tar(*[member(f"f{i}", os.urandom(1000)) for i in range(20_000)])
    path = layout(tmp_path / "layout", (big, ""))
    root = tmp_path / "root"
    process = subprocess.Popen(
        [sys.executable, "-m", "blobmap", "--root", root, "import", path],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    while not list(root.glob("native/snapshots/1/f1")):
        assert process.poll() is None
        time.sleep(0.005)

    process.send_signal(signal.SIGINT)
    out, err = process.communicate()

    assert (process.returncode, out, err.strip()) == (130, "", "")
    with blobmap.open(root) as target:
        assert list(target.walk()) == list(target.blobs()) == list(target.content.walk()) == []
    assert list(root.glob("native/snapshots/*")) == []


@pytest.mark.parametrize("missing", ["click", "rich"])
def test_without_its_extra_the_command_says_what_to_install(missing: str) -> None:
    code = (
        f"import sys; sys.modules[{missing!r}] = None; sys.argv = ['blobmap']\n"
        "from blobmap.__main__ import main; main()"
    )

    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )

    assert result.returncode == 1
    assert result.stderr == (
        "blobmap: this command needs click and rich; run: pip install 'blobkv[cli]'\n"
    )


def test_help_has_an_example_and_every_command_a_help() -> None:
    text = run("--help").stdout
    assert "blobmap --root store import debian" in text
    for command in ("import", "images", "ls", "blobs", "usage", "explain", "rm", "reconcile"):
        assert f"  {command} " in text
        assert "--json" in run(command, "--help").stdout
    assert run("--version").stdout.startswith("blobmap, version ")


def test_the_example_does_the_main_job_and_can_be_run_again(tmp_path: Path) -> None:
    for _ in range(2):
        out = subprocess.run(
            [sys.executable, EXAMPLES / "first_import.py", tmp_path],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    steps = out.split("$ blobmap ")
    *_, before, _, explained, _, after, reconciled = steps

    assert len(steps) == 10
    assert before.count("\n") > 4
    assert explained.count("image app") == 3
    assert after.count("sha256:") == 3
    assert reconciled.endswith("all is well\n")
