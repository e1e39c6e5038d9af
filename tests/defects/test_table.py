"""The page of defects has each of them once, and names the tests that hold it, which exist.

Method: the tables of `docs/defects.md` are read as they are, and compared with the names of the
tests here, and with the files that they name. A defect that cannot arise says so, and why.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "defects.md"
ORIGINAL = [name for n in range(1, 61) for name in (["D4a", "D4b"] if n == 4 else [f"D{n}"])]
LATER = [f"L{n}" for n in range(1, 8)]
DEFECT = re.compile(r"[DL]\d+[ab]?")
TEST = re.compile(r"test_([dl])0*(\d+[ab]?)_")


def names_in(path: Path) -> list[str]:
    """The names of a file's tests, also those in classes, in the order of the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return [
        node.name
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    ]


def rows() -> list[tuple[str, str, str]]:
    """The defect, what went wrong, and what holds it, for each row of the page."""
    lines = PAGE.read_text(encoding="utf-8").splitlines()
    cells = [tuple(map(str.strip, line.strip("|").split("|"))) for line in lines if "|" in line]
    return [row for row in cells if len(row) == 3 and DEFECT.fullmatch(row[0])]


ROWS = rows()
HERE = {
    name: path
    for path in sorted(Path(__file__).parent.glob("test_*.py"))
    if path != Path(__file__)
    for name in names_in(path)
}


def test_every_defect_has_its_row_in_order() -> None:
    assert [defect for defect, _, _ in ROWS] == ORIGINAL + LATER


@pytest.mark.parametrize(("defect", "wrong", "held"), ROWS, ids=[row[0] for row in ROWS])
def test_the_row_is_true_of(defect: str, wrong: str, held: str) -> None:
    named = re.findall(r"`([^`]+)`", held)
    own = [name for name in HERE if defect_of(name) == defect]

    assert wrong
    assert named or held.startswith("Cannot be: ")
    # All tests that bear its number, and no other that bears one.
    assert [name for name in named if "/" not in name] == own
    for other in named[len(own) :]:
        file, _, test = other.partition("::")
        assert (ROOT / file).is_file(), other
        assert not test or test in names_in(ROOT / file), other


def test_every_test_here_is_of_a_defect() -> None:
    defects = {defect for defect, _, _ in ROWS}

    assert [name for name in HERE if defect_of(name) not in defects] == []


def defect_of(test: str) -> str:
    found = TEST.match(test)
    return found[1].upper() + found[2] if found else ""
