"""An import killed at any moment harms nothing, and the next one ends as if it had not been.

Method: one import is left alone, to learn how long it takes and what state it leaves. Then
imports are killed (SIGKILL, to the process that runs the real command) at random moments.
After each kill, what is mapped must exist; then `blobmap reconcile` must find all well, and a
second import must leave the very same state: images, snapshots, mappings, blobs, trees, and
no file beside them. So it is with either snapshotter; with overlays, no mount may be left
either. BLOBMAP_KILL_COUNT says how many moments; BLOBMAP_KILL_SEED which.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.images import LayoutBuilder, directory, link, member, read_tree, symlink, tar
from support.local_kinds import kind_of, seen

import blobmap
from blobmap import BlobSnapshotter, Kind

pytestmark = pytest.mark.slow

COUNT = int(os.environ.get("BLOBMAP_KILL_COUNT", "10"))
SEED = int(os.environ.get("BLOBMAP_KILL_SEED", "1"))


def command(root: Path, *arguments: str | Path) -> list[str]:
    return [sys.executable, "-m", "blobmap", "--root", str(root), *map(str, arguments)]


def run(root: Path, *arguments: str | Path) -> None:
    subprocess.run(command(root, *arguments), check=True, capture_output=True)


def make_layout(path: Path, how: str) -> Path:
    """Four layers with enough in them to be killed at."""
    rng = random.Random(0)
    builder = LayoutBuilder()
    layers = []
    for number in range(4):
        files = [
            member(f"layer{number}/d{i % 7}/f{i}", rng.randbytes(rng.randrange(3000)))
            for i in range(120)
        ]
        big = member("big", rng.randbytes(2 << 20))
        extra = [link(f"link{number}", "big"), symlink("latest", f"layer{number}")]
        hidden = [member(f"layer{number - 1}/.wh.d3")] if number else []
        layers.append(tar(directory(f"layer{number}"), big, *files, *extra, *hidden))
    builder.put(builder.image(layers[0], (layers[1], "zstd"), (layers[2], ""), layers[3]))
    builder.put(builder.image(layers[0], layers[3], name="other"))
    return builder.write(path, how)


def state(root: Path) -> dict[str, object]:
    """Everything under the root that an import is to leave, and a count of all its files."""
    with blobmap.open(root) as target:
        images = {image.name: (image.digest, image.snapshots) for image in target.images()}
        found: dict[str, object] = {
            "images": images,
            "snapshots": {i.name: (i.parent, i.kind, i.blob) for i in target.walk()},
            "blobs": {blob.digest: target.references(blob.digest) for blob in target.blobs()},
            "content": {info.digest: info.size for info in target.content.walk()},
            "ingests": target.content.list_statuses(),
        }
        for name, (_, snapshots) in images.items():
            target.view("look", snapshots[-1])
            with seen(target, "look") as tree:
                facts = read_tree(tree)
            # An empty snapshot's root has whatever time it was made at.
            del facts["."]
            found[f"tree of {name}"] = facts
            target.remove("look")
    # The stores of records ("map", "meta") have the files that their history gave them.
    folders = [root / "content/blobs", root / "content/ingest", *root.glob("*/snapshots")]
    found["files"] = {str(f.relative_to(root)): len(list(f.rglob("*"))) for f in folders}
    return found


def assert_what_is_mapped_exists(target: BlobSnapshotter) -> None:
    for info in target.walk():
        assert info.kind is Kind.COMMITTED, "a half-made snapshot outlived the open"
        if info.blob is not None:
            assert target.content.info(info.blob.digest).size == info.blob.size
    for image in target.images():
        for name in image.snapshots:
            assert target.get_blob(name) is not None
        for digest in image.blobs:
            target.content.info(digest)
    held = {blob.digest for blob in target.blobs()}
    assert {info.digest for info in target.content.walk()} == held


def mounts(place: Path) -> list[str]:
    """Return the mounts that were made there."""
    table = Path("/proc/self/mountinfo").read_text(encoding="utf-8").splitlines()
    return [line for line in table if str(place) in line]


@pytest.mark.parametrize(
    ("kind", "how"), [("native", "directory"), ("native", "gzip"), ("overlay", "directory")]
)
def test_kill_at_random_moments(tmp_path: Path, kind: str, how: str) -> None:
    kind_of(kind, tmp_path)
    layout = make_layout(tmp_path / "layout", how)
    import_ = "import", "--snapshotter", kind, layout
    started = time.monotonic()
    run(tmp_path / "alone", *import_)
    duration = time.monotonic() - started
    expected = state(tmp_path / "alone")
    started = time.monotonic()
    run(tmp_path / "alone", "images")
    startup = time.monotonic() - started
    rng = random.Random(f"{SEED} {how}" if kind == "native" else f"{SEED} {how} {kind}")
    killed = 0

    # An overlay is applied in the very same steps, so half as many kills will do.
    count = COUNT if kind == "native" else (COUNT + 1) // 2
    for number in range(count):
        root = tmp_path / "killed"
        moment = rng.uniform(startup * 0.7, duration)
        process = subprocess.Popen(
            command(root, *import_),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        time.sleep(moment)
        process.send_signal(signal.SIGKILL)
        killed += process.wait() == -signal.SIGKILL

        where = f"kill {number} of seed {SEED}, after {moment:.3f} of {duration:.3f} seconds"
        if (root / "map").is_dir():
            with blobmap.open(root) as target:
                assert_what_is_mapped_exists(target)
            run(root, "reconcile")
        run(root, *import_)
        assert mounts(tmp_path) == [], where
        assert state(root) == expected, where
        shutil.rmtree(root)

    print(
        f"\n{kind}, {how}: {count} moments, {killed} kills before the end, of {duration:.2f} s"
    )
    assert killed > count // 3
