"""What is damaged, malformed, or hostile in a layout is refused and leaves nothing behind.

Method: a good layout is spoiled in one place; the import must raise the right error, and the
target must then be as empty as before.
"""

from __future__ import annotations

import json
import os
import tarfile
from pathlib import Path
from typing import Any

import pytest
from support import images
from support.images import LayoutBuilder, digest_of, layout, member, symlink, tar
from support.importing import (
    BASE,
    assert_empty,
    content,
    snapshots,
)

from blobmap import BlobSnapshotter, DataLoss, InvalidArgument, NotFound
from blobmap._oci import layout as layouts
from blobmap._oci.manifest import Descriptor
from blobmap.oci import import_layout


def test_a_refused_layer_leaves_nothing_behind(target: BlobSnapshotter, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    evil = tar(symlink("out", str(tmp_path)), member("out/victim", b"evil"))

    with pytest.raises(InvalidArgument, match=r"layer sha256:\w+: member 'out/victim'"):
        import_layout(target, layout(tmp_path / "layout", evil))

    assert victim.read_bytes() == b"precious"
    assert_empty(target)


def test_a_refused_upper_layer_leaves_whole_layers_at_most(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    with pytest.raises(InvalidArgument):
        import_layout(target, layout(tmp_path / "layout", BASE, tar(member("/abs"))))

    assert snapshots(target) <= {digest_of(BASE)}
    assert content(target) <= {digest_of(images.compress(BASE, "gzip"))}
    for name in snapshots(target):
        target.remove(name)
    assert_empty(target)


def test_a_false_diff_id_is_refused(target: BlobSnapshotter, tmp_path: Path) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, rootfs={"type": "layers", "diff_ids": [digest_of(b"x")]}))

    with pytest.raises(DataLoss, match="the image says"):
        import_layout(target, builder.write(tmp_path / "layout"))

    assert_empty(target)


@pytest.mark.parametrize("packing", ["directory", "tar", "gzip"])
@pytest.mark.parametrize("which", ["manifest", "config", "layer"])
@pytest.mark.parametrize("damage", ["flipped", "longer", "missing"])
def test_a_damaged_layout_is_data_loss_and_leaves_nothing_behind(
    target: BlobSnapshotter, tmp_path: Path, packing: str, which: str, damage: str
) -> None:
    builder = LayoutBuilder()
    entry = builder.image(BASE)
    builder.put(entry)
    manifest = json.loads(builder.blobs[entry["digest"]])
    part = {"manifest": entry, "config": manifest["config"], "layer": manifest["layers"][0]}
    digest = part[which]["digest"]
    data = builder.blobs.pop(digest)
    if damage != "missing":
        changed = data + b"x" if damage == "longer" else bytes([data[0] ^ 1]) + data[1:]
        builder.blobs[digest] = changed

    with pytest.raises(DataLoss, match=digest):
        import_layout(target, builder.write(tmp_path / "layout", packing))

    assert_empty(target)


@pytest.mark.parametrize("packing", ["directory", "gzip"])
def test_a_false_size_is_data_loss_even_of_a_blob_that_is_there(
    target: BlobSnapshotter, tmp_path: Path, packing: str
) -> None:
    builder = LayoutBuilder()
    entry = builder.image(BASE)
    builder.put({**entry, "size": entry["size"] + 1})

    with pytest.raises(DataLoss, match=r"where its descriptor says"):
        import_layout(target, builder.write(tmp_path / "layout", packing))

    assert_empty(target)


@pytest.mark.parametrize("packing", ["tar", "gzip", "zstd"])
def test_a_packed_layout_that_is_cut_is_data_loss_and_leaves_nothing_behind(
    target: BlobSnapshotter, tmp_path: Path, packing: str
) -> None:
    path = layout(
        tmp_path / "layout", (tar(member("big", os.urandom(1 << 20))), ""), how=packing
    )
    data = path.read_bytes()

    for size in (len(data) // 2, len(data) - len(data) // 8):
        path.write_bytes(data[:size])
        with pytest.raises((DataLoss, InvalidArgument)):
            import_layout(target, path)
        assert_empty(target)


def with_index(builder: LayoutBuilder, **changes: Any) -> None:
    builder.manifests[0] = {**builder.manifests[0], **changes}


def with_manifest(builder: LayoutBuilder, **changes: Any) -> None:
    manifest = json.loads(builder.blobs[builder.manifests[0]["digest"]])
    builder.manifests = [builder.add_json({**manifest, **changes}, images.MANIFEST)]


REFUSED = {
    "no media type": lambda b: with_index(b, mediaType=None),
    "unknown media type": lambda b: with_index(b, mediaType="text/plain"),
    "a digest with a path": lambda b: with_index(b, digest="sha256:../../etc/passwd"),
    "an upper-case digest": lambda b: with_index(b, digest="sha256:" + "A" * 64),
    "another algorithm": lambda b: with_index(b, digest="md5:" + "a" * 32),
    "a digest that is no string": lambda b: with_index(b, digest=7),
    "a negative size": lambda b: with_index(b, size=-1),
    "a size that is true": lambda b: with_index(b, size=True),
    "a size that is text": lambda b: with_index(b, size="12"),
    "annotations in a list": lambda b: with_index(b, annotations=[1]),
    "an annotation that is no string": lambda b: with_index(b, annotations={"a": 1}),
    "a name too long to be recorded": lambda b: with_index(
        b, annotations={images.REF_NAME: "n" * 5000}
    ),
    "too many items": lambda b: b.manifests.extend(b.manifests * (1 << 14)),
    "a name with escapes": lambda b: with_index(b, annotations={images.REF_NAME: "\x1b[2J"}),
    "a platform that is text": lambda b: with_index(b, platform="linux"),
    "an empty index": lambda b: b.manifests.clear(),
    "an artifact": lambda b: with_manifest(b, config=b.add(b"{}", "application/x.thing")),
    "no config": lambda b: with_manifest(b, config=None),
    "no layers": lambda b: with_manifest(b, layers=[]),
    "layers in an object": lambda b: with_manifest(b, layers={}),
    "an encrypted layer": lambda b: with_manifest(
        b, layers=[b.add(b"x", images.LAYER + "+gzip+encrypted")]
    ),
    "too many layers": lambda b: with_manifest(b, layers=[b.add(b"x", images.LAYER)] * 513),
    "fewer layers than diff IDs": lambda b: with_manifest(
        b, config=b.add_json({"rootfs": {"diff_ids": [digest_of(b"")] * 2}}, images.CONFIG)
    ),
    "no rootfs": lambda b: with_manifest(b, config=b.add_json({}, images.CONFIG)),
    "a diff ID that is none": lambda b: with_manifest(
        b, config=b.add_json({"rootfs": {"diff_ids": ["x"]}}, images.CONFIG)
    ),
    "brackets without end": lambda b: b.put(b.add(b"[" * 100_000, images.MANIFEST)),
    "a number without end": lambda b: b.put(b.add(b"9" * 100_000, images.MANIFEST)),
    "no JSON": lambda b: b.put(b.add(b"\xff\xfe", images.MANIFEST)),
    "a huge document": lambda b: b.put(b.add(b" " * (9 << 20), images.MANIFEST)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_malformed_document_is_refused_and_leaves_nothing_behind(
    target: BlobSnapshotter, tmp_path: Path, name: str
) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE))
    REFUSED[name](builder)

    with pytest.raises(InvalidArgument):
        import_layout(target, builder.write(tmp_path / "layout"))

    for image in list(target.images()):
        # One that came before the bad one in the index stays.
        target.remove_image(image.name)
    assert_empty(target)


def test_what_is_no_layout_is_refused_with_what_to_do(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    (tmp_path / "docker").mkdir()
    (tmp_path / "docker/manifest.json").write_text("[]")
    (tmp_path / "docker.tar").write_bytes(tar(member("manifest.json", b"[]")))
    (tmp_path / "other.tar").write_bytes(tar(member("a")))
    layout(tmp_path / "future", BASE)
    (tmp_path / "future/oci-layout").write_text('{"imageLayoutVersion": "2.0.0"}')
    expected = {
        "empty": "it has no oci-layout; make one with",
        "text": "neither a directory nor a tar; make one with",
        "docker": "another form.*convert it: skopeo copy dir:",
        "docker.tar": "another form.*convert it: skopeo copy docker-archive:",
        "other.tar": "it has no oci-layout",
        "future": "'2.0.0' is not known",
        "pipe": "neither a directory nor a regular file; make one with",
    }

    os.mkfifo(tmp_path / "pipe")

    for name, message in expected.items():
        with pytest.raises(InvalidArgument, match=message):
            import_layout(target, tmp_path / name)
    with pytest.raises(NotFound, match="no such file"):
        import_layout(target, tmp_path / "missing")


def test_a_fifo_in_a_layout_is_refused_and_not_waited_for(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    path = layout(tmp_path / "layout", BASE)
    (path / "index.json").unlink()
    os.mkfifo(path / "index.json")

    with pytest.raises(InvalidArgument, match="not a regular file"):
        import_layout(target, path)


@pytest.mark.parametrize("size", [2**62, 2**70])
def test_a_size_beyond_any_file_in_a_plain_tar_is_data_loss(
    target: BlobSnapshotter, tmp_path: Path, size: int
) -> None:
    junk = member("junk")[0]
    junk.size = size
    path = tmp_path / "layout.tar"
    path.write_bytes(junk.tobuf(tarfile.GNU_FORMAT) + bytes(1 << 18))

    with pytest.raises(DataLoss, match="a false size"):
        import_layout(target, path)

    assert_empty(target)


def test_a_name_too_long_is_refused_before_any_layer_is_read(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, name="n" * 5000))

    with pytest.raises(InvalidArgument, match="larger than the limit"):
        import_layout(target, builder.write(tmp_path / "layout"))

    assert_empty(target)
    assert not snapshots(target)


@pytest.mark.parametrize("named", [True, False])
def test_an_index_listed_by_many_is_read_once(
    target: BlobSnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, named: bool
) -> None:
    builder = LayoutBuilder()
    nested = builder.add_json({"manifests": [builder.image(BASE, name=None)]}, images.INDEX)
    for i in range(50):
        names = {"annotations": {images.REF_NAME: f"n{i}"}} if named else {}
        builder.put({**nested, **names})
    path = builder.write(tmp_path / "layout")
    read: list[str] = []
    parse_index = layouts.parse_index

    def counted(data: bytes, *, name: str) -> tuple[Descriptor, ...]:
        read.append(name)
        return parse_index(data, name=name)

    monkeypatch.setattr(layouts, "parse_index", counted)
    imported = import_layout(target, path)

    assert len(imported) == (50 if named else 1)
    assert len(read) == 2


def test_indexes_that_list_too_much_together_are_refused(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    builder = LayoutBuilder()
    image = builder.image(BASE, name=None)
    nested = builder.add_json({"manifests": [image] * 1000}, images.INDEX)
    for i in range(200):
        builder.put({**nested, "annotations": {images.REF_NAME: f"n{i}"}})

    with pytest.raises(InvalidArgument, match="list more than"):
        import_layout(target, builder.write(tmp_path / "layout"))

    assert_empty(target)
