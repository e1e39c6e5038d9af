"""A layout comes in whole: blobs, snapshots, mappings, images; or it leaves nothing behind.

Method: layouts made in memory are imported into the embedded default, of either kind; the
state afterwards is read back through the public interface and checked against what the layout
holds.
"""

from __future__ import annotations

import logging
from pathlib import Path

import pytest
from support import images
from support.images import LayoutBuilder, digest_of, directory, layout, member, tar
from support.importing import (
    BASE,
    SECOND,
    THIRD,
    assert_empty,
    content,
    names,
    snapshots,
)

import blobmap
from blobmap import BlobSnapshotter, DataLoss, InvalidArgument
from blobmap._oci.manifest import chain_ids
from blobmap.oci import Progress, Stage, import_layout


@pytest.mark.parametrize("how", ["directory", "tar", "gzip", "zstd"])
def test_every_packing_of_a_layout_gives_the_same(
    target: BlobSnapshotter, tmp_path: Path, how: str
) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, (SECOND, "zstd"), (THIRD, "")))
    path = builder.write(tmp_path / "layout", how)

    (image,) = import_layout(target, path)

    diff_ids = [digest_of(data) for data in (BASE, SECOND, THIRD)]
    chain = chain_ids(diff_ids)
    assert image.snapshots == chain
    assert (image.name, image.digest) == ("latest", builder.manifests[0]["digest"])
    assert list(target.images()) == [image]
    assert content(target) == builder.blobs.keys()
    assert names(target, chain[-1]) == {"etc", "etc/b", "l", "c"}
    blobs = [target.get_blob(name) for name in chain]
    assert [blob.diff_id for blob in blobs if blob] == diff_ids
    assert [blob.size for blob in blobs if blob] == [
        len(builder.blobs[blob.digest]) for blob in blobs if blob
    ]
    assert [target.stat(name).parent for name in chain] == ["", *chain[:-1]]


def test_a_chain_id_is_of_the_layer_and_all_below_it() -> None:
    a, b, c = (digest_of(data) for data in (b"a", b"b", b"c"))

    assert chain_ids([a, b, c]) == (
        a,
        ab := digest_of(f"{a} {b}".encode()),
        digest_of(f"{ab} {c}".encode()),
    )


def test_a_second_import_changes_nothing(target: BlobSnapshotter, tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", BASE, SECOND)
    first = import_layout(target, path)
    before = list(target.walk()), content(target)

    assert import_layout(target, path) == first
    assert (list(target.walk()), content(target)) == before


def test_everything_survives_a_restart_and_goes_with_its_last_holder(tmp_path: Path) -> None:
    one = LayoutBuilder()
    one.put(one.image(BASE, SECOND, name="one"))
    two = LayoutBuilder()
    two.put(two.image(BASE, THIRD, name="two"))
    with blobmap.open(tmp_path / "root") as target:
        import_layout(target, one.write(tmp_path / "one"))
        import_layout(target, two.write(tmp_path / "two"))

    with blobmap.open(tmp_path / "root") as target:
        assert content(target) == one.blobs.keys() | two.blobs.keys()
        target.remove_image("one")
        assert content(target) == two.blobs.keys()
        assert len(snapshots(target)) == 2
        target.remove_image("two")
        assert_empty(target)


def test_an_image_of_the_same_name_is_replaced(target: BlobSnapshotter, tmp_path: Path) -> None:
    import_layout(target, layout(tmp_path / "one", BASE, SECOND))
    new = LayoutBuilder()
    new.put(new.image(BASE, THIRD))

    import_layout(target, new.write(tmp_path / "two"))

    assert content(target) == new.blobs.keys()
    assert len(list(target.images())) == 1


def test_a_layer_used_twice_in_an_image_is_one_blob(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    (image,) = import_layout(target, layout(tmp_path / "layout", BASE, THIRD, THIRD))

    assert len(set(image.snapshots)) == 3
    assert target.references(digest_of(images.compress(THIRD, "gzip"))) == 2


def test_the_same_layers_compressed_otherwise_keep_their_first_blobs(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    first = LayoutBuilder()
    first.put(first.image((BASE, "gzip"), name="first"))
    import_layout(target, first.write(tmp_path / "first"))

    for how, packing in (("zstd", "directory"), ("", "gzip")):
        other = LayoutBuilder()
        other.put(other.image((BASE, how), name=f"other{how}"))
        import_layout(target, other.write(tmp_path / f"other{how}", packing))

    (snapshot,) = target.walk()
    assert snapshot.blob is not None
    assert snapshot.blob.digest == digest_of(images.compress(BASE, "gzip"))
    others = {digest_of(images.compress(BASE, how)) for how in ("zstd", "")}
    assert not others & content(target)


@pytest.mark.parametrize("packing", ["directory", "gzip"])
def test_a_blob_that_no_image_uses_is_not_kept(
    target: BlobSnapshotter, tmp_path: Path, packing: str
) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE))
    unused = builder.add(b"unused", "text/plain")["digest"]

    import_layout(target, builder.write(tmp_path / "layout", packing))

    assert content(target) == builder.blobs.keys() - {unused}


def test_a_blob_that_was_there_for_others_is_not_deleted_by_a_failed_import(
    tmp_path: Path,
) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, tar(member("../evil"))))
    path = builder.write(tmp_path / "layout")
    layer = images.compress(BASE, "gzip")
    with blobmap.open(tmp_path / "root") as target:
        with target.content.writer("mine") as writer:
            writer.write(layer)
            writer.commit()

        with pytest.raises(InvalidArgument, match="evil"):
            import_layout(target, path)

        assert digest_of(layer) in content(target)


def test_a_committed_snapshot_without_a_blob_is_mapped_after_its_diff_id_was_checked(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    path = layout(tmp_path / "layout", BASE)
    (image,) = import_layout(target, path)
    target.unset_blob(image.snapshots[0])
    stages: set[Stage] = set()

    import_layout(target, path, progress=lambda event: stages.add(event.stage))

    assert stages == {Stage.INGEST, Stage.CHECK}
    assert target.get_blob(image.snapshots[0]) is not None


def test_a_snapshot_there_without_a_blob_is_not_mapped_to_a_false_one(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    true = digest_of(BASE)
    target.prepare("active")
    target.commit(true, "active")
    builder = LayoutBuilder()
    config = {"rootfs": {"type": "layers", "diff_ids": [true]}}
    builder.put(builder.image(THIRD, **config))

    with pytest.raises(DataLoss, match="uncompressed layer"):
        import_layout(target, builder.write(tmp_path / "layout"))

    assert target.get_blob(true) is None
    assert content(target) == set()


def test_a_lost_blob_comes_back_with_a_second_import(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    path = layout(tmp_path / "layout", BASE, SECOND)
    (image,) = import_layout(target, path)
    lost = content(target) - {image.digest}
    for digest in lost:
        target.content.delete(digest)

    import_layout(target, path)

    assert content(target) >= lost


def test_docker_media_types_are_read(target: BlobSnapshotter, tmp_path: Path) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, SECOND, docker=True))

    assert len(import_layout(target, builder.write(tmp_path / "layout"))[0].snapshots) == 2


def test_the_bytes_tell_the_compression_and_not_the_media_type(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    builder = LayoutBuilder()
    manifest = builder.image((BASE, ""), docker=True)
    assert images.DOCKER_LAYER.endswith("gzip")
    builder.put(manifest)

    import_layout(target, builder.write(tmp_path / "layout"))

    assert len(snapshots(target)) == 1


def test_progress_covers_every_byte_of_every_blob(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    events: list[Progress] = []
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, SECOND))
    path = builder.write(tmp_path / "layout")

    import_layout(target, path, progress=events.append)

    last = {(event.stage, event.digest): event for event in events}
    ingested = {digest for stage, digest in last if stage is Stage.INGEST}
    assert ingested == builder.blobs.keys()
    assert sum(stage is Stage.APPLY for stage, _ in last) == 2
    assert all(event.done == event.total for event in last.values())
    assert {event.total for event in last.values()} <= {len(b) for b in builder.blobs.values()}


def test_what_is_left_out_is_logged(
    target: BlobSnapshotter, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = layout(tmp_path / "layout", tar(directory(".wh..wh.plnk"), member("a")))

    with caplog.at_level(logging.WARNING, "blobmap"):
        import_layout(target, path)

    assert "left out, as not allowed here: AUFS bookkeeping file, 1 times" in caplog.text
