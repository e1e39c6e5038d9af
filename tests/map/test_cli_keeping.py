"""The command tells what is kept, for how long, what would go, and what went and why.

Method: the command is a subprocess, as a user runs it, over a root with two images that share a
layer; what it prints is compared with what the library says.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import images
from support.blobmap_command import error, lines, run
from support.images import LayoutBuilder, digest_of, member, tar

import blobmap

BASE = tar(member("a", b"a" * 3000))
SECOND = tar(member("c", b"c"))
LAYER = digest_of(images.compress(BASE, "gzip"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, name="one"))
    builder.put(builder.image(BASE, SECOND, name="two"))
    run("--root", tmp_path / "root", "import", builder.write(tmp_path / "layout"))
    return tmp_path / "root"


def test_events_tell_who_deleted_a_blob(root: Path) -> None:
    run("--root", root, "rm", "one")
    run("--root", root, "rm", "two")
    told = lines("--root", root, "events", "--digest", LAYER)

    assert [(event["kind"], event["cause"]) for event in told[-2:]] == [
        ("unlink", "image 'two' is gone"),
        ("delete", "image 'two' is gone"),
    ]
    everything = lines("--root", root, "events")
    assert [event["position"] for event in everything] == list(range(1, len(everything) + 1))
    later = lines("--root", root, "events", "--after", str(len(everything) - 1))
    assert later == everything[-1:]


def test_a_dry_run_says_what_would_go_and_removes_nothing(root: Path) -> None:
    (plan,) = lines("--root", root, "rm", "two", "--dry-run")
    before = lines("--root", root, "ls")

    assert plan["would_remove"] == "image"
    assert plan["snapshots"] == [before[0]["name"]] or len(plan["snapshots"]) == 1
    assert LAYER not in {blob["digest"] for blob in plan["blobs"]}
    assert plan["size"] == plan["blob_size"] + plan["snapshot_size"] > 0
    run("--root", root, "rm", "two")
    gone = {row["name"] for row in before} - {
        row["name"] for row in lines("--root", root, "ls")
    }
    assert gone == set(plan["snapshots"])
    shown = run("--root", root, "rm", "one", "--dry-run").stdout
    assert f"blob {LAYER}" in shown
    assert shown.endswith("bytes would come free\n")


def test_a_dry_run_of_a_snapshot_that_has_children_says_so(root: Path) -> None:
    assert "is the parent of" in error("--root", root, "rm", digest_of(BASE), "--dry-run")


def test_a_lease_keeps_a_blob_until_it_is_released(root: Path) -> None:
    run("--root", root, "lease", "keep", LAYER, "--hours", "2")
    (found,) = lines("--root", root, "leases")
    assert (found["name"], found["blob_count"]) == ("keep", 1)
    for image in ("one", "two"):
        run("--root", root, "rm", image)

    with blobmap.open(root) as target:
        assert target.references(LAYER) == 1
    run("--root", root, "release", "keep")
    with blobmap.open(root) as target:
        assert list(target.content.walk()) == []
    assert "no lease 'keep'" in error("--root", root, "release", "keep")


def test_refs_shows_roles_policies_and_metadata(root: Path) -> None:
    with blobmap.open(root) as target:
        target.set_reference(digest_of(BASE), "build", LAYER, policy=blobmap.Policy.KNOW)
        target.set_metadata(digest_of(BASE), "built by", ["hand"])
    (shown,) = lines("--root", root, "refs", digest_of(BASE)[7:20])

    assert [(each["role"], each["policy"]) for each in shown["references"]] == [
        ("build", "know"),
        ("layer", "retain"),
    ]
    assert shown["metadata"] == {"built by": ["hand"]}
    assert "ROLE\tBLOB" in run("--root", root, "refs", digest_of(BASE)).stdout


def test_nothing_is_pending_where_all_went_well(root: Path) -> None:
    run("--root", root, "rm", "one")
    assert lines("--root", root, "pending") == []
    assert run("--root", root, "pending").stdout.startswith("DIGEST\tSIZE\tSINCE")


def test_what_is_pending_is_shown_with_its_failure(root: Path) -> None:
    blob = root / "content/blobs/sha256" / LAYER.removeprefix("sha256:")
    blob.unlink()
    # Nobody can remove a directory as if it were a blob.
    (blob / "in the way").mkdir(parents=True)
    for image in ("one", "two"):
        run("--root", root, "rm", image)
    (pending,) = lines("--root", root, "pending")

    assert pending["digest"] == LAYER
    assert pending["failure"]
