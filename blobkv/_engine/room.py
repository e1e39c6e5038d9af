"""Room ahead: zeroes written behind the end of a log before commits need the place.

A commit that makes the file longer has its sync write the new size, too; inside zeroes that
are on the disk already there is only the commit to write. Measured on ext4, a write and its
sync take 125 us with growth, 88 us without. Zeroes are written, not reserved (`fallocate`):
the mean measured alike, but the first sync of reserved blocks has to note that they now hold
something, and one in a hundred took a fifth longer for it.

The room is made in the background, by a handle of its own that adds behind whatever is in the
file at that moment, so that no frame is ever overwritten, however a commit and the growth race:
what the commit wrote past the room is part of the file, and the zeroes go behind it. Nothing
depends on the room: a commit that finds none makes the file longer.

It starts small and doubles, so that a store that sees few commits stays small, and it is made
for small frames only: where the bytes are what takes the time, zeroes would double them.

A failure to write zeroes costs speed, no more; this log is not grown again. A *sync* that
fails poisons, as every failed sync does: its handle was told of bytes that did not reach the
disk, and they may be a commit's.

Source: RocksDB's recycled logs, which are written inside old blocks for the same reason.
"""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, suppress
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobkv._engine.files import FileEnd, FileSystem
    from blobkv._engine.log import Log

# A log smaller than this has no room ahead.
_LOG_SIZE_MIN: Final = 4 << 10
# By how much a log grows: by its size, within these. Larger steps measured no better, and the
# commits beside them wait longer, since their sync writes what the step has written, too.
_STEP_MIN: Final = 16 << 10
_STEP_MAX: Final = 256 << 10
# The larger, the less a sync that writes no size is worth.
_FRAME_SIZE_MAX: Final = 16 << 10


class Room:
    """Keeps room ahead in the active log, in a thread that is idle unless there is work.

    Args:
        fs: Where the store is.
        directory: Its directory.
        limit: How large a log may become with its room, in bytes.
        poison: Called with what a failed sync raised.
    """

    def __init__(
        self, fs: FileSystem, directory: str, limit: int, poison: Callable[[OSError], object]
    ) -> None:
        self._fs = fs
        self._directory = directory
        self._limit = limit
        self._poison = poison
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="blobkv-room")
        self._growth: Future[None] | None = None
        # The last log whose file could not be made longer.
        self._refused: Log | None = None

    def keep(self, log: Log, frame_size: int) -> None:
        """Have the log grown if more commits like the last would soon use its room up.

        Cost: a few comparisons, or the start of the growth in the background.
        """
        size = max(log.end, log.room_end)
        step = min(max(log.end, _STEP_MIN), _STEP_MAX, self._limit - size)
        if size - log.end >= step // 2 or log.end < _LOG_SIZE_MIN or step <= 0:
            return
        if frame_size > _FRAME_SIZE_MAX or log is self._refused:
            return
        if self._growth is None or self._growth.done():
            # After `close`, and at interpreter shutdown, no thread starts.
            with suppress(RuntimeError):
                self._growth = self._pool.submit(self._grow, log, step)

    def close(self) -> None:
        """Return when nothing grows any more. Idempotent."""
        self._pool.shutdown(wait=True)

    def _grow(self, log: Log, step: int) -> None:
        try:
            with closing(self._fs.open_end(f"{self._directory}/{log.file.name}")) as end:
                size = end.grow(step)
                self._sync(end)
        except OSError:
            self._refused = log
        else:
            log.room_end = size

    def _sync(self, end: FileEnd) -> None:
        try:
            end.sync()
        except OSError as error:
            self._poison(error)
            raise
