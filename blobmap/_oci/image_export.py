"""Images and snapshots into OCI image layouts.

An image goes out as it came in: its manifest, its config, and its layers are blobs, and are
copied byte for byte, so that all digests are the same. A layer that is here under another
compression only, because another image brought it first, has another digest than the
manifest says. That is refused, unless the caller wants the manifest rewritten for what is
here. A layout is never written that lacks a blob it names.

A snapshot goes out as an image of all it is made on: each snapshot of its chain that stands
for no blob gets one (`layer_export`), and a config and a manifest are made. Nothing in them is
of this moment: they have a time only if the caller gives it.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from blobmap import digest as digests
from blobmap._map.schema import IMAGE_SIZE_MAX, check_name
from blobmap._oci.compression import compression_of
from blobmap._oci.compressor import layer_type
from blobmap._oci.ingest import FromStart, chunks_of
from blobmap._oci.layer import check_layer, diff_id_of
from blobmap._oci.layer_export import Packing, drop_dead, have_blob
from blobmap._oci.layout_files import read_all
from blobmap._oci.layout_writer import REF_NAME, Part, document, write_layout
from blobmap._oci.manifest import LAYER_COUNT_MAX, parse_diff_ids, parse_manifest
from blobmap._oci.platforms import host
from blobmap._oci.progress import Progress, Stage, ignore
from blobmap.errors import DataLoss, FailedPrecondition, InvalidArgument, NotFound
from blobmap.verification import digest_of

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping

    from blobmap._map.work import Work
    from blobmap._oci.layout_writer import Json, Sink
    from blobmap._oci.manifest import Manifest
    from blobmap.contracts import Blob, ContentReader, Image
    from blobmap.snapshotter import BlobSnapshotter

_MANIFEST: Final = "application/vnd.oci.image.manifest.v1+json"
_CONFIG: Final = "application/vnd.oci.image.config.v1+json"
_MAGIC_SIZE: Final = 4


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export wrote.

    Attributes:
        name: The image's name in the layout, or "" for none.
        digest: The digest of its manifest.
        layer_count: How many layers it has.
        size: The bytes of all its blobs.
    """

    name: str
    digest: str
    layer_count: int
    size: int


def export_layout(
    target: BlobSnapshotter,
    image_name: str,
    path: str | os.PathLike[str] | Sink,
    *,
    ref: str | None = None,
    rewrite: bool = False,
    progress: Callable[[Progress], None] | None = None,
) -> Exported:
    """Write an image, with the digests that it came with, into an OCI image layout.

    Args:
        target: Whose image.
        image_name: The image.
        path: A layout, which gets one image more; or where there is nothing yet, for a
            directory, or, if it ends in ".tar", for a tar; or what takes the bytes of a tar.
        ref: The image's name there. Without it, its name here; none if that is its digest.
        rewrite: Whether to write a new manifest where a layer is here under another
            compression only. The image then has another digest.
        progress: Called, in this thread, as bytes are done.

    Raises:
        NotFound: There is no such image, or no directory that is to hold the layout.
        AlreadyExists: `path` is a tar that exists.
        FailedPrecondition: A layer is here under another compression only, and not `rewrite`;
            or the image was recorded with other snapshots than its manifest has layers.
        InvalidArgument: What is at `path` is no layout; or the name cannot be one.
        DataLoss: A blob is missing or damaged; nothing is left at `path`.
        Unavailable: Another export is writing there.

    Cost: a pass over the image's blobs, and a sync of each.
    """
    image = target.get_image(image_name)
    name = ref if ref is not None else "" if image.name == image.digest else image.name
    _check_ref(name)
    with target.work() as work:
        blobs = _Blobs(target, work, progress or ignore)
        data = blobs.read(image.digest)
        manifest = parse_manifest(data, name=f"image {image.name}: {image.digest}")
        replaced = _replaced_layers(target, blobs, image, manifest)
        media_type = json.loads(data).get("mediaType", _MANIFEST)
        if replaced:
            if not rewrite:
                digest, blob = next(iter(replaced.items()))
                raise FailedPrecondition(
                    f"image {image.name}: layer {digest} is here only as {blob.digest}, the "
                    "same compressed otherwise; have the manifest rewritten (--rewrite), or "
                    "import the image into a root of its own"
                )
            data, media_type = _rewritten(blobs, data, manifest, replaced), _MANIFEST
        layers = [replaced.get(item.digest, item) for item in manifest.layers]
        blobs.add_bytes(data)
        for item in (manifest.config, *layers):
            blobs.add(item.digest, item.size)
        return blobs.write(path, data, media_type, name=name, layer_count=len(layers))


def export_snapshot(
    target: BlobSnapshotter,
    key: str,
    path: str | os.PathLike[str] | Sink,
    *,
    name: str,
    config: Mapping[str, Any] | None = None,
    created: str | None = None,
    compression: str = "gzip",
    level: int | None = None,
    clamp_mtime: int | None = None,
    progress: Callable[[Progress], None] | None = None,
) -> Exported:
    """Write a committed snapshot, with all it is made on, as an image into a layout.

    Snapshots of the chain that stand for no blob stand for the layer made of them afterwards.
    The same chain and the same arguments give the same image.

    Args:
        target: Whose snapshot.
        key: The snapshot.
        path: As for `export_layout`.
        name: The image's name there.
        config: What the image's config says beside its layers, such as {"config": {"Cmd":
            ["/bin/sh"]}}. Without "os" and "architecture" those of this machine's images.
        created: When the image was made, in RFC 3339; without it that is not told.
        compression: As for `export_layer`, and so are the next two.
        level: See there.
        clamp_mtime: See there.
        progress: Called, in this thread, as bytes are done.

    Raises:
        As `export_layer` and `export_layout` do.

    Cost: as `export_layer` for each layer that is made; then as `export_layout`.
    """
    _check_ref(name)
    packing = Packing(compression, level, clamp_mtime)
    report = progress or ignore
    drop_dead(target.content)
    with target.work() as work:
        blobs = _Blobs(target, work, report)
        layers: list[tuple[str, Blob]] = []
        for snapshot in _chain(target, key):
            blob = have_blob(target, work, snapshot, packing, replace=False, progress=report)
            layers.append((blob.diff_id or blobs.diff_id(blob.digest), blob))
        platform = host()
        about: Json = {
            "os": platform.os,
            "architecture": platform.architecture,
            **(config or {}),
            "rootfs": {"type": "layers", "diff_ids": [diff_id for diff_id, _ in layers]},
        }
        if created is not None:
            about["created"] = created
        config_data = document(about)
        manifest: Json = {
            "schemaVersion": 2,
            "mediaType": _MANIFEST,
            "config": _descriptor(_CONFIG, config_data),
            "layers": [blobs.layer(blob.digest, blob.size) for _, blob in layers],
        }
        data = document(manifest)
        blobs.add_bytes(config_data)
        blobs.add_bytes(data)
        for _, blob in layers:
            blobs.add(blob.digest, blob.size)
        return blobs.write(path, data, _MANIFEST, name=name, layer_count=len(layers))


class _Blobs:
    """The blobs of one image, which are held until they are written."""

    def __init__(
        self, target: BlobSnapshotter, work: Work, report: Callable[[Progress], None]
    ) -> None:
        self._content = target.content
        self._work = work
        self._report = report
        self._parts: dict[str, Part] = {}

    def read(self, digest: str) -> bytes:
        """Return a document, which is what its digest says."""
        self._work.hold(digest)
        try:
            with self._content.reader_at(digest) as reader:
                found = digest_of(reader, like=digest)
                data = read_all(reader, f"blob {digest}")
        except NotFound as error:
            raise _missing(digest) from error
        if found != digest:
            raise DataLoss(f"blob {digest} is damaged: its bytes are {found}")
        return data

    def has(self, digest: str, size: int) -> bool:
        """Return whether the blob is there, and hold it."""
        self._work.hold(digest)
        try:
            return self._content.info(digest).size == size
        except NotFound:
            return False

    def layer(self, digest: str, size: int) -> Json:
        """Return the descriptor of a layer, its media type told by its first bytes."""
        with self._content.reader_at(digest) as reader:
            compression = compression_of(reader.read_at(0, _MAGIC_SIZE))
        return {"mediaType": layer_type(compression), "digest": digest, "size": size}

    def diff_id(self, digest: str) -> str:
        """Return the digest of the uncompressed layer. Cost: a pass over it."""
        with self._content.reader_at(digest) as reader:
            return diff_id_of(self._source(digest, reader), name=f"layer {digest}")

    def check(self, digest: str, diff_id: str) -> None:
        """Check that a layer is what its config says. Cost: a pass over it."""
        with self._content.reader_at(digest) as reader:
            check_layer(self._source(digest, reader), diff_id, name=f"layer {digest}")

    def add(self, digest: str, size: int) -> None:
        """Add a blob of the content store to what is written."""
        if not self.has(digest, size):
            raise _missing(digest)
        self._parts[digest] = Part(digest, size, lambda: self._chunks(digest))

    def add_bytes(self, data: bytes) -> None:
        """Add a document to what is written."""
        digest = digests.of(data)
        self._parts[digest] = Part(digest, len(data), lambda: [data])

    def write(
        self,
        path: str | os.PathLike[str] | Sink,
        manifest: bytes,
        media_type: str,
        *,
        name: str,
        layer_count: int,
    ) -> Exported:
        """Write all that was added, as the image of this manifest."""
        descriptor = _descriptor(media_type, manifest)
        if name:
            descriptor["annotations"] = {REF_NAME: name}
        parts = list(self._parts.values())
        write_layout(path, descriptor, parts)
        size = sum(part.size for part in parts)
        return Exported(name, descriptor["digest"], layer_count, size)

    def _source(self, digest: str, reader: ContentReader) -> FromStart:
        size = reader.size
        return FromStart(
            reader, lambda done: self._report(Progress(Stage.CHECK, digest, done, size))
        )

    def _chunks(self, digest: str) -> Iterator[bytes]:
        with self._content.reader_at(digest) as reader:
            done = 0
            for data in chunks_of(reader)(0):
                yield data
                done += len(data)
                self._report(Progress(Stage.COPY, digest, done, reader.size))


def _replaced_layers(
    target: BlobSnapshotter, blobs: _Blobs, image: Image, manifest: Manifest
) -> dict[str, Blob]:
    """Return what is here in place of the manifest's layers that are not, by their digests."""
    diff_ids = parse_diff_ids(blobs.read(manifest.config.digest), name=f"image {image.name}")
    if not len(image.snapshots) == len(manifest.layers) == len(diff_ids):
        raise FailedPrecondition(
            f"image {image.name}: {len(image.snapshots)} snapshots, {len(manifest.layers)} "
            f"layers, {len(diff_ids)} diff IDs; it was not recorded by an import"
        )
    replaced: dict[str, Blob] = {}
    for layer, snapshot, diff_id in zip(
        manifest.layers, image.snapshots, diff_ids, strict=True
    ):
        if blobs.has(layer.digest, layer.size):
            continue
        blob = target.get_blob(snapshot)
        if blob is None or not blobs.has(blob.digest, blob.size):
            raise _missing(layer.digest)
        if blob.diff_id != diff_id:
            # Nobody has said what is in it.
            blobs.check(blob.digest, diff_id)
        replaced[layer.digest] = blob
    return replaced


def _rewritten(
    blobs: _Blobs, data: bytes, manifest: Manifest, replaced: Mapping[str, Blob]
) -> bytes:
    """Return the manifest with the layers that are here, as OCI's types call them."""
    new = json.loads(data)
    new["mediaType"] = _MANIFEST
    new["config"]["mediaType"] = _CONFIG
    for item, layer in zip(new["layers"], manifest.layers, strict=True):
        there = replaced.get(layer.digest, layer)
        item.update(blobs.layer(there.digest, there.size))
        item.pop("urls", None)
    return document(new)


def _chain(target: BlobSnapshotter, key: str) -> list[str]:
    """Return the snapshot with all that it is made on, the base first."""
    chain = [key]
    while parent := target.stat(chain[-1]).parent:
        chain.append(parent)
    if len(chain) > LAYER_COUNT_MAX:
        raise FailedPrecondition(
            f"snapshot {key!r} is made of {len(chain)} layers; an image has at most "
            f"{LAYER_COUNT_MAX}"
        )
    return chain[::-1]


def _descriptor(media_type: str, data: bytes) -> Json:
    return {"mediaType": media_type, "digest": digests.of(data), "size": len(data)}


def _check_ref(name: str) -> None:
    if not name.isprintable():
        raise InvalidArgument(f"the name {name!r} cannot be printed; give another as ref")
    if name:
        check_name("image", name, IMAGE_SIZE_MAX)


def _missing(digest: str) -> DataLoss:
    return DataLoss(f"blob {digest} is missing; import the image that it is of again")
