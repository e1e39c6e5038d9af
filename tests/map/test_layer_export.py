"""A committed snapshot's own layer becomes its blob, and whatever fails leaves nothing.

Method: over the embedded default, snapshots are made by hand, exported, and imported or
applied again elsewhere. Failures are put between the steps.
"""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support.images import digest_of, read_tree
from support.importing import assert_empty, checked, content, snapshots
from support.volumes import tmpfs

from blobmap import BlobSnapshotter
from blobmap._oci import layer_export
from blobmap._oci.layer import apply_layer, check_layer
from blobmap.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from blobmap.oci import Progress, Stage, export_layer

TIME = 1_600_000_000


@pytest.fixture
def target(tmp_path: Path) -> Iterator[BlobSnapshotter]:
    with checked(tmp_path / "root") as target:
        yield target


def commit(target: BlobSnapshotter, name: str, parent: str, **files: bytes) -> None:
    """Commit a snapshot with these files in the directory d; no bytes remove one."""
    (mount,) = target.prepare("making", parent)
    folder = Path(mount.source, "d")
    folder.mkdir(exist_ok=True)
    for file, data in files.items():
        if data:
            (folder / file).write_bytes(data)
            os.utime(folder / file, (TIME, TIME))
        else:
            (folder / file).unlink()
    os.utime(folder, (TIME, TIME))
    target.commit(name, "making")


def base_and_top(target: BlobSnapshotter) -> None:
    commit(target, "base", "", a=b"a" * 5000, b=b"b")
    commit(target, "top", "base", a=b"A" * 5000, b=b"", c=b"c")


def blob_bytes(target: BlobSnapshotter, digest: str) -> bytes:
    with target.content.reader_at(digest) as reader:
        return reader.read_at(0, reader.size)


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_the_layer_on_its_parent_is_the_snapshot(
    target: BlobSnapshotter, tmp_path: Path, compression: str
) -> None:
    base_and_top(target)

    blobs = [export_layer(target, name, compression=compression) for name in ("base", "top")]

    made = tmp_path / "made"
    made.mkdir(mode=0o755)
    for blob in blobs:
        data = blob_bytes(target, blob.digest)
        assert digest_of(data) == blob.digest
        apply_layer(io.BytesIO(data), made, diff_id=blob.diff_id)
    (mount,) = target.view("look", "top")
    ours, theirs = read_tree(made), read_tree(mount.source)
    target.remove("look")
    assert ours.pop(".")[:4] == theirs.pop(".")[:4]
    assert ours == theirs
    assert [target.get_blob(name) for name in ("base", "top")] == blobs
    assert content(target) == {blob.digest for blob in blobs}
    assert snapshots(target) == {"base", "top"}


@pytest.mark.slow
def test_the_same_trees_in_two_roots_are_the_same_blobs(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    base_and_top(target)
    with checked(tmp_path / "other") as other:
        base_and_top(other)

        assert export_layer(target, "base") == export_layer(other, "base")
        assert export_layer(target, "top") == export_layer(other, "top")


def test_a_blob_that_is_there_is_returned_unless_replaced(target: BlobSnapshotter) -> None:
    commit(target, "base", "", a=b"a" * 5000)
    gzip = export_layer(target, "base")

    assert export_layer(target, "base", compression="none") == gzip
    plain = export_layer(target, "base", compression="none", replace=True)

    assert plain.diff_id == gzip.diff_id == plain.digest
    assert plain.media_type == "application/vnd.oci.image.layer.v1.tar"
    assert target.get_blob("base") == plain
    assert content(target) == {plain.digest}


def test_a_blob_that_is_lost_is_said_and_can_be_made_anew(target: BlobSnapshotter) -> None:
    commit(target, "base", "", a=b"a")
    blob = export_layer(target, "base")
    target.content.delete(blob.digest)

    with pytest.raises(DataLoss, match="made anew with replace"):
        export_layer(target, "base")
    assert export_layer(target, "base", replace=True) == blob
    check_layer(io.BytesIO(blob_bytes(target, blob.digest)), str(blob.diff_id))


def test_only_a_committed_snapshot_has_a_layer(target: BlobSnapshotter) -> None:
    target.prepare("active")

    with pytest.raises(FailedPrecondition, match="is active; only committed"):
        export_layer(target, "active")
    with pytest.raises(NotFound):
        export_layer(target, "nothing")
    target.remove("active")


def test_progress_tells_the_bytes_of_the_layer(target: BlobSnapshotter) -> None:
    commit(target, "base", "", a=os.urandom(3 << 20))
    told: list[Progress] = []

    export_layer(target, "base", compression="none", progress=told.append)

    assert {event.stage for event in told} == {Stage.PACK}
    assert {event.digest for event in told} == {"base"}
    done = [event.done for event in told]
    assert done == sorted(done)
    assert done[-1] == target.content.info(str(target.get_blob("base").digest)).size  # type: ignore[union-attr]
    assert all(event.done <= event.total for event in told)


@pytest.mark.parametrize(
    "error", [InvalidArgument("refused"), OSError("disk"), KeyboardInterrupt()]
)
def test_what_fails_half_way_leaves_nothing(
    target: BlobSnapshotter, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    base_and_top(target)

    def fail(*_: object, **__: object) -> None:
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(layer_export, "_commit", fail)
        with pytest.raises(type(error)):
            export_layer(target, "top")

    # After an interrupt the next work does it.
    target.work().close()
    assert content(target) == set()
    assert snapshots(target) == {"base", "top"}
    assert target.content.list_statuses() == []
    export_layer(target, "top")
    for name in ("top", "base"):
        target.remove(name)
    assert_empty(target)


def test_an_export_on_its_way_is_not_dropped_by_another(target: BlobSnapshotter) -> None:
    base_and_top(target)

    def meanwhile(_: Progress) -> None:
        if target.get_blob("base") is None:
            export_layer(target, "base")

    assert export_layer(target, "top", progress=meanwhile).size > 0
    assert target.get_blob("base") is not None


DYING = """
import os, signal, sys
import blobmap
from blobmap.oci import export_layer

target = blobmap.open(sys.argv[1])
counted = 0

def die(event):
    global counted
    counted += 1
    if counted == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGKILL)

export_layer(target, "base", compression="none", progress=die)
"""


@pytest.mark.slow
@pytest.mark.parametrize("step", [1, 4, 8])
def test_a_crash_half_way_leaves_nothing(tmp_path: Path, step: int) -> None:
    root = tmp_path / "root"
    with checked(root) as target:
        commit(target, "base", "", a=os.urandom(5 << 20))

    died = subprocess.run([sys.executable, "-c", DYING, str(root), str(step)], check=False)

    assert died.returncode == -signal.SIGKILL
    with checked(root) as target:
        assert snapshots(target) == {"base"}
        assert content(target) == set()
        blob = export_layer(target, "base")
        assert content(target) == {blob.digest}
        assert target.content.list_statuses() == []
        target.remove("base")
        assert_empty(target)
    assert list((root / "content/ingest").iterdir()) == []


@pytest.mark.slow
def test_a_full_disk_leaves_nothing(tmp_path: Path) -> None:
    with tmpfs(tmp_path, "size=12m") as volume, checked(volume.path / "root") as target:
        commit(target, "base", "", a=os.urandom(5 << 20))
        (volume.path / "filler").write_bytes(bytes(3 << 20))

        with pytest.raises(OSError, match="No space left"):
            export_layer(target, "base")

        assert content(target) == set()
        assert target.content.list_statuses() == []
        assert snapshots(target) == {"base"}
        (volume.path / "filler").unlink()
        assert export_layer(target, "base").size > 5 << 20
