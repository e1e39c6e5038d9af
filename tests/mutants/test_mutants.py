"""Seeded bugs fit the code, and a trial tells a bug that is noticed from one that is not.

Method: each bug of the catalog is put into the text of the package and the result is parsed.
Trials are of a project of one function and one test. Whether the tests of blobkv notice the
bugs takes minutes: `run.py` does that.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest
from catalog import ALL
from mutant import Mutant, StaleError, mutant, mutated
from trial import Outcome, TrialError, Trials

ROOT = Path(__file__).parents[2]

CODE = """
def double(number):
    return number + number
"""
TESTS = """
import blobkv

def test_twice():
    assert blobkv.double(2) == 4

def test_always_wrong():
    assert not blobkv.double(0) == 0
"""
UNLUCKY = """
from pathlib import Path

def test_twice():
    assert True

def test_unlucky():
    before = Path("before")
    seen = before.exists()
    before.touch()
    assert seen
"""
SAME = "number + number"


@pytest.mark.parametrize("bug", ALL, ids=lambda bug: bug.name)
def test_every_seeded_bug_fits_the_code_and_changes_it(bug: Mutant) -> None:
    for path, text in mutated(bug, ROOT / "blobkv").items():
        assert ast.parse(text)
        assert text != path.read_text(encoding="utf-8")


def test_what_is_tried_first_is_there() -> None:
    for bug in ALL:
        assert bug.hints
        for hint in bug.hints:
            assert is_there(hint), f"{bug.name}: {hint}"


def is_there(hint: str) -> bool:
    """Whether `tests/store` has that file, and it that test if one is named."""
    name, *tests = hint.split("::")
    text = (ROOT / "tests" / "store" / name).read_text(encoding="utf-8")
    # A model test is a class that Hypothesis makes: its method stands nowhere.
    return not tests or f"def {tests[0]}(" in text or f"{tests[0]} = " in text


def test_the_document_tells_of_every_seeded_bug_and_which_test_notices_it() -> None:
    page = (ROOT / "docs" / "testing.md").read_text(encoding="utf-8")
    rows = re.findall(
        r"^\| ([a-z-]+) \| (.+) \| (?:hung: |crashed: )?`(.+)` \|$", page, re.MULTILINE
    )

    assert [(name, does) for name, does, _ in rows] == [(bug.name, bug.does) for bug in ALL]
    for name, _, by in rows:
        assert is_there(by), f"{name}: {by}"


def bug_in(before: str, after: str, hint: str = "test_toy.py::test_twice") -> Mutant:
    return mutant(
        "toy", "__init__.py", before, after, does="wrong", costs="nothing", hints=[hint]
    )


@pytest.mark.parametrize("before", ["number * number", "number"])
def test_a_bug_that_does_not_fit_exactly_once_is_refused(before: str, toy: Path) -> None:
    with pytest.raises(StaleError, match="toy: "):
        mutated(bug_in(before, "0"), toy / "blobkv")


@pytest.fixture
def toy(tmp_path: Path) -> Path:
    """A project with one function, a test of it, and a test that always fails."""
    for name, text in (("blobkv/__init__.py", CODE), ("tests/store/test_toy.py", TESTS)):
        path = tmp_path / "toy" / name
        path.parent.mkdir(parents=True)
        path.write_text(text, encoding="utf-8")
    return tmp_path / "toy"


def tried(toy: Path, bug: Mutant, limit: float = 60.0) -> Outcome:
    with Trials(toy, limit) as trials:
        return trials.of(bug)


@pytest.mark.slow
def test_a_bug_that_a_test_notices_is_caught_by_it(toy: Path) -> None:
    outcome = tried(toy, bug_in(SAME, "number"))

    assert (outcome.verdict, outcome.test) == ("caught", "tests/store/test_toy.py::test_twice")
    assert CODE in (toy / "blobkv" / "__init__.py").read_text("utf-8"), "only a copy has it"


@pytest.mark.slow
def test_a_bug_that_no_test_notices_survives(toy: Path) -> None:
    test = toy / "tests" / "store" / "test_toy.py"
    test.write_text(TESTS.partition("def test_always_wrong")[0], encoding="utf-8")
    outcome = tried(toy, bug_in(SAME, "number * number"))

    assert (outcome.verdict, outcome.test) == ("SURVIVED", None)


@pytest.mark.slow
def test_a_bug_that_ends_in_no_time_hangs(toy: Path) -> None:
    bug = bug_in(SAME, "__import__('threading').Event().wait()")
    with pytest.raises(TrialError, match="ended with status None"):
        # No test had begun: then nothing is proven.
        tried(toy, bug, 0.01)
    outcome = tried(toy, bug, 24.0)

    assert (outcome.verdict, outcome.test) == ("hung", "tests/store/test_toy.py::test_twice")


@pytest.mark.slow
def test_a_test_that_fails_anyway_catches_nothing(toy: Path) -> None:
    with pytest.raises(TrialError, match="test_always_wrong fails without it, too"):
        tried(toy, bug_in(SAME, "number * number"))


@pytest.mark.slow
def test_a_test_that_fails_once_only_catches_nothing(toy: Path) -> None:
    test = toy / "tests" / "store" / "test_toy.py"
    test.write_text(UNLUCKY, encoding="utf-8")
    with pytest.raises(TrialError, match="test_unlucky failed once, and not again"):
        tried(toy, bug_in(SAME, "number * number"))


@pytest.mark.slow
def test_a_test_that_is_not_there_is_said(toy: Path) -> None:
    with pytest.raises(TrialError, match="ended with status 4"):
        tried(toy, bug_in(SAME, "number", "test_toy.py::test_thrice"))
