"""A disk that is full, or cannot be written to, costs nothing that was there.

Method: real file systems: one in memory, filled to its last byte, and a directory bound
read-only. What is asked for must be refused with the system's own error, leave nothing
behind, and work once there is room; and removing must work, for it is how room is made.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import volumes
from support.basis import names
from support.blobs import add, read, some_bytes

import blobmap
from blobmap import BlobSnapshotter
from blobmap import digest as digests
from blobmap.errors import NotFound

SIZE = 24 << 20
PART = 1 << 20


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A disk with little room."""
    with volumes.tmpfs(tmp_path, f"size={SIZE}") as volume:
        yield volume.path


def fill(disk: Path) -> Path:
    """Take all the room there is with one file; return it."""
    filler = disk / "filler"
    with filler.open("wb", buffering=0) as file:
        size = PART
        while size:
            try:
                file.write(b"x" * size)
            except OSError as error:
                if error.errno != errno.ENOSPC:
                    raise
                size //= 2
    return filler


def make(snapshots: BlobSnapshotter, name: str, parent: str = "", size: int = PART) -> str:
    """Commit a snapshot of a file of that size that stands for a blob; return its digest."""
    digest = add(snapshots.content, some_bytes(1000, seed=len(name)))
    (mount,) = snapshots.prepare(f"making {name}", parent)
    Path(mount.source, name).write_bytes(os.urandom(size))
    snapshots.commit(name, f"making {name}")
    snapshots.set_blob(name, digest)
    return digest


def test_a_write_without_room_appends_nothing_and_goes_on(small: Path) -> None:
    with blobmap.open(small / "root") as snapshots:
        content = snapshots.content
        kept = add(content, b"kept")
        writer = content.writer("ref")
        written = 0
        with pytest.raises(OSError, match="No space left") as caught:
            while True:
                written += writer.write(some_bytes(PART, written))
        assert caught.value.errno == errno.ENOSPC
        assert writer.status().offset == written
        filler = fill(small)
        with pytest.raises(OSError, match="No space left"):
            writer.write(b"x" * PART)
        assert writer.status().offset == written
        assert read(content, kept) == b"kept"

        filler.unlink()
        digest = writer.digest()
        writer.commit(written, digest)
        assert content.info(digest).size == written


def test_a_prepare_without_room_leaves_nothing_and_can_be_made_again(small: Path) -> None:
    with blobmap.open(small / "root") as snapshots:
        make(snapshots, "base", size=4 * PART)
        made = 0
        with pytest.raises(OSError, match="No space left"):
            while True:
                snapshots.prepare(f"active {made}", "base")
                made += 1
        assert names(snapshots, "kind==active") == [f"active {at}" for at in range(made)]
        trees = {path.name for path in (small / "root" / "native" / "snapshots").iterdir()}
        assert len(trees) == made + 1
        with pytest.raises(NotFound):
            snapshots.stat(f"active {made}")

        snapshots.remove("active 0")
        snapshots.prepare(f"active {made}", "base")
        assert len(names(snapshots, "kind==active")) == made


def test_on_a_full_disk_a_snapshot_and_its_blob_can_be_removed(small: Path) -> None:
    with blobmap.open(small / "root") as snapshots:
        digest = make(snapshots, "base")
        upper = make(snapshots, "upper", "base")
        fill(small)
        snapshots.remove("upper")
        snapshots.remove("base")

        assert names(snapshots) == []
        assert list(snapshots.content.walk()) == []
        for gone in (digest, upper):
            assert snapshots.references(gone) == 0
        assert snapshots.failure_count == 0


def test_what_was_there_on_a_full_disk_is_there_after_reopening(small: Path) -> None:
    with blobmap.open(small / "root") as snapshots:
        digest = make(snapshots, "base")
        filler = fill(small)
        for _ in range(3):
            with pytest.raises(OSError, match="No space left"):
                while True:
                    make(snapshots, f"more {len(names(snapshots))}", "base")
        before = list(snapshots.walk("kind==committed"))
    filler.unlink()

    with blobmap.open(small / "root") as snapshots:
        assert list(snapshots.walk("kind==committed")) == before
        assert snapshots.get_blob("base") is not None
        assert digests.of(read(snapshots.content, digest)) == digest
        make(snapshots, "another", "base")
        assert snapshots.reconcile().ok


def test_a_root_that_cannot_be_written_is_refused_and_left_as_it_was(tmp_path: Path) -> None:
    root = tmp_path / "root"
    with blobmap.open(root) as snapshots:
        make(snapshots, "base")
    before = {path: path.lstat().st_mtime_ns for path in root.rglob("*")}
    with volumes.read_only(tmp_path, root) as volume:
        for opened in (
            lambda: blobmap.open(volume.path),
            lambda: blobmap.NativeSnapshotter(volume.path / "native"),
            lambda: blobmap.LocalContent(volume.path / "content"),
            lambda: blobmap.open(volume.path / "new"),
        ):
            with pytest.raises(OSError, match="Read-only") as caught:
                opened()
            assert caught.value.errno == errno.EROFS

    assert {path: path.lstat().st_mtime_ns for path in root.rglob("*")} == before
    with blobmap.open(root) as snapshots:
        assert names(snapshots) == ["base"]
