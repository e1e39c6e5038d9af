"""OCI image layouts in and out; in: blobs ingested, layers applied, snapshots mapped.

What goes out is in `_oci.layer_export` and `_oci.image_export`, and has its names here. This
module is what comes in. For each image of the layout:

    config     --ingest-->  content
    layer n    --ingest-->  content  --apply on chain n-1-->  snapshot chain n  --map--> layer n
    manifest   --ingest-->  content
    the image's name  -->  its snapshots, its manifest, its config

Snapshots are named by chain ID, so images share what they have in common, and a layer that
is there already is not applied again. One that is there and stands for no blob (an import
died before it said so) is mapped only after the blob's diff ID was checked. One that stands
for another blob, the same layer compressed otherwise, keeps it.

The whole import is one piece of work (`BlobSnapshotter.work`): every blob is held before it
is ingested and every snapshot is scratch until it is committed, so whatever ends an import
leaves nothing behind but whole layers, and the unfinished ingests that the next import of the
same blobs goes on from.

Source: containerd's import, unpacker, and `rootfs.ApplyLayers`.
"""

from __future__ import annotations

import logging
import os
import secrets
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blobmap._oci.compressor import COMPRESSIONS
from blobmap._oci.image_export import Exported, export_layout, export_snapshot
from blobmap._oci.ingest import FromStart, chunks_of, drop_stale, ingest
from blobmap._oci.layer import apply_layer, check_layer
from blobmap._oci.layer_export import drop_dead, export_layer
from blobmap._oci.layout import Layout
from blobmap._oci.layout_files import is_single_pass
from blobmap._oci.layout_writer import Sink
from blobmap._oci.manifest import chain_ids, parse_diff_ids, parse_manifest
from blobmap._oci.progress import Progress, Stage, ignore
from blobmap._oci.tree import PATH_SIZE_MAX
from blobmap.contracts import Image, Kind
from blobmap.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from blobmap.local.mounting import held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blobmap._map.work import Work
    from blobmap._oci.manifest import Descriptor
    from blobmap.contracts import Blob, ContentReader, Mount
    from blobmap.snapshotter import BlobSnapshotter

__all__ = [
    "COMPRESSIONS",
    "Exported",
    "Progress",
    "Sink",
    "Stage",
    "export_layer",
    "export_layout",
    "export_snapshot",
    "import_layout",
    "probe_layout",
]

# How often to begin again when others remove snapshots that the import builds on.
_ATTEMPTS_MAX: Final = 5

_LOG: Final = logging.getLogger("blobmap")


def import_layout(
    target: BlobSnapshotter,
    path: str | os.PathLike[str],
    *,
    progress: Callable[[Progress], None] | None = None,
    ref: str | None = None,
) -> list[Image]:
    """Import the images of an OCI image layout.

    An image is named by its annotation in the layout's index; without one, by its digest. It
    replaces an image of that name. Of an image for several platforms, the one for this
    machine is taken, or the only one.

    What privileges do not allow (owners, devices, attributes) is left out, and a warning that
    says so is logged to "blobmap".

    Args:
        target: Where to. Its snapshotter gives one bind or overlay for each snapshot.
        path: The layout: a directory, or a tar, plain, gzip, or zstd.
        progress: Called, in this thread, as bytes are done.
        ref: Import only the image of this name; or, if the layout has one image and that has
            no name, import it under this one.

    Returns:
        The images, in the order of the index. When one fails, those before it stay.

    Raises:
        NotFound: There is no such path, no image of that name, or none for this machine.
        InvalidArgument: It is no layout of images, or a layer has a member that is refused.
        DataLoss: The layout lacks bytes, or they are not what their digest or diff ID says.
        FailedPrecondition: A snapshot of a layer's name is not that layer's; remove it.
        Unavailable: Another import of a blob is stuck.
        NotImplementedHere: A layer is zstd, and nothing here reads that; or the snapshotter
            gives other mounts, or overlays that this process may not mount.

    Cost: one pass to ingest and one to apply each layer that is not there yet.
    """
    report = progress if progress is not None else ignore
    drop_stale(target.content)
    drop_dead(target.content)
    with target.work() as work:
        blobs = _Blobs(target, work, report)
        with Layout(path, blobs) as layout:
            importer = _Importer(target, layout, blobs, work)
            return [importer.run(name, manifest) for name, manifest in layout.images(ref)]


def probe_layout(path: str | os.PathLike[str], *, ref: str | None = None) -> None:
    """Raise what `import_layout` would about the layout itself, before there is a target.

    Of a compressed tar only the start is looked at, for it can be read only as a whole.

    Cost: as for opening the layout; no layer is read.
    """
    if not is_single_pass(Path(path)):
        with Layout(path, None) as layout:
            layout.images(ref)


class _Blobs:
    """The content store as an import uses it: a blob is held first, then ingested once."""

    def __init__(
        self, target: BlobSnapshotter, work: Work, report: Callable[[Progress], None]
    ) -> None:
        self._content = target.content
        self._work = work
        self._report = report
        self._held: set[str] = set()

    def hold(self, digest: str) -> None:
        """Keep the blob, there or not, until the import ends."""
        if digest not in self._held:
            self._work.hold(digest)
            self._held.add(digest)

    def keep(self, digest: str, size: int, chunks: Iterator[bytes]) -> None:
        """Take a blob that passes once; as `layout_files.Store`."""
        self.hold(digest)
        report = self._reporter(Stage.INGEST, digest, size)
        ingest(self._content, digest, size, lambda _: chunks, resumable=False, report=report)

    def open(self, digest: str) -> ContentReader:
        """Open a blob that is there."""
        return self._content.reader_at(digest)

    def has(self, blob: Blob) -> bool:
        """Return whether the blob is there, in the size it was recorded with."""
        try:
            return self._content.info(blob.digest).size == blob.size
        except NotFound:
            return False

    def ingest(self, layout: Layout, blob: Descriptor) -> None:
        """Have the layout's blob in the content store."""
        self.hold(blob.digest)
        report = self._reporter(Stage.INGEST, blob.digest, blob.size)
        with layout.open(blob) as reader:
            ingest(self._content, blob.digest, blob.size, chunks_of(reader), report=report)

    def source(self, reader: ContentReader, stage: Stage, digest: str) -> FromStart:
        """Return the blob's bytes from first to last, reporting as they are read."""
        return FromStart(reader, self._reporter(stage, digest, reader.size))

    def _reporter(self, stage: Stage, digest: str, total: int) -> Callable[[int], None]:
        return lambda done: self._report(Progress(stage, digest, done, total))


@dataclass(frozen=True, slots=True)
class _Layer:
    """One layer of an image, and the snapshot that it makes."""

    blob: Descriptor
    diff_id: str
    parent: str
    snapshot: str


class _Importer:
    """Imports the images of one layout, one after the other."""

    def __init__(
        self, target: BlobSnapshotter, layout: Layout, blobs: _Blobs, work: Work
    ) -> None:
        self._target = target
        self._layout = layout
        self._blobs = blobs
        self._work = work

    def run(self, name: str, descriptor: Descriptor) -> Image:
        """Import one image."""
        data = self._layout.read(descriptor)
        manifest = parse_manifest(data, name=f"{self._layout.name}: {descriptor.digest}")
        layers = self._layers(manifest.config, manifest.layers)
        self._blobs.ingest(self._layout, manifest.config)
        image = Image(
            name,
            descriptor.digest,
            (descriptor.digest, manifest.config.digest),
            tuple(layer.snapshot for layer in layers),
            datetime.now(UTC),
        )
        attempts_left = _ATTEMPTS_MAX
        while True:
            attempts_left -= 1
            try:
                for layer in layers:
                    self._have(layer)
                self._blobs.ingest(self._layout, descriptor)
                return self._record(image)
            except NotFound:
                # Blobs are held, so it was a snapshot: somebody removed the image it was of.
                if not attempts_left:
                    raise

    def _layers(self, config: Descriptor, blobs: Sequence[Descriptor]) -> list[_Layer]:
        place = f"{self._layout.name}: {config.digest}"
        diff_ids = parse_diff_ids(self._layout.read(config), name=place)
        if len(diff_ids) != len(blobs):
            raise InvalidArgument(
                f"{place}: the config lists {len(diff_ids)} layers, the manifest {len(blobs)}"
            )
        names = chain_ids(diff_ids)
        return [
            _Layer(*parts)
            for parts in zip(blobs, diff_ids, ("", *names[:-1]), names, strict=True)
        ]

    def _have(self, layer: _Layer) -> None:
        """Have the layer's snapshot, standing for the layer's blob or one as good."""
        checked = False
        try:
            info = self._target.stat(layer.snapshot)
        except NotFound:
            self._blobs.ingest(self._layout, layer.blob)
            self._apply(layer)
            checked = True
            info = self._target.stat(layer.snapshot)
        if info.kind is not Kind.COMMITTED or info.parent != layer.parent:
            raise FailedPrecondition(
                f"snapshot {layer.snapshot} is not what its name says: it is {info.kind.value} "
                f"on {info.parent!r}, not committed on {layer.parent!r}; remove it"
            )
        if info.blob is None or not self._blobs.has(info.blob):
            self._map(layer, info.blob, checked=checked)

    def _map(self, layer: _Layer, lost: Blob | None, *, checked: bool) -> None:
        self._blobs.ingest(self._layout, layer.blob)
        if not checked:
            with self._blobs.open(layer.blob.digest) as reader:
                source = self._blobs.source(reader, Stage.CHECK, layer.blob.digest)
                check_layer(source, layer.diff_id, name=f"layer {layer.blob.digest}")
        try:
            self._target.set_blob(
                layer.snapshot,
                layer.blob.digest,
                diff_id=layer.diff_id,
                media_type=layer.blob.media_type,
                replace=lost is not None,
            )
        except AlreadyExists:
            # Another import mapped it meanwhile; that one checked its blob's diff ID, too.
            _LOG.debug("snapshot %s was mapped meanwhile", layer.snapshot)

    def _apply(self, layer: _Layer) -> None:
        """Make the layer's snapshot, if no other import is first; check the diff ID."""
        key = f"extract-{secrets.token_hex(8)} {layer.snapshot}"
        self._work.scratch(key)
        mounts = self._target.prepare(key, layer.parent)
        name = f"layer {layer.blob.digest}"
        with self._blobs.open(layer.blob.digest) as reader, held(mounts) as root:
            source = self._blobs.source(reader, Stage.APPLY, layer.blob.digest)
            applied = apply_layer(
                source,
                root,
                name=name,
                diff_id=layer.diff_id,
                path_size_max=PATH_SIZE_MAX - _longest(mounts),
            )
        for kind, count in applied.left_out.items():
            _LOG.warning("%s: left out, as not allowed here: %s, %d times", name, kind, count)
        try:
            self._target.commit(layer.snapshot, key)
        except AlreadyExists:
            self._target.remove(key)

    def _record(self, image: Image) -> Image:
        """Record the image, unless just this is recorded already."""
        try:
            there = self._target.get_image(image.name)
        except NotFound:
            there = None
        if there is not None and (there.digest, there.snapshots) == (
            image.digest,
            image.snapshots,
        ):
            return there
        self._target.set_image(image)
        return image


def _longest(mounts: Sequence[Mount]) -> int:
    """Return the size of the longest path that the mounts name, for what is below is longer."""
    texts = [text for mount in mounts for text in (mount.source, *mount.options)]
    return max(len(os.fsencode(path)) for text in texts for path in text.split(":"))
