"""The difference of two trees as the tar of a layer.

The same trees give the same bytes: members come in the order of their paths, a header holds
what its file is and nothing else (no clock, no inode, no name of an owner), and a whiteout is
an empty file of mode 0 from 1970. Holes in files are zeroes, as only some readers know them.

Source: the OCI image specification, layer.md; `layer` reads what is written here.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Final

from blobmap._oci.difference import Difference
from blobmap._oci.member import (
    BLOCK,
    CHARACTER,
    DIRECTORY,
    END,
    FIFO,
    FILE,
    LINK,
    SYMLINK,
    Member,
    encode,
    padding,
)
from blobmap._oci.side import Side
from blobmap._oci.tree import shown
from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobmap._oci.difference import Change
    from blobmap._oci.tree import Path

_CHUNK_SIZE: Final = 1 << 20
_NS: Final = 10**9
_KINDS: Final = {
    stat.S_IFREG: FILE,
    stat.S_IFDIR: DIRECTORY,
    stat.S_IFLNK: SYMLINK,
    stat.S_IFCHR: CHARACTER,
    stat.S_IFBLK: BLOCK,
    stat.S_IFIFO: FIFO,
}


def write_layer(
    child: str | os.PathLike[str],
    parent: str | os.PathLike[str] | None,
    write: Callable[[bytes], object],
    *,
    clamp_mtime: int | None = None,
) -> None:
    """Write the layer that turns the tree `parent` into the tree `child`.

    Sockets are left out, and logged. So are extended attributes that mean nothing on another
    machine: those of SELinux, of integrity checks, and of overlay mounts.

    Args:
        child: A directory that nobody changes meanwhile.
        parent: Likewise; or None, and all of the child is the layer.
        write: Called with the tar's bytes, from the first to the last, some at a time.
        clamp_mtime: The latest time that a file may have, in seconds since 1970; later ones
            become this. Without it times are kept as they are.

    Raises:
        InvalidArgument: A name or an attribute is one that no layer can hold.
        FailedPrecondition: A file changes while it is read.
        OSError: Something may not be read.

    Cost: two walks of both trees; a pass over the bytes of files that agree in all else. Memory
        for one chunk, the names of the directories on the way, and hard links.
    """
    with Side(child, logs=True) as tree:
        writer = _Writer(tree, write, clamp_mtime)
        if parent is None:
            writer.write_all(Difference(tree, None))
        else:
            with Side(parent) as base:
                writer.write_all(Difference(tree, base))


class _Writer:
    """A layer on its way out of a tree."""

    def __init__(
        self, tree: Side, write: Callable[[bytes], object], clamp_mtime: int | None
    ) -> None:
        self._tree = tree
        self._write = write
        self._latest_ns = None if clamp_mtime is None else clamp_mtime * _NS

    def write_all(self, difference: Difference) -> None:
        for change in difference.changes():
            try:
                header = encode(self._member(change))
            except InvalidArgument as error:
                raise InvalidArgument(f"{shown(change.path)}: {error}") from error
            self._write(header)
            if change.status is not None and change.link is None:
                self._write_data(change.path, change.status)
        self._write(END)

    def _member(self, change: Change) -> Member:
        status = change.status
        name = b"/".join(change.path) or b"."
        if status is None:
            return Member(name, FILE)
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        is_link = change.link is not None
        target = b""
        if change.link is not None:
            target = b"/".join(change.link)
        elif kind == SYMLINK:
            target = self._tree.target(change.path)
        device = (0, 0)
        if kind in {CHARACTER, BLOCK}:
            device = os.major(status.st_rdev), os.minor(status.st_rdev)
        return Member(
            name,
            LINK if is_link else kind,
            stat.S_IMODE(status.st_mode),
            status.st_uid,
            status.st_gid,
            status.st_size if kind == FILE and not is_link else 0,
            self._time_ns(status),
            target,
            device,
            {} if is_link else self._tree.xattrs(change.path),
        )

    def _time_ns(self, status: os.stat_result) -> int:
        if self._latest_ns is None:
            return status.st_mtime_ns
        return min(status.st_mtime_ns, self._latest_ns)

    def _write_data(self, path: Path, status: os.stat_result) -> None:
        if not stat.S_ISREG(status.st_mode):
            return
        missing = status.st_size
        with self._tree.open(path) as file:
            # One byte more than there should be would be seen.
            while data := file.read(min(_CHUNK_SIZE, missing + 1)):
                missing -= len(data)
                if missing < 0:
                    raise self._tree.changed(path)
                self._write(data)
        if missing:
            raise self._tree.changed(path)
        self._write(padding(status.st_size))
