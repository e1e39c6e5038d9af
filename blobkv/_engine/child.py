"""The store's side of the child process that writes tables; the other is `worker.py`.

The child is this interpreter started anew, never a fork: a fork would copy locks in whatever
state they are. It has this process's `sys.path`, and three descriptors: two pipes, and a
standard error that leads nowhere. It is killed, not asked, when its work is not wanted any
more: nothing that it leaves is part of the store.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from blobkv._engine.fs import OSFileSystem, on_fork, processor_count
from blobkv._engine.worker import IDLE

if TYPE_CHECKING:
    from blobkv._engine.files import FileSystem

# The path is handed over in full, so the child need not look at its surroundings.
_PROGRAM: Final = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from blobkv._engine.worker import main; main()"
)


class ChildError(Exception):
    """The child could not be started, has died, or could not do a job."""


def child_is_possible(fs: FileSystem) -> str | None:
    """Return why no child can write tables on this file system, or None if one can."""
    if type(fs) is not OSFileSystem:
        return "not the real file system"
    if getattr(sys, "frozen", False) or not sys.executable:
        return "no interpreter to start"
    if processor_count() < 2:
        return "one processor only"
    return None


class Child:
    """A child process under way. One thread at a time asks it; any thread may kill it.

    Raises:
        ChildError: It could not be started.

    Cost: 50 ms on a processor of its own, and 15 MiB.
    """

    def __init__(self) -> None:
        command = [sys.executable, "-I", "-c", _PROGRAM, json.dumps(list(map(str, sys.path)))]
        try:
            self._process = subprocess.Popen(  # noqa: S603  # Ourselves.
                command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                # No buffers, which a fork would copy, half full.
                bufsize=0,
            )
        except (OSError, ValueError) as cause:
            raise ChildError(f"it could not be started: {cause}") from cause
        # A forked copy of the pipe would keep the child alive when this process has died.
        on_fork(self)

    def ask(self, *job: object) -> object:
        """Have a job done and return its answer, waiting for it; None if it ended, idle.

        Raises:
            ChildError: It has died, or it could not do the job.
        """
        source, target = self._process.stdin, self._process.stdout
        assert source is not None
        assert target is not None
        try:
            data = json.dumps(job).encode() + b"\n"
            # One that has ended takes no job, but what it said last can still be read.
            with suppress(BrokenPipeError):
                while data:
                    data = data[source.write(data) :]
            line = target.readline()
            if not line:
                raise ChildError(f"it died with status {self._process.wait()}")
            answer: object = json.loads(line)
        except (OSError, ValueError, RecursionError) as cause:
            raise ChildError(f"it broke off: {cause}") from cause
        if answer == IDLE:
            return None
        if isinstance(answer, dict):
            raise ChildError(str(answer.get("error")))
        if answer is None:
            raise ChildError("it answered nothing")
        return answer

    def kill(self) -> None:
        """End it at once; whoever waits for an answer is told that it died. Idempotent."""
        with suppress(ProcessLookupError):
            self._process.kill()

    def close(self) -> None:
        """Kill it and release everything. Idempotent; nobody may be waiting for an answer."""
        self.kill()
        self._process.wait()
        self._close_pipes()

    def forget_in_child(self) -> None:
        """Let go of the pipes in a forked process, which has no part in this."""
        self._close_pipes()
        # Whose child it is only this process's parent may ask.
        self._process.returncode = 0

    def _close_pipes(self) -> None:
        for file in (self._process.stdin, self._process.stdout):
            assert file is not None
            file.close()
