"""The command does the main job, pipes well, and fails in one line that says what to do.

Method: the command is a subprocess, as a user runs it; some runs are on a pseudo-terminal.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support import images
from support.blobmap_command import error, lines, on_terminal, run
from support.images import LayoutBuilder, digest_of, layout, member, symlink, tar

import blobmap
from blobmap.cli import cli

BASE = tar(member("a", b"a" * 3000), member("b", b"b"))
SECOND = tar(member("c", b"c"), member(".wh.b"))
LAYER = digest_of(images.compress(BASE, "gzip"))

COMMANDS = tuple(sorted(cli.commands))

EXAMPLES = Path(__file__).parents[2] / "docs/examples"


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


def test_every_list_is_headings_and_columns_with_tabs_and_the_same_in_json(root: Path) -> None:
    fields = {
        "images": ["name", "digest", "layers", "created"],
        "blobs": ["digest", "size", "holders", "media_type"],
    }
    headings = {
        "images": "NAME, MANIFEST, LAYERS, CREATED",
        "blobs": "DIGEST, SIZE, HELD BY, MEDIA TYPE",
    }
    for command, names in fields.items():
        plain = run("--root", root, command).stdout
        expected = [headings[command].split(", ")]
        expected += [
            ["-" if record[name] is None else str(record[name]) for name in names]
            for record in lines("--root", root, command)
        ]
        assert [line.split("\t") for line in plain.splitlines()] == expected
        assert len(expected) > 2


def test_ls_shows_snapshots_with_their_blobs_and_filters_them(root: Path) -> None:
    records = lines("--root", root, "ls")
    upper = next(record for record in records if record["parent"])

    assert len(records) == 2
    assert {record["kind"] for record in records} == {"committed"}
    assert {record["blob"]["digest"] for record in records} >= {LAYER}
    assert lines("--root", root, "ls", 'parent!=""') == [upper]
    assert lines("--root", root, "ls", 'parent!=""', f"name=={digest_of(BASE)}") == records
    assert lines("--root", root, "ls", "kind==active") == []
    plain = run("--root", root, "ls").stdout.splitlines()[1:]
    assert [line.split("\t")[0] for line in plain] == [record["name"] for record in records]


def test_usage_adds_up_to_its_total(root: Path) -> None:
    *rows, total = lines("--root", root, "usage")

    assert [row["name"] for row in rows] == [r["name"] for r in lines("--root", root, "ls")]
    assert sum(row["exclusive"] for row in rows) == total["total"]["exclusive"]
    assert total["total"]["size"] == total["total"]["exclusive"] + total["total"]["shared"]
    last = run("--root", root, "usage").stdout.splitlines()[-1]
    assert last == f"total\t-\t-\t{total['total']['exclusive']}\t{total['total']['shared']}"


@pytest.mark.parametrize("start", [LAYER, LAYER[:11], LAYER.removeprefix("sha256:")[:4]])
def test_explain_takes_the_start_of_a_digest(root: Path, start: str) -> None:
    (tree,) = lines("--root", root, "explain", start)

    assert tree["digest"] == LAYER
    assert tree["holders"][0]["name"] == digest_of(BASE)
    assert {holder["kind"] for holder in tree["holders"][0]["holders"]} == {"image", "snapshot"}
    assert f"snapshot {digest_of(BASE)}" in run("--root", root, "explain", start).stdout


def test_explain_of_a_snapshot_is_of_the_blob_it_stands_for(root: Path, own: Path) -> None:
    for name in (digest_of(BASE), digest_of(BASE).removeprefix("sha256:")[:8]):
        (tree,) = lines("--root", root, "explain", name)
        assert (tree["snapshot"], tree["digest"]) == (digest_of(BASE), LAYER)
    assert run("--root", root, "explain", name).stdout.startswith(
        f"snapshot {digest_of(BASE)} stands for\n{LAYER}  "
    )
    with blobmap.open(own) as target:
        target.prepare("active")
    assert "snapshot active stands for no blob" in error("--root", own, "explain", "active")


def test_explain_wants_what_is_there(root: Path) -> None:
    for name in ("sha256:zz", "sha256:", LAYER[7:10], "0" * 64):
        assert "no blob and no snapshot; see: blobmap blobs" in error(
            "--root", root, "explain", name
        )


def test_rm_removes_an_image_with_its_blobs(own: Path) -> None:
    assert lines("--root", own, "rm", "latest") == [{"removed": "image", "name": "latest"}]

    assert lines("--root", own, "blobs") == lines("--root", own, "ls") == []
    assert "no image and no snapshot" in error("--root", own, "rm", "latest")


def test_rm_removes_a_snapshot_by_its_name_or_by_what_a_table_shows_of_it(own: Path) -> None:
    name, child = digest_of(b"name"), digest_of(b"child")
    with blobmap.open(own) as target:
        target.prepare("active")
        for key, parent in ((name, ""), (child, name)):
            target.prepare("work", parent)
            target.commit(key, "work")

    assert run("--root", own, "rm", "active").stdout == ""
    assert f"the parent of {child!r}" in error("--root", own, "rm", name)
    for key, typed in ((child, child[:11]), (name, name.removeprefix("sha256:")[:12])):
        assert lines("--root", own, "rm", typed) == [{"removed": "snapshot", "name": key}]
    assert len(lines("--root", own, "ls")) == 2


def test_rm_of_a_snapshot_that_an_image_lists_is_refused(own: Path) -> None:
    before = lines("--root", own, "ls")
    for record in before:
        for name in (record["name"], record["name"][:20]):
            said = error("--root", own, "rm", name)
            assert f"{record['name']} belongs to image latest" in said
            assert said.endswith("goes with that: blobmap rm latest\n")

    assert lines("--root", own, "ls") == before


def test_a_short_name_that_could_be_several_is_refused(own: Path) -> None:
    digits = ["abcd" + "0" * 60, "abcd" + "1" * 60]
    with blobmap.open(own) as target:
        for name in digits:
            target.prepare(f"sha256:{name}")
    for command in ("rm", "explain"):
        assert "could be 2 of them" in error("--root", own, command, "abcd")
        assert "no " in error("--root", own, command, "abc")
    (removed,) = lines("--root", own, "rm", "abcd0")
    assert removed["name"] == f"sha256:{digits[0]}"


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
    assert "--root DIR or BLOBMAP_ROOT" in error("--root", "", "images", code=2)


def test_looking_makes_no_directory(tmp_path: Path) -> None:
    for command in (["images"], ["ls"], ["blobs"], ["usage"], ["rm", "x"], ["reconcile"]):
        assert "nothing was imported here" in error("--root", tmp_path / "no", *command)

    assert not (tmp_path / "no").exists()


def test_a_wrong_call_is_one_line_and_status_2(root: Path) -> None:
    assert "See: blobmap --help" in error("bogus", code=2)
    assert "See: blobmap import --help" in error("--root", root, "import", code=2)
    assert "No such option" in error("--root", root, "ls", "--bogus", code=2)
    assert "position" in error("--root", root, "ls", "kind==", code=2)
    for command in ("rm", "explain", "import"):
        assert "A name is empty" in error("--root", root, command, "", code=2)


def test_a_shared_option_behind_the_command_is_told_where_to_go(root: Path) -> None:
    for option in ("--root", "--wait"):
        said = error("ls", option, root, code=2)
        assert f"Say it first: blobmap {option} ... ls" in said


def test_without_a_command_it_prints_its_help() -> None:
    result = run(code=2)
    assert result.stdout == ""
    assert result.stderr == run("--help").stdout


def test_a_failure_is_one_line_and_status_1(root: Path, tmp_path: Path) -> None:
    def failing(*arguments: str | Path) -> str:
        return error("--root", root, *arguments)

    assert "there is no such file or directory" in failing("import", tmp_path / "missing")
    assert "not an OCI image layout" in failing("import", tmp_path)
    evil = layout(tmp_path / "evil", tar(symlink("out", "/"), member("out/x")))
    assert "member 'out/x'" in failing("import", evil)
    (tmp_path / "file").write_text("")
    assert "file" in error("--root", tmp_path / "file", "import", evil)


def test_a_root_in_use_names_its_holder(own: Path) -> None:
    with blobmap.open(own):
        said = error("--root", own, "--wait", "0", "ls")

    assert said.startswith(f"blobmap: {own}: process {os.getpid()} is using it")
    assert "--wait" in said


def test_a_root_in_use_is_waited_for(own: Path) -> None:
    with blobmap.open(own):
        command = [sys.executable, "-m", "blobmap", "--root", own, "--wait", "60", "ls"]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1.5)
    out, _ = process.communicate()

    assert process.returncode == 0
    assert len(out.splitlines()) == 3


def test_a_hostile_name_moves_no_cursor(own: Path) -> None:
    hostile = "x\x1b[2J\ty\nz\u202e"
    with blobmap.open(own) as target:
        target.prepare(hostile)

    plain = run("--root", own, "ls", "kind==active").stdout
    assert plain.partition("\n")[2] == "x\\x1b[2J\\ty\\nz\\u202e\tactive\t-\t-\t-\n"
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
    assert process.wait() == 0


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
    for command in COMMANDS:
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
    assert "\nall is well: " in reconciled
