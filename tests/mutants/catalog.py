"""All seeded bugs, by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from in_commits import IN_COMMITS
from in_files import IN_FILES
from in_memory import IN_MEMORY
from in_rescue import IN_RESCUE
from in_tables import IN_TABLES

if TYPE_CHECKING:
    from mutant import Mutant

ALL: Final[tuple[Mutant, ...]] = (
    *IN_COMMITS,
    *IN_FILES,
    *IN_TABLES,
    *IN_MEMORY,
    *IN_RESCUE,
)
BY_NAME: Final = {bug.name: bug for bug in ALL}

assert len(BY_NAME) == len(ALL), "names are unique"
