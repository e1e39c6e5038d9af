"""Who writes the tables of a store: a child process where that pays, else this one.

Large jobs on the real file system go to a child, where more than one processor is there; then
this process only waits for its answers. Whatever the child could not do, for whatever reason,
is done here, in slices; so an error of the device or of the data is met here, by the same code.

Invariants:

* One job at a time, except that a merge may begin between two pieces of another.
* A child that failed is not asked again before the next job.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from itertools import islice
from typing import TYPE_CHECKING, Final

from blobkv._engine import jobs
from blobkv._engine.child import Child, ChildError, child_is_possible
from blobkv._engine.compaction import Piece
from blobkv._engine.pace import Pace
from blobkv._engine.table import TableFile, table_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobkv._engine.compaction import Merge
    from blobkv._engine.files import FileSystem
    from blobkv._engine.jobs import FlushJob, MergeJob
    from blobkv._engine.memtable import Memtable

# Smaller jobs are done here: they take no longer than to start a child, 50 ms.
CHILD_SIZE_MIN: Final = 4 << 20
_SAMPLE_COUNT: Final = 64


class Builder:
    """Writes tables, for one thread at a time.

    Args:
        fs: Where to.
        directory: The store's directory.
        check: Called between slices of work; raises to end it.
        number: Returns a number for a table that nobody else will use.
        reserved_number: Returns one that the manifest on disk counts as used, too.

    Attributes:
        pace: How work in this process is cut.
        child_tables: Tables that a child has written.
        child_reason: Why the last large job was not done by a child; None if it was.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        check: Callable[[], None],
        number: Callable[[], int],
        reserved_number: Callable[[], int],
    ) -> None:
        self.pace = Pace(check)
        self.child_tables = 0
        self.child_reason: str | None = None
        self._fs = fs
        self._directory = directory
        self._check = check
        self._number = number
        self._reserved_number = reserved_number
        self._impossible = child_is_possible(fs)
        # Held for moments: whoever kills the child must find the newest.
        self._lock = threading.Lock()
        self._child: Child | None = None
        self._stopped = False

    def flush(self, job: FlushJob, memtable: Memtable) -> Piece:
        """Write a frozen memtable as a table.

        Raises:
            OSError: The device refused; there is no such table.
        """
        if self._wants_child(_size(memtable)):
            piece = self._ask_for_table("flush", job)
            if piece is not None:
                return piece
        return jobs.flush(self._fs, job, self._number(), memtable, self.pace)

    def merge(self, job: Callable[[], MergeJob], size: int) -> Merging:
        """Begin a merge of tables of `size` bytes; the caller closes it.

        Args:
            job: Returns what is left to be done.
            size: What the inputs have, in bytes.

        Raises: as `Merge`.
        """
        by_child = self._wants_child(size) and self._begins(job())
        return Merging(self, job, self._fs, by_child=by_child)

    def next_piece(self) -> Piece | None:
        """Have the child write the next piece of its newest merge; None if it failed."""
        return self._ask_for_table("piece")

    def next_number(self) -> int:
        """Return a number for a table that this process writes."""
        return self._number()

    def stop(self) -> None:
        """End the child's work at once, and start no other. From any thread."""
        with self._lock:
            self._stopped = True
            if self._child is not None:
                self._child.kill()

    def close(self) -> None:
        """As `stop`, and release everything. Nobody may be at work. Idempotent."""
        self.stop()
        self.drop_child()

    def drop_child(self) -> None:
        """End the child, as after a job that was given up."""
        with self._lock:
            child, self._child = self._child, None
        if child is not None:
            child.close()

    def _wants_child(self, size: int) -> bool:
        if size < CHILD_SIZE_MIN:
            return False
        self.child_reason = self._impossible
        return self._impossible is None

    def _begins(self, job: MergeJob) -> bool:
        answer = self._ask("merge", job)
        if answer is not None and answer is not True:
            self._misunderstood(answer)
        return answer is True

    def _ask_for_table(self, *job: object) -> Piece | None:
        number = self._reserved_number()
        try:
            answer = self._ask(*job, number)
        except BaseException:
            self._discard(number)
            raise
        piece = None if answer is None else self._understood(answer, number)
        if piece is None:
            self._discard(number)
            return None
        self.child_tables += 1
        return piece

    def _understood(self, answer: object, number: int) -> Piece | None:
        """Return the piece that the child has written as table `number`, as it says."""
        try:
            return _piece(answer, number)
        except ValueError:
            self._misunderstood(answer)
            return None

    def _misunderstood(self, answer: object) -> None:
        # Something else writes to its standard output, and what comes next is no answer either.
        self.drop_child()
        self.child_reason = f"{answer!r} is no answer"

    def _discard(self, number: int) -> None:
        # What a child had written when it was killed; the next open finds what stays.
        with suppress(OSError):
            self._fs.remove(f"{self._directory}/{table_name(number)}")

    def _ask(self, *job: object) -> object:
        """Return the child's answer, or None if it has none."""
        try:
            answer = self._running_child().ask(*job)
            if answer is None:
                # It had ended, idle, before the job came. A new one has not.
                self.drop_child()
                answer = self._running_child().ask(*job)
        except ChildError as error:
            self.drop_child()
            self._check()
            self.child_reason = str(error)
            return None
        except BaseException:
            # Its next answer would be taken for that of another job.
            self.drop_child()
            raise
        return answer

    def _running_child(self) -> Child:
        with self._lock:
            if self._child is None:
                if self._stopped:
                    raise ChildError("the store was closed meanwhile")
                self._child = Child()
            return self._child


class Merging:
    """A merge under way, wherever. Used as the `Builder` that made it."""

    def __init__(
        self, builder: Builder, job: Callable[[], MergeJob], fs: FileSystem, *, by_child: bool
    ) -> None:
        self._builder = builder
        self._job = job
        self._fs = fs
        self._by_child = by_child
        self._merge: Merge | None = None

    def next_piece(self) -> Piece:
        """Write the next piece; the last has no end.

        Raises: as `Merge.write_next`.
        """
        if self._by_child:
            piece = self._builder.next_piece()
            self._by_child = piece is not None and piece.end is not None
            if piece is not None:
                return piece
        if self._merge is None:
            self._merge = jobs.merge(self._fs, self._job(), self._builder.pace)
        return self._merge.write_next(self._builder.next_number())

    def close(self) -> None:
        """Give up what is left of it. Idempotent."""
        if self._by_child:
            self._builder.drop_child()
        if self._merge is not None:
            self._merge.close()


def _size(memtable: Memtable) -> int:
    """Return about how many bytes a memtable's entries have."""
    sample = list(islice(memtable.newest.items(), _SAMPLE_COUNT))
    total = sum(len(key) + len(value or b"") for key, value in sample)
    return total * len(memtable) // max(len(sample), 1)


def _piece(answer: object, number: int) -> Piece:
    match answer:
        case [None, int(entries), str() | None as end]:
            file = None
        case [
            [int(named), int(size), int(crc), str(digest)],
            int(entries),
            str() | None as end,
        ]:
            file = TableFile(named, size, crc, digest)
            if named != number:
                raise ValueError(f"table {named} was not asked for, but {number}")
        case _:
            raise ValueError("no piece")
    return Piece(file, entries, None if end is None else bytes.fromhex(end))
