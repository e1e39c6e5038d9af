"""A file of zeroes that is given up when the disk is full, so that deletes can go on.

A delete is written like any other commit, and the room that it gives back comes only once
tables have been merged, which first takes room. So without a reserve a full disk could not be
cleared by deleting from the store that fills it.

The file is made when the store is opened, and made anew, as large as it should be beside the
tables, after work in the background; where there is no room for that, as large as fits. What
may use it: a transaction that deletes at least as many keys as it puts, and puts little; a
seal; a flush or a merge of what deletes; and an open that has to write a log's commits anew.

Source: the ballast files of CockroachDB, kept by the store itself instead of by its operator.
"""

from __future__ import annotations

import errno
import threading
from contextlib import suppress
from typing import TYPE_CHECKING, Final, TypeVar

from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobkv._engine.files import FileSystem

T = TypeVar("T")

BALLAST_NAME: Final = "BALLAST"
_ASIDE: Final = "BALLAST.new"
# A part of the store's tables, about what a merge needs that drops much of them: a piece.
_SIZE_DIVISOR: Final = 32
_SIZE_MIN: Final = 32 << 10
_SIZE_MAX: Final = 32 << 20
# Less than this helps nobody.
_SIZE_LEAST: Final = 4 << 10
_PART_SIZE: Final = 256 << 10


def full_error(path: str) -> OSError:
    """Return what a write gets on a full disk."""
    return OSError(errno.ENOSPC, "no space left but what deletes may use", path)


def is_full(error: OSError) -> bool:
    """Return whether an error says that there is no room: on the disk, or within a quota."""
    return error.errno in {errno.ENOSPC, errno.EDQUOT}


class Ballast:
    """The reserve of one store. Any thread may call.

    Args:
        fs: Where the store is.
        directory: Its directory.

    Attributes:
        in_use: Whether some work has it just now.
    """

    def __init__(self, fs: FileSystem, directory: str) -> None:
        self._fs = fs
        self._path = f"{directory}/{BALLAST_NAME}"
        self._aside = f"{directory}/{_ASIDE}"
        self._lock = threading.Lock()
        with suppress(OSError):
            # Left by a crash while it was made.
            fs.remove(self._aside)
        self._size = self._found_size()
        self._wanted = _SIZE_MIN
        self.in_use = False

    def suit(self, table_size: int) -> None:
        """Make it as large as it should be beside so many bytes of tables, if there is room.

        Cost: nothing where it is at least half as large; else one file, written and synced.
        """
        self._wanted = min(max(table_size // _SIZE_DIVISOR, _SIZE_MIN), _SIZE_MAX)
        with self._lock:
            if self._size < self._wanted // 2:
                self._restore()

    def spend_on(self, work: Callable[[], T]) -> T:
        """Do some work; if the disk is too full for it, give the ballast up and do it anew.

        What the work leaves of the room is the ballast's again.

        Raises:
            What the work raises, the second time if there is one.
        """
        try:
            return work()
        except OSError as error:
            if not is_full(error):
                raise
            taken = False
            try:
                with self._lock:
                    if taken := self._size > 0:
                        self.in_use = True
                        self._remove()
                if not taken:
                    raise
                return work()
            finally:
                # Before anything that an interrupt could end.
                if taken:
                    self.in_use = False
                    with self._lock:
                        self._restore()

    def _found_size(self) -> int:
        try:
            file = self._fs.open(self._path)
        except (OSError, CorruptionError):
            # There is none, or something else has its name.
            return 0
        try:
            return file.size
        finally:
            file.close()

    def _remove(self) -> None:
        self._size = 0
        with suppress(OSError):
            self._fs.remove(self._path)

    def _restore(self) -> None:
        """Make it as large as fits, unless that is smaller than it is."""
        size = self._wanted
        while size >= max(_SIZE_LEAST, self._size + 1):
            try:
                self._make(size)
            except OSError as error:
                if not is_full(error):
                    return
                size -= size // 4
            else:
                return

    def _make(self, size: int) -> None:
        file = self._fs.create(self._aside)
        try:
            for at in range(0, size, _PART_SIZE):
                file.append(bytes(min(_PART_SIZE, size - at)))
            # Or the disk may find out only later that it has no room.
            file.sync()
            self._fs.rename(self._aside, self._path)
        except BaseException:
            with suppress(OSError):
                self._fs.remove(self._aside)
            raise
        finally:
            file.close()
        self._size = size
