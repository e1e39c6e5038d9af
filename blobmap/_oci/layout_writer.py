"""An OCI image layout written: a new directory, one more image in a directory, or a tar.

What is under the final name is whole, whenever the power goes: files are written aside,
synced, then given their names, the index last, and a new layout is made aside as a whole:

    .NAME.partial      beside NAME: a new layout on its way, a directory or a tar
    NAME/.partial      in a layout that is there: a file on its way

One export at a time writes there, and holds a lock that ends with its process; what one that
was killed left under such a name, the next one replaces. Each blob is hashed as it is copied,
and one that is not what its digest says ends the export.

Source: the OCI image specification, image-layout.md. The tar has the members of the layout
in the order of their names, with nothing of this machine or moment in their headers.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from blobmap import digest as digests
from blobmap._oci.layout import Layout
from blobmap._oci.layout_files import BLOBS, INDEX, LAYOUT
from blobmap._oci.member import DIRECTORY, END, FILE, Member, encode, padding
from blobmap.errors import AlreadyExists, DataLoss, InvalidArgument, NotFound, Unavailable
from blobmap.local.durable import resolved, sync_directory, sync_file

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

Json = dict[str, Any]

REF_NAME: Final = "org.opencontainers.image.ref.name"

_INDEX_TYPE: Final = "application/vnd.oci.image.index.v1+json"
_LAYOUT_DOCUMENT: Final = b'{"imageLayoutVersion":"1.0.0"}'
_PARTIAL: Final = ".partial"
_TAR: Final = ".tar"
_CREATE: Final = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Sink(Protocol):
    """Takes bytes from the first to the last."""

    def write(self, data: bytes, /) -> object:
        """Take all of them."""


@dataclass(frozen=True, slots=True)
class Part:
    """A blob of the layout.

    Attributes:
        digest: Its digest.
        size: Its size in bytes.
        chunks: Gives its bytes, each time from the first to the last.
    """

    digest: str
    size: int
    chunks: Callable[[], Iterable[bytes]]


def document(value: Json) -> bytes:
    """Return a JSON document's bytes, the same for equal values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()


def write_layout(
    target: str | os.PathLike[str] | Sink, manifest: Json, parts: Sequence[Part]
) -> None:
    """Write an image into a layout.

    Args:
        target: A directory that is a layout already, and gets one image more; or a path where
            there is nothing yet, for a directory, or, if it ends in ".tar", for a tar; or
            what takes the bytes of a tar.
        manifest: The descriptor for the index. It replaces those of the same name.
        parts: All the blobs of the image.

    Raises:
        NotFound: The directory that is to hold it does not exist.
        AlreadyExists: The tar does.
        InvalidArgument: What is there is no layout.
        Unavailable: Another export is writing there.
        DataLoss: A blob's bytes are not what its digest says.

    Cost: a pass over the blobs that are not there yet; a sync of each.
    """
    if not isinstance(target, str | os.PathLike):
        _write_tar(target.write, manifest, parts)
        return
    path = resolved(target)
    if not path.parent.is_dir():
        raise NotFound(f"{path.parent}: there is no such directory")
    if path.suffix == _TAR and not path.is_dir():
        _write_tar_file(path, manifest, parts)
    elif path.is_dir() and any(path.iterdir()):
        with _locked(os.open(path, _OPEN), path):
            _extend(path, manifest, parts)
    elif path.exists() and not path.is_dir():
        raise InvalidArgument(f"{path}: neither a layout nor a name ending in .tar")
    else:
        _write_directory(path, manifest, parts)


def _write_directory(path: Path, manifest: Json, parts: Sequence[Part]) -> None:
    aside = path.with_name(f".{path.name}{_PARTIAL}")
    aside.mkdir(exist_ok=True)
    with _locked(os.open(aside, _OPEN), aside):
        try:
            _empty(aside)
            _put_file(aside, Path(LAYOUT), [_LAYOUT_DOCUMENT])
            _put_file(aside, Path(INDEX), [_index([])])
            _extend(aside, manifest, parts)
            aside.rename(path)
        except BaseException:
            with suppress(OSError):
                shutil.rmtree(aside)
            raise
    sync_directory(path.parent)


def _extend(path: Path, manifest: Json, parts: Sequence[Part]) -> None:
    with Layout(path, None):
        pass  # What is no layout is refused here.
    index = json.loads((path / INDEX).read_bytes())
    added: list[Path] = []
    try:
        for part in parts:
            name = Path(BLOBS, *digests.split(part.digest))
            _make_directories(path, name.parent)
            there = path / name
            if not there.is_file() or there.stat().st_size != part.size:
                added.append(there)
                _put_file(path, name, _checked(part))
        kept = [item for item in index["manifests"] if not _is_replaced(item, manifest)]
        _put_file(path, Path(INDEX), [document({**index, "manifests": [*kept, manifest]})])
    except BaseException:
        with suppress(OSError):
            for there in [path / _PARTIAL, *added]:
                there.unlink(missing_ok=True)
        raise


def _is_replaced(item: Json, manifest: Json) -> bool:
    """Return whether the new one takes the place of what is listed: it has the same name."""
    old = (item.get("annotations") or {}).get(REF_NAME)
    new = manifest.get("annotations", {}).get(REF_NAME)
    return bool(old == new and (new is not None or item["digest"] == manifest["digest"]))


def _make_directories(root: Path, names: Path) -> None:
    for name in (*reversed(names.parents), names):
        if not (root / name).is_dir():
            (root / name).mkdir()
            sync_directory((root / name).parent)


def _put_file(root: Path, name: Path, chunks: Iterable[bytes]) -> None:
    """Have the file with these bytes, durable, in the place of what has its name."""
    partial = root / _PARTIAL
    partial.unlink(missing_ok=True)
    with partial.open("wb") as file:
        for data in chunks:
            file.write(data)
        file.flush()
        sync_file(file.fileno())
    partial.rename(root / name)
    sync_directory((root / name).parent)


def _write_tar_file(path: Path, manifest: Json, parts: Sequence[Part]) -> None:
    if path.exists():
        raise AlreadyExists(f"{path}: it exists; remove it, or give another name")
    aside = path.with_name(f".{path.name}{_PARTIAL}")
    with _locked(os.open(aside, _CREATE, 0o666), aside) as fd:
        try:
            os.ftruncate(fd, 0)
            with os.fdopen(os.dup(fd), "wb") as file:
                _write_tar(file.write, manifest, parts)
            sync_file(fd)
            aside.rename(path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    sync_directory(path.parent)


def _write_tar(write: Callable[[bytes], object], manifest: Json, parts: Sequence[Part]) -> None:
    index = _index([manifest])
    files: dict[str, tuple[int, Iterable[bytes]]] = {
        INDEX: (len(index), [index]),
        LAYOUT: (len(_LAYOUT_DOCUMENT), [_LAYOUT_DOCUMENT]),
    }
    directories = {BLOBS}
    for part in parts:
        algorithm, digits = digests.split(part.digest)
        directories.add(f"{BLOBS}/{algorithm}")
        files[f"{BLOBS}/{algorithm}/{digits}"] = part.size, _checked(part)
    for name in sorted([*directories, *files]):
        if name in directories:
            write(encode(Member(name.encode(), DIRECTORY, 0o755)))
            continue
        size, chunks = files[name]
        write(encode(Member(name.encode(), FILE, 0o644, size=size)))
        for data in chunks:
            write(data)
        write(padding(size))
    write(END)


def _index(manifests: list[Json]) -> bytes:
    return document({"schemaVersion": 2, "mediaType": _INDEX_TYPE, "manifests": manifests})


def _checked(part: Part) -> Iterator[bytes]:
    """Yield the blob's bytes; at the end they are what its digest and size say."""
    running = digests.hasher(digests.split(part.digest)[0])
    size = 0
    for data in part.chunks():
        running.update(data)
        size += len(data)
        # A tar's header has told the size.
        if size <= part.size:
            yield data
    if size != part.size or digests.name(running) != part.digest:
        raise DataLoss(
            f"blob {part.digest} of {part.size} bytes is damaged: its {size} bytes are "
            f"{digests.name(running)}; import its image again"
        )


def _empty(directory: Path) -> None:
    """Remove what an export that was killed left."""
    for child in directory.iterdir():
        if child.is_dir() and not child.is_symlink():
            shutil.rmtree(child)
        else:
            child.unlink()


@contextmanager
def _locked(fd: int, path: Path) -> Iterator[int]:
    """Be the only export that writes at `path`, of which this is an open descriptor."""
    try:
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            opened, named = os.fstat(fd), path.lstat()
            is_ours = (opened.st_dev, opened.st_ino) == (named.st_dev, named.st_ino)
        except (BlockingIOError, FileNotFoundError):
            is_ours = False
        if not is_ours:
            raise Unavailable(f"{path}: another export is writing there; try again later")
        yield fd
    finally:
        os.close(fd)
