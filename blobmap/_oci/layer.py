"""One layer applied to a directory that holds the layers below it.

A layer is a tar of changes. Most members are put where their names say, in the place of what
is there. Two kinds of name only take away:

    dir/.wh.NAME        hides NAME of the layers below
    dir/.wh..wh..opq    hides all that the layers below put in dir

What the same layer adds is never hidden by it, whatever the order of its members.

A member is refused with `InvalidArgument` when its name is absolute, holds ".." or NUL, or
leads through anything that is not a directory; and so is a hard link whose target does. An
entry for a directory keeps a directory that is there, with what is in it, and replaces
anything else, a symlink included.

What the caller's privileges or the file system do not allow (owners, devices, extended
attributes) is left out and counted, never silently and never fatally. So is what the kernel
alone may write: a character device 0:0, which is its whiteout, and overlayfs's attributes.

Source: the OCI image specification, layer.md; containerd's archive.Apply for the order of
things, umoci for giving directories their times back.
"""

from __future__ import annotations

import os
import stat
import tarfile
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blobmap import digest as digests
from blobmap._oci.archive import Archive
from blobmap._oci.attributes import Attributes, mode_of, time_ns_of
from blobmap._oci.compression import EXPANSION_FREE, decompress
from blobmap._oci.tree import PATH_SIZE_MAX, Path, Tree, parse_path, shown
from blobmap.errors import DataLoss, InvalidArgument
from blobmap.local.durable import write_at

if TYPE_CHECKING:
    from collections.abc import Mapping
    from tarfile import TarInfo

    from blobmap._oci.compression import Source

_HIDDEN: Final = b".wh."
_RESERVED: Final = b".wh..wh."
_OPAQUE: Final = b".wh..wh..opq"

# What may stand between the root's path and a member's: "/", and a longer name for the root.
_ROOM: Final = 64

_MAJOR_MAX: Final = 2**12 - 1
_MINOR_MAX: Final = 2**20 - 1
# Members that are neither opened nor linked: what they are, and what they are called.
_NODES: Final = {
    tarfile.CHRTYPE: (stat.S_IFCHR, "device"),
    tarfile.BLKTYPE: (stat.S_IFBLK, "device"),
    tarfile.FIFOTYPE: (stat.S_IFIFO, "fifo"),
}


@dataclass(frozen=True, slots=True)
class Applied:
    """What applying one layer came to.

    Attributes:
        diff_id: The digest of the layer's uncompressed bytes, by the algorithm of the one
            that was asked for.
        size: How many those are.
        member_count: The members of its tar.
        left_out: What was not allowed here, by kind, and how often.
    """

    diff_id: str
    size: int
    member_count: int
    left_out: Mapping[str, int]


def apply_layer(
    source: Source,
    root: str | os.PathLike[str],
    *,
    name: str = "layer",
    diff_id: str | None = None,
    path_size_max: int | None = None,
) -> Applied:
    """Apply a layer to the directory `root`, which holds the layers below.

    Args:
        source: The layer: a tar, plain or compressed. It is read to its end.
        root: An existing directory. After an error it is half changed: throw it away.
        name: What to call the layer in an error.
        diff_id: The digest the uncompressed bytes must have.
        path_size_max: How long a member's path may be and the tree still be read by path,
            where that is not by the path of `root`.

    Raises:
        InvalidArgument: A member is refused; the message names it.
        DataLoss: The layer is damaged or ends early, or its diff ID is another.
        NotImplementedHere: It is zstd, and nothing here can read that.

    Cost: one pass over the layer. Memory for one chunk, and for the name of each member.
    """
    archive = _open(source, name, diff_id)
    if path_size_max is None:
        # Whoever copies or reads the tree does so by path.
        path_size_max = PATH_SIZE_MAX - len(os.fsencode(root))
    with Tree(root) as tree:
        application = _Application(tree, path_size_max - _ROOM)
        for member in archive:
            application.apply(archive, member)
        archive.drain()
        tree.settle()
    if diff_id is not None:
        _check_diff_id(archive, diff_id)
    return Applied(
        archive.digest, archive.offset, application.member_count, dict(application.left_out)
    )


def check_layer(source: Source, diff_id: str, *, name: str = "layer") -> None:
    """Check the diff ID of a layer without applying it.

    Raises:
        DataLoss: It is another, or the layer is damaged or ends early.
        NotImplementedHere: It is zstd, and nothing here can read that.

    Cost: one pass over the layer.
    """
    archive = _open(source, name, diff_id)
    archive.drain()
    _check_diff_id(archive, diff_id)


def diff_id_of(source: Source, *, name: str = "layer") -> str:
    """Return the diff ID of a layer.

    Raises:
        DataLoss: It is damaged or ends early.
        NotImplementedHere: It is zstd, and nothing here can read that.

    Cost: one pass over the layer.
    """
    archive = _open(source, name, None)
    archive.drain()
    return archive.digest


def _open(source: Source, name: str, diff_id: str | None) -> Archive:
    algorithm = digests.CANONICAL if diff_id is None else digests.split(diff_id)[0]
    return Archive(decompress(source, name=name), name=name, algorithm=algorithm)


def _check_diff_id(archive: Archive, diff_id: str) -> None:
    if archive.digest != diff_id:
        raise DataLoss(
            f"{archive.name}: the uncompressed layer is {archive.digest}, the image says "
            f"{diff_id}; copy the image again"
        )


class _Application:
    """One layer on its way into a tree.

    Invariants:
        `added` holds the path of each member put so far, and nothing else.
    """

    def __init__(self, tree: Tree, path_size_max: int) -> None:
        self._tree = tree
        self._path_size_max = path_size_max
        self._added: set[Path] = set()
        self._hole_size = 0
        self._attributes = Attributes()
        self.left_out = self._attributes.left_out
        self.member_count = 0

    def apply(self, archive: Archive, member: TarInfo) -> None:
        """Do what one member says."""
        self.member_count += 1
        try:
            self._apply(archive, member, parse_path(member.name))
        except InvalidArgument as error:
            name = shown(member.name.encode("utf-8", "surrogateescape"))
            raise InvalidArgument(f"{archive.name}: member {name}: {error}") from error

    def _apply(self, archive: Archive, member: TarInfo, path: Path) -> None:
        if len(b"/".join(path)) > self._path_size_max:
            raise InvalidArgument(
                f"its path is longer than {self._path_size_max} bytes, which is what the "
                "directory for snapshots leaves; import under a shorter --root"
            )
        if any(name.startswith(_HIDDEN) for name in path[:-1]):
            raise InvalidArgument("it is below a name that is reserved for whiteouts")
        if path and path[-1].startswith(_HIDDEN):
            self._hide(path[:-1], path[-1])
        elif path:
            self._put(archive, member, path)
            self._added.add(path)
        elif member.isdir():
            self._put_directory(member, path)
        else:
            raise InvalidArgument("the root can only be a directory")

    def _hide(self, parent: Path, name: bytes) -> None:
        hidden = name.removeprefix(_HIDDEN)
        if hidden in {b"", b".", b".."}:
            raise InvalidArgument("it hides no name")
        if name.startswith(_RESERVED) and name != _OPAQUE:
            self.left_out["AUFS bookkeeping file"] += 1
            return
        if any(parent[:size] in self._tree.removed for size in range(1, len(parent) + 1)):
            # Some builders hide one by one what was in a directory that the layer replaces.
            return
        try:
            self._tree.enter(parent)
        except FileNotFoundError:
            return  # No directory, so nothing to hide.
        if name == _OPAQUE:
            self._tree.remove_children(parent, keep=self._added)
        else:
            self._tree.remove((*parent, hidden), keep=self._added)

    def _put(self, archive: Archive, member: TarInfo, path: Path) -> None:
        self._tree.enter(path[:-1], make_ns=time_ns_of(member))
        if member.isdir():
            self._put_directory(member, path)
        elif member.isreg():
            self._put_file(archive, member, path)
        elif member.issym():
            self._put_symlink(member, path)
        elif member.islnk():
            self._put_link(member, path)
        elif member.type in _NODES:
            self._put_node(member, path)
        else:
            raise InvalidArgument(f"its type {member.type!r} has no meaning in a layer")

    def _put_directory(self, member: TarInfo, path: Path) -> None:
        fd = self._tree.make_directory(path)
        self._attributes.set_on_directory(member, fd)
        # Its members come later; and it may be read-only.
        self._tree.settle_later(path, mode_of(member), time_ns_of(member))

    def _put_file(self, archive: Archive, member: TarInfo, path: Path) -> None:
        fd = self._tree.make_file(path)
        try:
            self._bound_holes(member.size - archive.stored_size(member))
            for offset, data in archive.data(member):
                write_at(fd, data, offset)
            os.ftruncate(fd, member.size)
            self._attributes.set_on_file(member, fd)
        finally:
            os.close(fd)

    def _put_symlink(self, member: TarInfo, path: Path) -> None:
        target = member.linkname.encode("utf-8", "surrogateescape")
        if not target or b"\0" in target:
            raise InvalidArgument("a symlink's target is not empty and holds no NUL")
        if len(target) > PATH_SIZE_MAX:
            raise InvalidArgument(
                f"a symlink's target of {len(target)} bytes, at most {PATH_SIZE_MAX}"
            )
        self._tree.make_symlink(path, target)
        self._attributes.set_by_name(member, self._tree.enter(path[:-1]), path[-1])

    def _put_link(self, member: TarInfo, path: Path) -> None:
        target = parse_path(member.linkname)
        if not target or target == path:
            raise InvalidArgument(f"it is a hard link to {shown(target)}")
        try:
            self._tree.make_link(path, target)
        except FileNotFoundError as error:
            raise InvalidArgument(
                f"it is a hard link to {shown(target)}, which is in no layer up to this"
            ) from error
        except PermissionError as error:
            raise InvalidArgument(
                f"it is a hard link to {shown(target)}, which cannot be linked"
            ) from error
        # Mode, owner, and times are the file's, given where the file itself was put.

    def _put_node(self, member: TarInfo, path: Path) -> None:
        kind, name = _NODES[member.type]
        device = 0
        if not member.isfifo():
            if not (0 <= member.devmajor <= _MAJOR_MAX and 0 <= member.devminor <= _MINOR_MAX):
                raise InvalidArgument(
                    f"no device is numbered {member.devmajor}:{member.devminor}"
                )
            device = os.makedev(member.devmajor, member.devminor)
            if device == 0 and kind == stat.S_IFCHR:
                self._tree.remove(path)
                self.left_out[name] += 1
                return
        try:
            self._tree.make_node(path, kind | 0o600, device)
        except OSError as error:
            self._attributes.leave_out(name, error)
        except NotImplementedError:
            # macOS makes no node in an open directory.
            self.left_out[name] += 1
        else:
            self._attributes.set_by_name(member, self._tree.enter(path[:-1]), path[-1])

    def _bound_holes(self, size: int) -> None:
        """Refuse files made large by holes alone: a copy of the tree would fill the disk."""
        self._hole_size += size
        if self._hole_size > EXPANSION_FREE:
            raise InvalidArgument(
                f"sparse files with {self._hole_size} bytes of holes; at most "
                f"{EXPANSION_FREE} in a layer"
            )
