"""An image goes out as it came in, and a layout is whole or not there.

Method: images made in memory are imported and exported; what is written is read file by file,
imported again elsewhere, and compared. Failures come from damaged blobs and full disks.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.exporting import blob, files, import_two, index
from support.images import CONFIG, MANIFEST, REF_NAME, LayoutBuilder, digest_of, member, tar
from support.importing import BASE, SECOND, checked, snapshots
from support.volumes import tmpfs

from blobmap import BlobSnapshotter
from blobmap._oci import layout_writer
from blobmap.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from blobmap.oci import Progress, Stage, export_layout, import_layout


@pytest.fixture
def target(tmp_path: Path) -> Iterator[BlobSnapshotter]:
    with checked(tmp_path / "root") as target:
        yield target


@pytest.fixture
def builder(target: BlobSnapshotter, tmp_path: Path) -> LayoutBuilder:
    """The images "one" and "two"."""
    return import_two(target, tmp_path / "in")


@pytest.mark.parametrize("image", ["one", "two"])
def test_an_image_goes_out_with_the_digests_it_came_with(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path, image: str
) -> None:
    exported = export_layout(target, image, tmp_path / "out")

    (listed,) = index(tmp_path / "out")
    (came,) = [item for item in builder.manifests if item["annotations"][REF_NAME] == image]
    assert listed == came
    assert exported.digest == came["digest"]
    written = files(tmp_path / "out")
    assert exported.layer_count == 2
    assert len(written) == 2 + 4
    for name, data in written.items():
        if name.startswith("blobs"):
            assert data == builder.files()[name]
    assert exported.size == sum(len(written[name]) for name in written if "blobs" in name)
    assert snapshots(target) == {info.name for info in target.walk()}


def test_a_layout_gets_one_image_more_and_the_same_name_is_replaced(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    export_layout(target, "one", out)
    export_layout(target, "two", out)
    export_layout(target, "one", out)
    assert [item["annotations"][REF_NAME] for item in index(out)] == ["two", "one"]
    assert {n: d for n, d in files(out).items() if "blobs" in n} == {
        n: d for n, d in builder.files().items() if "blobs" in n
    }
    export_layout(target, "two", out, ref="one")

    assert [item["annotations"][REF_NAME] for item in index(out)] == ["two", "one"]
    assert index(out)[0]["digest"] == index(out)[1]["digest"]
    with checked(tmp_path / "again") as again:
        assert [image.name for image in import_layout(again, out)] == ["two", "one"]


def test_what_the_index_says_beside_stays(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path
) -> None:
    out = tmp_path / "out"
    export_layout(target, "one", out)
    document = json.loads((out / "index.json").read_bytes())
    (out / "index.json").write_text(json.dumps({**document, "annotations": {"kept": "yes"}}))

    export_layout(target, "two", out)

    assert json.loads((out / "index.json").read_bytes())["annotations"] == {"kept": "yes"}


def test_a_tar_is_the_same_bytes_each_time_and_as_a_stream(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path
) -> None:
    stream = io.BytesIO()
    for name in ("a.tar", "b.tar"):
        export_layout(target, "one", tmp_path / name)
    export_layout(target, "one", stream)

    data = (tmp_path / "a.tar").read_bytes()
    assert data == (tmp_path / "b.tar").read_bytes() == stream.getvalue()
    with tarfile.open(tmp_path / "a.tar") as archive:
        members = archive.getmembers()
    assert [m.name for m in members] == sorted(m.name for m in members)
    assert {(m.uid, m.gid, m.mtime, m.uname) for m in members} == {(0, 0, 0, "")}
    with checked(tmp_path / "again") as again:
        (image,) = import_layout(again, tmp_path / "a.tar")
        assert image.digest == target.get_image("one").digest


def test_an_image_without_a_name_goes_out_without_one(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, name=None))
    (image,) = import_layout(target, builder.write(tmp_path / "in"))

    for _ in range(2):
        assert export_layout(target, image.name, tmp_path / "out").name == ""

    (listed,) = index(tmp_path / "out")
    assert "annotations" not in listed


@pytest.fixture
def other_compression(target: BlobSnapshotter, tmp_path: Path) -> str:
    """An image whose base is here as another image brought it: plain, not gzip."""
    for name, how in (("first", ""), ("second", "gzip")):
        builder = LayoutBuilder()
        builder.put(builder.image((BASE, how), (SECOND, how), name=name, docker=True))
        import_layout(target, builder.write(tmp_path / name))
    return "second"


def test_a_layer_that_is_here_compressed_otherwise_is_refused(
    target: BlobSnapshotter, other_compression: str, tmp_path: Path
) -> None:
    with pytest.raises(FailedPrecondition, match="have the manifest rewritten"):
        export_layout(target, other_compression, tmp_path / "out")

    assert not (tmp_path / "out").exists()


def test_a_manifest_is_rewritten_for_what_is_here(
    target: BlobSnapshotter, other_compression: str, tmp_path: Path
) -> None:
    out = tmp_path / "out"

    exported = export_layout(target, other_compression, out, rewrite=True)

    image = target.get_image(other_compression)
    assert exported.digest != image.digest
    manifest = json.loads(blob(out, exported.digest))
    assert manifest["mediaType"] == MANIFEST
    assert manifest["config"] == {
        "mediaType": CONFIG,
        "digest": image.blobs[1],
        "size": len(blob(out, image.blobs[1])),
    }
    layers = [
        (item["digest"], item["mediaType"].rpartition(".")[2]) for item in manifest["layers"]
    ]
    assert layers == [(digest_of(BASE), "tar"), (digest_of(SECOND), "tar")]
    with checked(tmp_path / "again") as again:
        (imported,) = import_layout(again, out)
        assert imported.snapshots == image.snapshots


@pytest.mark.parametrize("out", ["out", "out.tar"])
@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_blob_that_is_missing_or_damaged_leaves_no_layout(
    tmp_path: Path, out: str, how: str
) -> None:
    import blobmap  # noqa: PLC0415  # This one is not checked at its end.

    builder = LayoutBuilder()
    builder.put(builder.image(BASE, SECOND, name="one"))
    with blobmap.open(tmp_path / "root") as target:
        (image,) = import_layout(target, builder.write(tmp_path / "in"))
        found = target.get_blob(image.snapshots[0])
        assert found is not None
        path = tmp_path / "root/content/blobs" / found.digest.replace(":", "/")
        path.chmod(0o600)
        if how == "missing":
            target.content.delete(found.digest)
        else:
            path.write_bytes(bytes(found.size))

        with pytest.raises(DataLoss, match=f"{found.digest}.*import"):
            export_layout(target, "one", tmp_path / out)

    assert {p.name for p in tmp_path.iterdir()} == {"root", "in"}


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(tar(member("a", b"a")), name="small"))
    builder.put(builder.image((tar(member("b", os.urandom(3 << 20))), ""), name="large"))
    with tmpfs(tmp_path, "size=2m") as volume, checked(tmp_path / "root") as target:
        import_layout(target, builder.write(tmp_path / "in"))
        out = volume.path / "out"

        for name in ("new", "new.tar"):
            with pytest.raises(OSError, match="No space left"):
                export_layout(target, "large", volume.path / name)
        assert list(volume.path.iterdir()) == []
        export_layout(target, "small", out)
        before = files(out)
        with pytest.raises(OSError, match="No space left"):
            export_layout(target, "large", out)

        assert files(out) == before


class Killed(BaseException):
    """The process is gone: nothing is cleaned up."""


def die_at(patched: pytest.MonkeyPatch, step: str, moment: int) -> None:
    """Have the export die before a step, at its moment-th time, and clean up nothing."""
    place: Any = Path if step == "rename" else layout_writer
    real = getattr(place, step)
    left = moment

    def die(*arguments: Any) -> Any:
        nonlocal left
        left -= 1
        if left <= 0:
            raise Killed
        return real(*arguments)

    patched.setattr(place, step, die)
    patched.setattr(Path, "unlink", lambda *_, **__: None)
    patched.setattr(shutil, "rmtree", lambda *_: None)


@pytest.mark.parametrize("step", ["rename", "sync_file"])
@pytest.mark.parametrize("out", ["out", "out.tar", "there"])
def test_a_crash_before_any_step_leaves_whole_layouts(
    target: BlobSnapshotter,
    builder: LayoutBuilder,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    out: str,
    step: str,
) -> None:
    path = tmp_path / out
    export_layout(target, "one", tmp_path / "there")
    for moment in range(1, 40):
        with monkeypatch.context() as patched:
            die_at(patched, step, moment)
            try:
                export_layout(target, "two", path)
            except Killed:
                pass
            else:
                break
        assert_whole(path, tmp_path / "again")
    assert moment > 1
    target.work().close()
    if out != "out.tar":
        export_layout(target, "two", path)
        assert not list(path.glob(".*"))
    assert not list(tmp_path.glob(".*"))


def assert_whole(path: Path, root: Path) -> None:
    """Either there is nothing, or all that the index names is there and sound."""
    if path.name != "there":
        assert not path.exists()
        return
    with checked(root) as again:
        import_layout(again, path)


def test_one_export_at_a_time_writes_there(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path
) -> None:
    def meanwhile(_: Progress) -> None:
        with pytest.raises(Unavailable, match="another export is writing there"):
            export_layout(target, "two", tmp_path / "out")

    export_layout(target, "one", tmp_path / "out", progress=meanwhile)

    assert len(index(tmp_path / "out")) == 1


def test_what_is_no_layout_is_refused(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full/file").write_text("mine")
    (tmp_path / "file").write_text("mine")
    (tmp_path / "there.tar").write_text("mine")

    with pytest.raises(InvalidArgument, match="not an OCI image layout"):
        export_layout(target, "one", tmp_path / "full")
    with pytest.raises(InvalidArgument, match="neither a layout nor"):
        export_layout(target, "one", tmp_path / "file")
    with pytest.raises(AlreadyExists, match="remove it, or give another name"):
        export_layout(target, "one", tmp_path / "there.tar")
    with pytest.raises(NotFound, match="no such directory"):
        export_layout(target, "one", tmp_path / "nowhere/out")
    with pytest.raises(NotFound):
        export_layout(target, "three", tmp_path / "out")
    with pytest.raises(InvalidArgument, match="cannot be printed"):
        export_layout(target, "one", tmp_path / "out", ref="a\nb")

    assert files(tmp_path / "full") == {"file": b"mine"}
    assert (tmp_path / "there.tar").read_text() == "mine"
    assert not (tmp_path / "out").exists()


def test_a_link_to_a_layout_is_that_layout(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path
) -> None:
    (tmp_path / "link").symlink_to("out")

    export_layout(target, "one", tmp_path / "link")
    export_layout(target, "two", tmp_path / "link")

    assert (tmp_path / "link").is_symlink()
    assert len(index(tmp_path / "out")) == 2


def test_an_empty_directory_becomes_a_layout(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path
) -> None:
    (tmp_path / "out").mkdir()

    export_layout(target, "one", tmp_path / "out")

    assert len(index(tmp_path / "out")) == 1


def test_progress_tells_what_is_copied(
    target: BlobSnapshotter, builder: LayoutBuilder, tmp_path: Path
) -> None:
    told: list[Progress] = []

    exported = export_layout(target, "one", tmp_path / "out", progress=told.append)

    assert {event.stage for event in told} == {Stage.COPY}
    last = {event.digest: event for event in told}
    assert all(event.done == event.total for event in last.values())
    assert (
        exported.size
        == sum(e.total for e in last.values()) + index(tmp_path / "out")[0]["size"]
    )
