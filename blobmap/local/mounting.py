"""Mounts made visible: the directory in which a snapshot's tree can be read or changed.

A bind needs no mount for that: its source is the tree. An overlay is mounted, with mount(2):

* `mounted` does so in a new directory that only this user may enter, for as long as a
  with-block lasts. A process that is killed meanwhile leaves it there.
* `held` does so where only one thread sees it, in a mount namespace of its own that ends with
  that thread. What keeps the mount is an open descriptor, so the kernel unmounts it when that
  is closed, and also when the process is killed, at whatever moment.

mount(2) takes one page of options. So the paths of an overlay are made relative to the
directory they have in common, and the call is made from there, in a thread that has a working
directory of its own: no other thread sees it change, and hundreds of parents fit.

Source: containerd shortens the paths likewise (core/mount), in a child process; mount(2),
umount(2), unshare(2), mount_namespaces(7).
"""

from __future__ import annotations

import ctypes
import errno
import mmap
import os
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blobmap.errors import DataLoss, FailedPrecondition, NotImplementedHere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blobmap.contracts import Mount

# Of linux/mount.h and linux/sched.h.
_FLAGS: Final = {"rw": 0, "ro": 1, "nosuid": 2, "nodev": 4, "noexec": 8}
_DETACH: Final = 2
_NO_FOLLOW: Final = 8
_CLONE_FS: Final = 0x200
_CLONE_NEWNS: Final = 0x20000
_PRIVATE_BELOW: Final = 0x4000 | 0x40000

_DIRECTORIES: Final = ("lowerdir", "upperdir", "workdir")
_NOT_ALLOWED: Final = {errno.EPERM, errno.EACCES, errno.ENODEV}
_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


@contextmanager
def mounted(mounts: Sequence[Mount], *, read_only: bool = False) -> Iterator[str]:
    """Have the tree that the mounts show in a directory, for the length of a with-block.

    For a bind that directory is its source itself, which may be read only, by agreement,
    where the mount says so. What is still in use at the end of the block stays so, without a
    path, until it is closed. A process that is killed within the block leaves the mount.

    Args:
        mounts: What a snapshotter returned for one snapshot.
        read_only: Whether an overlay is to refuse changes.

    Yields:
        The directory's path.

    Raises:
        NotImplementedHere: They are no one bind or overlay, or this process may not mount.
        DataLoss: A directory of the overlay is gone.
        FailedPrecondition: The kernel refuses it.

    Cost: of an overlay, a mount, a directory, and a thread.
    """
    mount = _only(mounts)
    if mount.type == "bind":
        yield mount.source
        return
    target = tempfile.mkdtemp(prefix="blobmap-")
    try:
        _in_a_thread(_mount, mount, target, read_only=read_only)
        yield target
    finally:
        _unmount(target)
        Path(target).rmdir()


@contextmanager
def held(mounts: Sequence[Mount]) -> Iterator[str]:
    """Have the tree that the mounts show in a directory of this process's own.

    As `mounted`, but nobody else sees an overlay, and the kernel unmounts it when the block
    or this process ends, however that ends. Its path is good for this process only, and for
    what is opened below it, not for `realpath`.

    Yields:
        The directory's path.
    """
    mount = _only(mounts)
    if mount.type == "bind":
        yield mount.source
        return
    opened: list[int] = []
    try:
        _in_a_thread(_open, mount, opened)
        yield f"/proc/self/fd/{opened[0]}"
    finally:
        for fd in opened:
            os.close(fd)


def _only(mounts: Sequence[Mount]) -> Mount:
    if len(mounts) != 1 or mounts[0].type not in {"bind", "overlay"}:
        types = ", ".join(mount.type for mount in mounts)
        raise NotImplementedHere(
            f"one bind or overlay can be shown, not: {types}; mount them yourself"
        )
    if mounts[0].type == "overlay" and sys.platform != "linux":
        raise NotImplementedHere("overlays are mounted on Linux only; use binds here")
    return mounts[0]


def _in_a_thread(call: Callable[..., None], *args: object, **kwargs: object) -> None:
    """Make a call that changes what its thread sees, in a thread that ends with it."""
    with ThreadPoolExecutor(1) as thread:
        # The end of the block waits for the call, also when an interrupt comes.
        thread.submit(call, *args, **kwargs).result()


def _open(mount: Mount, opened: list[int]) -> None:
    """Mount an overlay in a namespace of this thread's own, and open it."""
    libc = _libc()
    if libc.unshare(_CLONE_NEWNS) != 0:
        raise _refused("unshare", ctypes.get_errno())
    # Else what is mounted here would be in the namespace that this one was copied from, too.
    if libc.mount(None, b"/", None, _PRIVATE_BELOW, None) != 0:
        raise _refused("mount", ctypes.get_errno())
    # One of its own directories is the place, so that nothing else could ever be hidden.
    target = _top_directory(mount)
    _mount(mount, target)
    opened.append(os.open(target, _DIRECTORY))


def _top_directory(mount: Mount) -> str:
    named = dict(option.partition("=")[::2] for option in mount.options)
    top: str = named.get("upperdir") or named.get("lowerdir", "").split(":")[0]
    if not Path(top).is_dir():
        raise DataLoss(f"{top or mount}: gone; the snapshot cannot be shown")
    return top


def _mount(mount: Mount, target: str, *, read_only: bool = False) -> None:
    """Mount an overlay; the thread's working directory is another afterwards."""
    flags = _FLAGS["ro"] if read_only else 0
    options = []
    for option in mount.options:
        if option in _FLAGS:
            flags |= _FLAGS[option]
        else:
            options.append(option)
    directory, shortened = _shortened(options)
    data = os.fsencode(",".join(shortened))
    if len(data) >= mmap.PAGESIZE:
        raise FailedPrecondition(
            f"an overlay with {len(data)} bytes of options; the kernel takes "
            f"{mmap.PAGESIZE - 1}: the snapshot has too many parents"
        )
    libc = _libc()
    if libc.unshare(_CLONE_FS) != 0:
        raise _refused("unshare", ctypes.get_errno())
    os.chdir(directory)
    if libc.mount(os.fsencode(mount.source), os.fsencode(target), b"overlay", flags, data) != 0:
        code = ctypes.get_errno()
        _require_directories(shortened)
        raise _refused("mount", code)


def _shortened(options: Sequence[str]) -> tuple[str, list[str]]:
    """Return a directory, and the options with paths relative to it."""
    named = [option.partition("=") for option in options]
    paths = [
        path for name, _, value in named if name in _DIRECTORIES for path in value.split(":")
    ]
    if not paths or not all(path.startswith("/") and "\\" not in path for path in paths):
        return "/", list(options)
    common = os.path.commonpath(paths)

    def relative(name: str, value: str) -> str:
        if name not in _DIRECTORIES:
            return value
        return ":".join(os.path.relpath(path, common) for path in value.split(":"))

    return common, [f"{name}{sign}{relative(name, value)}" for name, sign, value in named]


def _require_directories(options: Sequence[str]) -> None:
    """Raise DataLoss if a directory that the overlay consists of is gone."""
    for name, _, value in (option.partition("=") for option in options):
        if name not in _DIRECTORIES:
            continue
        for path in value.split(":"):
            if not Path(path).is_dir():
                raise DataLoss(f"{Path(path).absolute()}: gone; the snapshot cannot be shown")


def _refused(call: str, code: int) -> Exception:
    reason = os.strerror(code)
    if code in _NOT_ALLOWED:
        return NotImplementedHere(
            f"this process cannot mount overlays ({call}: {reason}); "
            "be root, or use the copying snapshotter"
        )
    return FailedPrecondition(f"the kernel does not mount the overlay ({call}: {reason})")


def _unmount(target: str) -> None:
    """Unmount what is there, if anything: at once, or, if it is in use, when it is not."""
    libc = _libc()
    for flags in (_NO_FOLLOW, _NO_FOLLOW | _DETACH):
        if libc.umount2(os.fsencode(target), flags) == 0:
            return
    code = ctypes.get_errno()
    if code not in {errno.EINVAL, errno.EPERM}:
        raise OSError(code, os.strerror(code), target)


def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    text = ctypes.c_char_p
    libc.mount.argtypes = (text, text, text, ctypes.c_ulong, text)
    libc.umount2.argtypes = (text, ctypes.c_int)
    libc.unshare.argtypes = (ctypes.c_int,)
    return libc
