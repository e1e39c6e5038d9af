"""What is wrong with a store, as data and as text: for whoever reads all of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from struct import error as StructError  # noqa: N812  # It is a class.
from typing import TYPE_CHECKING, Final

from blobkv.errors import CorruptionError
from blobkv.spelling import counted

if TYPE_CHECKING:
    from types import TracebackType

    from blobkv._engine.format import Range

EVERYTHING: Final[Range] = b"", None
MISSING: Final = "missing"


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it is, what it is, and what it may cost.

    Attributes:
        path: The file, relative to the store's directory.
        offset: Where the bad bytes start in it.
        reason: What was expected there and what was found.
        lost: A range of keys, [start, stop), about which the file may have said something that
            cannot be read any more; no stop means no bound. They are spelled as stored: an
            entry's key after 0x00, behind 0x01 and the name of each bucket that it is in. None
            where no entry is concerned, or where it is not known which.
    """

    path: str
    offset: int
    reason: str
    lost: Range | None = None

    def __str__(self) -> str:
        return f"{self.path}+{self.offset:#x}: {self.reason}{_at_stake(self.lost)}"


@dataclass(slots=True)
class Report:
    """What `verify` found.

    Attributes:
        tables: Tables read.
        logs: Logs read.
        entries: Entries read in both, shadowed ones and tombstones included.
        size: Bytes read.
        problems: What is wrong, in the order found; empty in a sound store.
    """

    tables: int = 0
    logs: int = 0
    entries: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        verdict = "sound" if self.ok else counted(len(self.problems), "problem")
        size = f"{counted(self.entries, 'entry', 'entries')}, {counted(self.size, 'byte')}"
        files = f"{counted(self.tables, 'table')} and {counted(self.logs, 'log')}"
        return "\n".join([f"{verdict}: {size} in {files}", *map(str, self.problems)])


class Noting:
    """Turns what reading a file raises, within a with-block, into a problem.

    Args:
        problems: Where it is added.
        name: The file's name.
        lost: What it may cost.
    """

    def __init__(self, problems: list[Problem], name: str, lost: Range | None = None) -> None:
        self._problems = problems
        self._name = name
        self._lost = lost

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        name, offset = self._name, 0
        match error:
            case CorruptionError():
                name, offset, reason = error.path, error.offset, error.reason
            case FileNotFoundError():
                reason = MISSING
            case OSError():
                reason = f"cannot be read: {error}"
            case IndexError() | ValueError() | StructError():
                # Checksums are right, what they cover is not: bytes that no blobkv wrote.
                reason = f"makes no sense: {error}"
            case _:
                return False
        self._problems.append(Problem(name, offset, reason, self._lost))
        return True


def _at_stake(lost: Range | None) -> str:
    if lost is None:
        return ""
    if lost == EVERYTHING:
        return "; any key may be concerned"
    start, stop = lost
    end = "the last" if stop is None else f"before {stop!r}"
    return f"; stored keys from {start!r} to {end} may be concerned"
