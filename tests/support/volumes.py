"""File systems of a test's own: mounted in a directory, unmounted and removed whatever happens.

A `LoopVolume` is a real ext4 or xfs in a file. Its power can be cut: FS_IOC_SHUTDOWN without a
flush of the file system's log makes it forget all that was not on the disk, as a plug that is
pulled does. The ioctl fails what comes after it, but a sync that is under way at that moment
may still return success, so every writer must be dead before.

What a machine does not let this process mount skips the test.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import struct
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support import machine

# _IOR('X', 125, __u32) of linux/fs.h, and EXT4_GOING_FLAGS_NOLOGFLUSH, which xfs shares.
_SHUTDOWN = 0x8004587D
_NO_LOG_FLUSH = 2
_SIZES = {"ext4": 64 << 20, "xfs": 320 << 20}
_BUSY_SECONDS = 20.0


class Volume:
    """A mounted file system.

    Attributes:
        path: Where it is mounted.
    """

    def __init__(self, path: Path, source: object, *options: str) -> None:
        self.path = path
        self._source = source
        self._options = options
        path.mkdir()

    def mount(self, *more: str) -> None:
        """Mount it, with further options."""
        machine.run("mount", *self._options, *more, self._source, self.path)

    def unmount(self) -> None:
        """Unmount it once the last process that used it, and was killed, is gone."""
        deadline = time.monotonic() + _BUSY_SECONDS
        while True:
            try:
                machine.run("umount", self.path)
            except OSError as error:
                if "busy" not in str(error) or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
            else:
                return

    def discard(self) -> None:
        """Unmount it even if it is in use, and remove the directory."""
        with suppress(OSError):
            machine.run("umount", "--lazy", self.path)
        # Not what is in it, should it still be mounted.
        with suppress(OSError):
            self.path.rmdir()


class LoopVolume(Volume):
    """A file system in a file, which can lose power."""

    def __init__(self, path: Path, kind: str, *, size: int | None = None) -> None:
        self._image = path.with_name(f"{path.name}.image")
        super().__init__(path, self._image, "-o", "loop")
        with self._image.open("wb") as file:
            file.truncate(size or _SIZES[kind])
        flags = ("-q", "-m", "0", "-F") if kind == "ext4" else ("-q",)
        machine.run(f"mkfs.{kind}", *flags, self._image)

    def cut_power(self) -> None:
        """Lose all that is not on the disk, and mount what is. Nobody may be writing."""
        self.shut_down()
        self.restart()

    def shut_down(self) -> None:
        """Fail all that is asked of the disk from now on, and forget what is not on it."""
        descriptor = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.ioctl(descriptor, _SHUTDOWN, struct.pack("I", _NO_LOG_FLUSH))
        finally:
            os.close(descriptor)

    def restart(self) -> None:
        """Mount it anew, with what is on the disk."""
        self.unmount()
        self.mount()

    def discard(self) -> None:
        super().discard()
        self._image.unlink(missing_ok=True)


@contextmanager
def loop(directory: Path, kind: str, *, size: int | None = None) -> Iterator[LoopVolume]:
    """Have a new file system of that kind mounted as `directory`/`kind`."""
    machine.require_mounts(f"mkfs.{kind}")
    volume = LoopVolume(directory / kind, kind, size=size)
    with _mounted(volume):
        yield volume


@contextmanager
def tmpfs(directory: Path, options: str) -> Iterator[Volume]:
    """Have a file system in memory mounted as `directory`/tmpfs, with mount options."""
    machine.require_mounts()
    volume = Volume(directory / "tmpfs", "tmpfs", "-t", "tmpfs", "-o", options)
    with _mounted(volume):
        yield volume


@contextmanager
def read_only(directory: Path, source: Path) -> Iterator[Volume]:
    """Have the directory `source` seen as `directory`/bound, where nothing can be written."""
    machine.require_mounts()
    volume = Volume(directory / "bound", source, "--bind", "-o", "ro")
    with _mounted(volume):
        yield volume


def free_size(path: Path) -> int:
    """Return how many bytes can still be written to the file system there."""
    return shutil.disk_usage(path).free


@contextmanager
def _mounted(volume: Volume) -> Iterator[None]:
    try:
        try:
            volume.mount()
        except OSError as error:
            if not refused(str(error)):
                raise
            reason = str(error).splitlines()[0].rpartition(": ")[2]
            pytest.skip(f"this machine does not let root mount: {reason}")
        yield
    finally:
        volume.discard()


def refused(message: str) -> bool:
    """Return whether it is the machine that says no, as in a container."""
    reasons = ("permission denied", "not permitted", "unknown filesystem", "loop device")
    return any(reason in message.lower() for reason in reasons)
