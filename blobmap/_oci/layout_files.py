"""The files of an OCI image layout: in a directory, in a plain tar, in a compressed tar.

Nothing is unpacked to read them. In a plain tar blobs are read at their offsets. In a
compressed one nothing can be: it is read once, from first to last, and its blobs go where
the caller keeps blobs, as they come. So no disk outside the caller's store is used, and no
byte is written twice; what no image uses is the caller's to drop again.

In a tar the layout may lie at the top, or in one directory there: who packs a directory by
its name gets the latter.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final, Protocol

from blobmap import digest as digests
from blobmap._oci.archive import Archive
from blobmap._oci.compression import decompress, is_compressed
from blobmap._oci.manifest import DOCUMENT_SIZE_MAX
from blobmap.closing import Closing
from blobmap.errors import DataLoss, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
    from tarfile import TarInfo

    from blobmap.contracts import ContentReader

LAYOUT: Final = "oci-layout"
INDEX: Final = "index.json"
BLOBS: Final = "blobs"

_DOCKER: Final = {"manifest.json", "repositories"}
_TAR_MAGIC: Final = b"ustar"
_TAR_MAGIC_OFFSET: Final = 257
_TAR_START_SIZE: Final = _TAR_MAGIC_OFFSET + len(_TAR_MAGIC)
_COMPRESSED_MAGIC_SIZE: Final = 4
# A FIFO in a layout must not block the reader.
_READ: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


_Name = tuple[str, str]
"""A file in a tar: the folder it is in, "" at the top, and its name in the layout."""


class Store(Protocol):
    """Where the blobs of a layout go that can be read only once."""

    def keep(self, digest: str, size: int, chunks: Iterator[bytes]) -> None:
        """Take a blob, or pass it over if it is there already; refuse what is not it."""

    def open(self, digest: str) -> ContentReader:
        """Open a blob; NotFound if there is none."""


class Files(Protocol):
    """The files of one layout, by their names in it."""

    def open(self, name: str) -> ContentReader:
        """Open a file; FileNotFoundError, with the name, for one that is not there."""

    def close(self) -> None:
        """Release what is held. Idempotent."""


def open_files(path: Path, store: Store | None) -> Files:
    """Open the layout at `path`, whatever it is packed in.

    Args:
        path: A directory, or a tar, plain or compressed.
        store: Takes the blobs of a compressed tar; not used, nor needed, otherwise.

    Raises:
        NotFound: There is nothing at `path`.
        InvalidArgument: It can be no layout; the message says how to make one.
        DataLoss: It is a tar, and damaged.

    Cost: nothing for a directory; a plain tar's headers; all of a compressed tar.
    """
    if is_single_pass(path):
        assert store is not None
        return _CompressedTar(path, store)
    return _Directory(path) if path.is_dir() else _PlainTar(path)


def is_single_pass(path: Path) -> bool:
    """Return whether what is at `path` can be read only once: a compressed tar.

    Raises:
        NotFound: There is nothing at `path`.
        InvalidArgument: It is neither a directory nor a regular file that starts as a tar does.
        DataLoss: It is compressed, and damaged at its start.
    """
    try:
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            return False
        if not stat.S_ISREG(mode):
            reason = "it is neither a directory nor a regular file"
            raise InvalidArgument(no_layout(path, reason))
        with path.open("rb") as file:
            compressed = is_compressed(file.read(_COMPRESSED_MAGIC_SIZE))
            file.seek(0)
            source = decompress(file, name=str(path))
            start = b""
            while len(start) < _TAR_START_SIZE and (data := source.read(_TAR_START_SIZE)):
                start += data
    except FileNotFoundError as error:
        raise NotFound(f"{path}: there is no such file or directory") from error
    if start[_TAR_MAGIC_OFFSET:_TAR_START_SIZE] != _TAR_MAGIC:
        what = "a tar that is compressed" if compressed else "a tar"
        raise InvalidArgument(no_layout(path, f"it is neither a directory nor {what}"))
    return compressed


def no_layout(path: str | os.PathLike[str], reason: str) -> str:
    """Return the message that `path` is no layout, with what to do."""
    return (
        f"{os.fspath(path)}: not an OCI image layout: {reason}; make one with, for example: "
        "skopeo copy docker://IMAGE oci:DIRECTORY"
    )


def read_all(reader: ContentReader, name: str) -> bytes:
    """Return the whole of a document.

    Raises:
        InvalidArgument: It is more than `DOCUMENT_SIZE_MAX`.
        DataLoss: It is shorter than it was.
    """
    _check_size(reader.size, name)
    data = reader.read_at(0, reader.size)
    if len(data) != reader.size:
        raise DataLoss(f"{name}: it shrank while it was read")
    return data


class _Extent(Closing):
    """Some bytes of an open file, or all of them, as a blob is read."""

    def __init__(self, fd: int, offset: int, size: int) -> None:
        self._fd = fd
        self._offset = offset
        self._size = size

    @property
    def size(self) -> int:
        return self._size

    def read_at(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, max(0, min(size, self._size - offset)), self._offset + offset)

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


class _Directory:
    """A layout as a directory."""

    def __init__(self, path: Path) -> None:
        self._path = path
        _refuse_docker({name for name in _DOCKER | {LAYOUT} if (path / name).exists()}, path)

    def open(self, name: str) -> ContentReader:
        try:
            fd = os.open(self._path / name, _READ)
        except FileNotFoundError:
            raise FileNotFoundError(name) from None
        there = os.fstat(fd)
        if not stat.S_ISREG(there.st_mode):
            os.close(fd)
            raise InvalidArgument(f"{self._path / name}: not a regular file")
        return _Extent(fd, 0, there.st_size)

    def close(self) -> None:
        """Nothing is held."""


class _PlainTar:
    """A layout as a tar whose members are read where they are."""

    def __init__(self, path: Path) -> None:
        places: dict[_Name, tuple[int, int]] = {}
        self._file = path.open("rb", buffering=0)
        try:
            archive = Archive(self._file, name=str(path), seek=self._file.seek)
            for member in archive:
                if (name := _file_name(member)) is not None:
                    places[name] = (member.offset_data, member.size)
            folder = _folder(places)
            self._places = {file: place for (at, file), place in places.items() if at == folder}
            _refuse_docker(self._places.keys(), path)
        except BaseException:
            self._file.close()
            raise

    def open(self, name: str) -> ContentReader:
        if name not in self._places:
            raise FileNotFoundError(name)
        return _Extent(os.dup(self._file.fileno()), *self._places[name])

    def close(self) -> None:
        self._file.close()


class _CompressedTar:
    """A layout as a compressed tar, whose blobs went to the caller's store."""

    def __init__(self, path: Path, store: Store) -> None:
        self._store = store
        documents: dict[_Name, bytes] = {}
        names: set[_Name] = set()
        with path.open("rb") as file:
            archive = Archive(decompress(file, name=str(path)), name=str(path))
            for member in archive:
                if (name := _file_name(member)) is not None:
                    names.add(name)
                    if (data := self._take(archive, member, name[1])) is not None:
                        documents[name] = data
            archive.drain()
        folder = _folder(names)
        self._documents = {file: data for (at, file), data in documents.items() if at == folder}
        _refuse_docker({file for at, file in names if at == folder}, path)

    def open(self, name: str) -> ContentReader:
        if (digest := _blob_digest(name)) is not None:
            try:
                return self._store.open(digest)
            except NotFound as error:
                raise FileNotFoundError(name) from error
        if name not in self._documents:
            raise FileNotFoundError(name)
        return _InMemory(self._documents[name])

    def close(self) -> None:
        self._documents.clear()

    def _take(self, archive: Archive, member: TarInfo, name: str) -> bytes | None:
        """Return a document's bytes; have the store keep a blob, whatever folder it is in."""
        chunks = (data for _, data in archive.data(member))
        if (digest := _blob_digest(name)) is not None:
            self._store.keep(digest, member.size, chunks)
        elif name in {LAYOUT, INDEX}:
            _check_size(member.size, f"{archive.name}: {name}")
            return b"".join(chunks)
        return None


class _InMemory(_Extent):
    """A small document that was read already."""

    def __init__(self, data: bytes) -> None:
        super().__init__(-1, 0, len(data))
        self._data = data

    def read_at(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]


def _file_name(member: TarInfo) -> _Name | None:
    """Return the folder and the layout's name of a member, or None for no file of a layout."""
    name = member.name.removeprefix("./")
    if not member.isreg():
        return None
    folder, _, rest = name.partition("/")
    if _is_file(name):
        found = "", name
    elif folder and _is_file(rest):
        found = folder, rest
    else:
        return None
    if member.sparse is not None:
        raise InvalidArgument(f"{name}: it is stored as a sparse file; make the tar without")
    return found


def _is_file(name: str) -> bool:
    return name in {LAYOUT, INDEX, *_DOCKER} or _blob_digest(name) is not None


def _folder(names: Iterable[_Name]) -> str:
    """Return where the layout is: in the one folder that has one, if the top has none."""
    folders = {folder for folder, file in names if file == LAYOUT}
    return folders.pop() if len(folders) == 1 else ""


def _blob_digest(name: str) -> str | None:
    folder, _, rest = name.partition("/")
    try:
        return digests.validate(rest.replace("/", ":", 1)) if folder == BLOBS else None
    except InvalidArgument:
        return None


def _check_size(size: int, name: str) -> None:
    if size > DOCUMENT_SIZE_MAX:
        raise InvalidArgument(
            f"{name}: {size} bytes, where a document has at most {DOCUMENT_SIZE_MAX}"
        )


def _refuse_docker(names: Iterable[str], path: Path) -> None:
    """Refuse what is an image, but in another form: say how to convert it."""
    if LAYOUT not in names and not _DOCKER.isdisjoint(names):
        form = "dir" if path.is_dir() else "docker-archive"
        raise InvalidArgument(
            f"{path}: it holds an image in another form than an OCI image layout; convert it: "
            f"skopeo copy {form}:{path} oci:DIRECTORY"
        )
