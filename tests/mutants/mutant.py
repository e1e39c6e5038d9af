"""One seeded bug: a change of a few words of the code that some test must notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class StaleError(Exception):
    """A seeded bug does not fit the code any more."""


@dataclass(frozen=True)
class Edit:
    """One replacement of text.

    Attributes:
        file: Where, relative to the package `blobkv`.
        before: What stands there, once.
        after: What to put in its place.
    """

    file: str
    before: str
    after: str


@dataclass(frozen=True)
class Mutant:
    """A bug of a kind that storage engines had.

    Attributes:
        name: What it is called.
        does: What the code does wrong, in a few words.
        costs: Why that matters.
        edits: How it is made.
        hints: Tests that are likely to notice it, to be tried first; relative to `tests/store`.
    """

    name: str
    does: str
    costs: str
    edits: tuple[Edit, ...]
    hints: tuple[str, ...]


def mutant(
    name: str, file: str, before: str, after: str, *, does: str, costs: str, hints: list[str]
) -> Mutant:
    """Return a bug that is one replacement."""
    return Mutant(name, does, costs, (Edit(file, before, after),), tuple(hints))


def mutated(bug: Mutant, package: Path) -> dict[Path, str]:
    """Return the files that a bug changes, and what they hold with it.

    Raises:
        StaleError: What it replaces is not there exactly once.
    """
    found: dict[Path, str] = {}
    for edit in bug.edits:
        path = package / edit.file
        text = found.get(path) or path.read_text(encoding="utf-8")
        count = text.count(edit.before)
        if count != 1:
            raise StaleError(f"{bug.name}: {edit.file} has {edit.before!r} {count} times")
        found[path] = text.replace(edit.before, edit.after)
    return found


def apply(bug: Mutant, package: Path) -> None:
    """Put a bug into a copy of the package. Raises: as `mutated`."""
    for path, text in mutated(bug, package).items():
        path.write_text(text, encoding="utf-8")
