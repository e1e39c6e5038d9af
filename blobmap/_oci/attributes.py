"""What a tar's member says of a file beside its content: owner, mode, attributes, and times.

Each is set on the file itself, by descriptor where it can be opened and else by its name in
an open directory, and never through a symlink. What the caller's privileges or the file
system do not allow is left out and counted; any other failure is an error. Left out likewise is
what overlayfs would take for its own marks: no layer tells the kernel what to hide.
"""

from __future__ import annotations

import errno
import os
import re
import sys
from collections import Counter
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet
    from tarfile import TarInfo

_XATTR_PREFIX: Final = "SCHILY.xattr."
# What overlayfs writes itself, and believes wherever it finds it.
_OVERLAY_MARKS: Final = ("trusted.overlay.", "user.overlay.")
_ID_MAX: Final = 2**32 - 2
_TIME_TEXT: Final = re.compile(r"-?\d{1,12}(\.\d{0,32})?")
_NS: Final = 10**9

# What "not allowed here" looks like.
_NOT_ALLOWED: Final = {errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS}
# What a file system says of an extended attribute that is too large for it, or badly named.
_NO_ROOM: Final = {errno.E2BIG, errno.ERANGE, errno.ENOSPC, errno.ENAMETOOLONG}
_MODE_BITS: Final = 0o7777


def mode_of(member: TarInfo) -> int:
    """Return the member's permissions, the setuid, setgid, and sticky bits included.

    Raises:
        InvalidArgument: The mode is negative.
    """
    if member.mode < 0:
        raise InvalidArgument(f"no file has mode {member.mode}")
    return member.mode & _MODE_BITS


def time_ns_of(member: TarInfo) -> int:
    """Return the member's modification time; 1970 where it gives none that makes sense."""
    # tarfile makes a float of a time in an extended header, which is not exact.
    text = member.pax_headers.get("mtime", "")
    if _TIME_TEXT.fullmatch(text):
        return int(Decimal(text) * _NS)
    return int(member.mtime) * _NS if 0 <= member.mtime < 10**12 else 0


class Attributes:
    """Sets attributes, and counts those that are left out.

    Attributes:
        left_out: What was not allowed here, by kind, and how often.
    """

    def __init__(self) -> None:
        self.left_out: Counter[str] = Counter()
        self._user = os.geteuid(), os.getegid()

    def set_on_file(self, member: TarInfo, fd: int) -> None:
        """Set all of an open file's attributes."""
        # Changing the owner clears setuid bits and capabilities, so it comes first.
        self._own(member, fd)
        os.fchmod(fd, mode_of(member))
        self._set_xattrs(member, fd)
        os.utime(fd, ns=(time_ns_of(member), time_ns_of(member)))

    def set_on_directory(self, member: TarInfo, fd: int) -> None:
        """Set an open directory's attributes but for mode and time, which are set last."""
        self._own(member, fd)
        self._set_xattrs(member, fd)

    def set_by_name(self, member: TarInfo, directory: int, name: bytes) -> None:
        """Set the attributes of what cannot be opened: a symlink, a device, a fifo."""
        if self._may_own(member):
            try:
                os.chown(name, member.uid, member.gid, dir_fd=directory, follow_symlinks=False)
            except OSError as error:
                self.leave_out("owner", error)
        if not member.issym():
            os.chmod(name, mode_of(member), dir_fd=directory)
        # Extended attributes are set by path alone; this one starts at the open directory.
        self._set_xattrs(member, os.fsencode(f"/proc/self/fd/{directory}/") + name)
        time_ns = time_ns_of(member)
        os.utime(name, ns=(time_ns, time_ns), dir_fd=directory, follow_symlinks=False)

    def leave_out(
        self, kind: str, error: OSError, *, also: AbstractSet[int] = frozenset()
    ) -> None:
        """Count what is not allowed here, `also` included; raise any other error."""
        if error.errno not in _NOT_ALLOWED | also:
            raise error
        self.left_out[kind] += 1

    def _own(self, member: TarInfo, fd: int) -> None:
        if self._may_own(member):
            try:
                os.fchown(fd, member.uid, member.gid)
            except OSError as error:
                self.leave_out("owner", error)

    def _may_own(self, member: TarInfo) -> bool:
        """Return whether to set the owner; count it as left out where only root could."""
        if not (0 <= member.uid <= _ID_MAX and 0 <= member.gid <= _ID_MAX):
            raise InvalidArgument(f"no owner is numbered {member.uid}:{member.gid}")
        if self._user[0] == 0:
            return True
        if (member.uid, member.gid) != self._user:
            self.left_out["owner"] += 1
        return False

    def _set_xattrs(self, member: TarInfo, file: int | bytes) -> None:
        for key, value in member.pax_headers.items():
            if not key.startswith(_XATTR_PREFIX):
                continue
            attribute = key.removeprefix(_XATTR_PREFIX)
            if "\0" in attribute:
                raise InvalidArgument("an extended attribute's name holds a NUL")
            if attribute.startswith(_OVERLAY_MARKS):
                self.left_out["mark of overlayfs"] += 1
                continue
            if sys.platform != "linux":
                self.left_out["extended attribute"] += 1
                continue
            data = value.encode("utf-8", "surrogateescape")
            # A descriptor names the file itself: there is nothing to follow.
            follow = isinstance(file, int)
            try:
                os.setxattr(file, attribute, data, follow_symlinks=follow)
            except OSError as error:
                self.leave_out("extended attribute", error, also=_NO_ROOM)
