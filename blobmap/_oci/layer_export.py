"""A committed snapshot's difference to its parent becomes the blob that it stands for.

    view of the snapshot ┐
    view of its parent   ┴─ difference ─▶ tar ─▶ compressed ─▶ content ─▶ the snapshot's blob

The whole is one piece of work (`BlobSnapshotter.work`): both views are its scratch, and the
blob is held before it is there, so whatever ends this leaves nothing behind but an unfinished
ingest. Such ones are dropped by the next export, and told from those of others by this: an
ingest that somebody is writing cannot be opened.

Source: containerd's `rootfs.CreateDiff`, for making the difference between two views.
"""

from __future__ import annotations

import logging
import secrets
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blobmap._oci.compressor import Compressor, layer_type, level_of
from blobmap._oci.layer_writer import write_layer
from blobmap._oci.progress import Progress, Stage, ignore
from blobmap.contracts import Blob, Kind
from blobmap.errors import (
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    NotFound,
    Unavailable,
)
from blobmap.local.mounting import held

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobmap._map.work import Work
    from blobmap.contracts import ContentStore, ContentWriter, Info, Mount
    from blobmap.snapshotter import BlobSnapshotter

_REF: Final = "export-"

_LOG: Final = logging.getLogger("blobmap")


@dataclass(frozen=True, slots=True)
class Packing:
    """How a layer is made.

    Attributes:
        compression: "gzip", "zstd", or "none".
        level: How hard to compress; None for what is usual.
        clamp_mtime: The latest time that a file may have, in seconds since 1970.
    """

    compression: str = "gzip"
    level: int | None = None
    clamp_mtime: int | None = None

    def __post_init__(self) -> None:
        # Said at once, and not only if there is a layer to make.
        level_of(self.compression, self.level)


def export_layer(
    target: BlobSnapshotter,
    key: str,
    *,
    compression: str = "gzip",
    level: int | None = None,
    clamp_mtime: int | None = None,
    replace: bool = False,
    progress: Callable[[Progress], None] = ignore,
) -> Blob:
    """Have the committed snapshot stand for a blob: the layer that makes it of its parent.

    The same trees give the same layer. What is in one, and what is left out and logged, tells
    `blobmap._oci.layer_writer`.

    Args:
        target: Whose snapshot. Its snapshotter gives one bind or overlay mount.
        key: The snapshot.
        compression: "gzip", "zstd", or "none".
        level: How hard to compress: 0 to 9 for gzip, 1 to 19 for zstd.
        clamp_mtime: The latest time that a file may have, in seconds since 1970; later ones
            become this. Without it times are kept as they are.
        replace: Make the layer even if the snapshot stands for a blob.
        progress: Called, in this thread, as bytes are done.

    Returns:
        The blob; the one that the snapshot stands for already, unless `replace`.

    Raises:
        NotFound: There is no such snapshot.
        FailedPrecondition: It is not committed, or its files change meanwhile.
        InvalidArgument: A tree holds a name or an attribute that no layer can hold; or there
            is no such compression or level.
        DataLoss: It stands for a blob that is missing, and not `replace`.
        NotImplementedHere: Nothing here writes zstd; or the snapshotter gives other mounts.

    Cost: a pass over the bytes of both trees, and one sync.
    """
    packing = Packing(compression, level, clamp_mtime)
    drop_dead(target.content)
    with target.work() as work:
        return have_blob(target, work, key, packing, replace=replace, progress=progress)


def have_blob(
    target: BlobSnapshotter,
    work: Work,
    key: str,
    packing: Packing,
    *,
    replace: bool,
    progress: Callable[[Progress], None],
) -> Blob:
    """Have the snapshot stand for a blob, which the work holds; as `export_layer`."""
    info = target.stat(key)
    if info.kind is not Kind.COMMITTED:
        raise FailedPrecondition(
            f"snapshot {key!r} is {info.kind.value}; only committed ones have a layer"
        )
    if info.blob is not None and not replace:
        work.hold(info.blob.digest)
        try:
            target.content.info(info.blob.digest)
        except NotFound as error:
            raise DataLoss(
                f"snapshot {key!r} stands for blob {info.blob.digest}, which is missing; "
                "import its image again, or have the layer made anew with replace"
            ) from error
        return info.blob
    made = _make(target, work, info, packing, progress)
    try:
        target.set_blob(
            key, made.digest, diff_id=made.diff_id, media_type=made.media_type, replace=replace
        )
    except AlreadyExists:
        # Somebody else mapped it meanwhile; the one that is mapped counts.
        return have_blob(target, work, key, packing, replace=False, progress=progress)
    return made


def drop_dead(content: ContentStore) -> None:
    """Drop what exports that died left half-way."""
    for status in content.list_statuses(f"ref~=^{_REF}"):
        # Whoever writes one has it open.
        with suppress(Unavailable, NotFound):
            content.writer(status.ref).close()
            content.abort(status.ref)


def _make(
    target: BlobSnapshotter,
    work: Work,
    info: Info,
    packing: Packing,
    progress: Callable[[Progress], None],
) -> Blob:
    """Make the layer and keep it as a blob."""
    token = secrets.token_hex(8)
    expected = target.inner.usage(info.name).size
    ref = f"{_REF}{token}"
    with target.content.writer(ref) as writer, ExitStack() as stack:
        try:
            # A view keeps what it is of from being removed.
            child, *parents = [
                stack.enter_context(held(_view(target, work, f"{ref}-{number}", key)))
                for number, key in enumerate(filter(None, (info.name, info.parent)))
            ]
            compressor = stack.enter_context(
                Compressor(writer.write, packing.compression, packing.level)
            )

            def write(data: bytes) -> None:
                compressor.write(data)
                done = compressor.plain_size
                progress(Progress(Stage.PACK, info.name, done, max(done, expected)))

            parent = parents[0] if parents else None
            write_layer(child, parent, write, clamp_mtime=packing.clamp_mtime)
            compressor.finish()
            digest = _commit(writer, work, compressor.size)
        except BaseException:
            with suppress(NotFound):
                target.content.abort(ref)
            raise
    kind = layer_type(packing.compression)
    return Blob(digest, compressor.size, compressor.diff_id, kind)


def _view(target: BlobSnapshotter, work: Work, view: str, key: str) -> list[Mount]:
    work.scratch(view)
    return target.view(view, key)


def _commit(writer: ContentWriter, work: Work, size: int) -> str:
    digest = writer.digest()
    work.hold(digest)
    try:
        writer.commit(size, digest)
    except AlreadyExists:
        _LOG.debug("layer %s was there already", digest)
    return digest
