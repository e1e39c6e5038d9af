"""The child process that writes tables for a store, so that commits keep the interpreter.

It is given jobs as lines of JSON on its standard input, one at a time, and answers each with a
line on its standard output:

    ["flush", job, number]   [file, entries, end]: the memtable that the logs hold, as a table
    ["merge", job]           true: a merge is begun, on top of one that is under way
    ["piece", number]        [file, entries, end]: the next piece of the newest merge, which is
                             over when `end` is null

`file` is null where there was nothing to write. An answer {"error": reason} means that the job
has failed and left nothing; the store then does it itself, and meets the error itself.

The child decides nothing: files that it writes belong to the store only once the store's
manifest names them. It ends when its input ends, as it does when the store is closed or its
process dies, however that happens; it looks before each slice of work, and so before it makes
a file. A file that is made in the same moment all the same does no harm: the manifest on disk
counts its number as used.
"""

from __future__ import annotations

import json
import signal
import sys
import threading
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Final, TextIO

from blobkv._engine import jobs
from blobkv._engine.fs import OSFileSystem
from blobkv.errors import BlobKVError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobkv._engine.compaction import Merge, Piece

# A child that is not needed for so long ends, and says so.
_IDLE_SECONDS: Final = 5.0
IDLE: Final = "idle"


class ParentGoneError(Exception):
    """Nobody wants the work any more."""


class Worker:
    """Takes jobs until its input ends.

    Args:
        source: Where jobs come from.
        target: Where answers go.
    """

    def __init__(self, source: TextIO, target: TextIO) -> None:
        self._source = source
        self._target = target
        self._fs = OSFileSystem()
        self._lines: SimpleQueue[str] = SimpleQueue()
        self._ended = False
        self._merges: list[Merge] = []

    def run(self) -> None:
        """Answer every job."""
        threading.Thread(target=self._listen, daemon=True).start()
        while True:
            try:
                line = self._lines.get(timeout=None if self._merges else _IDLE_SECONDS)
            except Empty:
                self._say(IDLE)
                return
            if not line:
                return
            try:
                answer: object = self._answer(*json.loads(line))
            except ParentGoneError:
                return
            except (BlobKVError, OSError, MemoryError) as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            self._say(answer)

    def _listen(self) -> None:
        for line in self._source:
            self._lines.put(line)
        self._ended = True
        self._lines.put("")

    def _say(self, answer: object) -> None:
        self._target.write(json.dumps(answer) + "\n")
        self._target.flush()

    def _answer(self, name: str, *arguments: object) -> object:
        if name == "flush":
            return self._flush(*arguments)  # type: ignore[arg-type]  # As the store sends it.
        if name == "merge":
            return self._merge(*arguments)  # type: ignore[arg-type]
        return self._piece(*arguments)  # type: ignore[arg-type]

    def _flush(self, fields: Sequence[object], number: int) -> Piece:
        job = jobs.FlushJob(*fields)  # type: ignore[arg-type]
        memtable = jobs.replayed(self._fs, job, self._step)
        return jobs.flush(self._fs, job, number, memtable, self._step)

    def _merge(self, fields: Sequence[object]) -> bool:
        job = jobs.MergeJob(*fields)  # type: ignore[arg-type]
        self._merges.append(jobs.merge(self._fs, job, self._step))
        return True

    def _piece(self, number: int) -> object:
        self._step()
        if not self._merges:
            return {"error": "no merge is under way"}
        merge = self._merges[-1]
        try:
            file, entries, end = merge.write_next(number)
        except BaseException:
            self._merges.pop().close()
            raise
        if end is None:
            self._merges.pop().close()
        return file, entries, None if end is None else end.hex()

    def _step(self) -> None:
        if self._ended:
            raise ParentGoneError


def main() -> None:
    """Be the child."""
    # A Ctrl-C at the terminal goes to the whole group. What it means is the store's to say.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    Worker(sys.stdin, sys.stdout).run()
