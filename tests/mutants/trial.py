"""A trial: does the suite notice one seeded bug, and by which test?

The project is copied to a temporary directory, the bug is put in there, and pytest runs in a
process group of its own: first the tests that are likely to notice, then all of `tests/store`,
each time up to the first failure. Whether the test that failed knows the bug, or fails anyway,
is asked of a copy without a bug; one of all those must fail twice, since some may be unlucky.
What takes too long is ended, and counts as noticed: it hung.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Final, Self

from mutant import apply

if TYPE_CHECKING:
    from types import TracebackType

    from mutant import Mutant

TESTS: Final = "tests/store"
# Of the time that a bug is given the tests tried first have so much.
_HINTS_DIVISOR: Final = 3
_LEFT_OUT: Final = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "dist")
_FAILED: Final = re.compile(r"^(?:FAILED|ERROR) (.+?)(?: - .*)?$", re.MULTILINE)
_BEGUN: Final = re.compile(rf"^({TESTS}/\S+::\S+)", re.MULTILINE)
_PYTEST: Final = ("-m", "pytest", "-x", "-v", "--tb=no")
# Some tests failed; some other end but success is no verdict on them.
_TESTS_FAILED: Final = 1


class TrialError(Exception):
    """A trial that says nothing about the tests."""


@dataclass(frozen=True)
class Outcome:
    """What became of a seeded bug.

    Attributes:
        name: The bug's.
        verdict: "caught", "hung", "crashed", or "SURVIVED".
        test: The test that noticed it, without its parameters; None if none did.
        seconds: How long it took.
    """

    name: str
    verdict: str
    test: str | None
    seconds: float


@dataclass(frozen=True)
class _Run:
    """How a run of pytest ended: with which verdict, None for success, and by which test."""

    verdict: str | None
    test: str | None


class Trials:
    """Tries bugs, several at a time if asked by several threads; used in a with-block.

    Args:
        root: The project.
        limit: How long one bug may take, in seconds.
    """

    def __init__(self, root: Path, limit: float) -> None:
        self._root = root
        self._limit = limit
        self._directory = TemporaryDirectory(prefix="mutants-")
        self._sound = self._copy("sound")
        # Tests that pass without a bug.
        self._passing: set[str] = set()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._ended = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._directory.cleanup()

    def of(self, bug: Mutant) -> Outcome:
        """Try one bug.

        Raises:
            StaleError: It does not fit the code.
            TrialError: Pytest could not run, or the test that failed fails without it, too.
        """
        start = time.monotonic()
        project = self._copy(bug.name)
        try:
            apply(bug, project / "blobkv")
            hints = [f"{TESTS}/{hint}" for hint in bug.hints]
            run = self._run(project, hints, self._limit / _HINTS_DIVISOR)
            if run.verdict is None:
                run = self._run(project, [TESTS], self._limit)
                self._check_again(bug, project, run.test)
        finally:
            shutil.rmtree(project)
        if run.test is not None:
            self._check_sound(bug, run.test)
        return Outcome(bug.name, run.verdict or "SURVIVED", run.test, time.monotonic() - start)

    def end(self) -> None:
        """End every trial under way, and begin no other; each raises `TrialError`."""
        self._ended = True
        for process in list(self._running):
            _kill(process)

    def _copy(self, name: str) -> Path:
        project = Path(self._directory.name) / name
        shutil.copytree(self._root, project, ignore=_LEFT_OUT)
        return project

    def _check_again(self, bug: Mutant, project: Path, test: str | None) -> None:
        """Raise TrialError if a test, one of very many, was only unlucky."""
        if test is not None and self._run(project, [test], self._limit).verdict is None:
            raise TrialError(f"{bug.name}: {test} failed once, and not again")

    def _check_sound(self, bug: Mutant, test: str) -> None:
        with self._lock:
            if test in self._passing:
                return
            if self._run(self._sound, [test], self._limit).verdict is not None:
                raise TrialError(f"{bug.name}: {test} fails without it, too")
            self._passing.add(test)

    def _run(self, project: Path, tests: list[str], limit: float) -> _Run:
        environment = {
            "HYPOTHESIS_PROFILE": "dev",
            **os.environ,
            "PYTHONPATH": str(project),
        }
        with (project / "output").open("wb") as target:
            process = subprocess.Popen(
                [sys.executable, *_PYTEST, *tests],
                cwd=project,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=target,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.add(process)
        status: int | None = None
        with suppress(subprocess.TimeoutExpired):
            status = process.wait(0 if self._ended else limit)
        # Also of what has ended: it may have left processes behind.
        _kill(process)
        self._running.discard(process)
        if self._ended:
            raise TrialError("it was ended")
        return _verdict(project, tests, status)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def _verdict(project: Path, tests: list[str], status: int | None) -> _Run:
    """Return what a run of pytest says; a status of None means that it did not end."""
    said = (project / "output").read_text(encoding="utf-8", errors="replace")
    if status == 0:
        return _Run(None, None)
    if status is None or status < 0:
        # The test that was begun last is the one that did not end.
        verdict, noticed = "hung" if status is None else "crashed", _BEGUN.findall(said)[-1:]
    else:
        verdict, noticed = "caught", _FAILED.findall(said)[:1]
    if not noticed or (status or 0) > _TESTS_FAILED:
        raise TrialError(
            f"pytest {' '.join(tests)} ended with status {status}:\n{said[-2000:]}"
        )
    return _Run(verdict, _plain(noticed[0]))


def _plain(test: str) -> str:
    """Return a test's name without its parameters."""
    return test.partition("[")[0]
