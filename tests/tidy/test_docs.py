"""What the documents and docstrings show runs, and says nothing left undone."""

from __future__ import annotations

import doctest
import importlib
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = [
    path
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
    if path.exists()
]
MODULES = [
    str(path.relative_to(ROOT).with_suffix("")).replace("/", ".").removesuffix(".__init__")
    for package in ("blobkv", "blobmap")
    for path in sorted((ROOT / package).rglob("*.py"))
    if path.name != "__main__.py"
]
TEXTS = [
    path
    for folder in ("blobkv", "blobmap", "tests", "benchmarks", "docs")
    for path in sorted((ROOT / folder).rglob("*"))
    if path.suffix in {".md", ".py"} and path != Path(__file__)
] + sorted(ROOT.glob("*.md"))

UNDONE = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b")
VAGUE = re.compile(r"\bclass \w*(Manager|Helper|Base|Impl|Util)s?\b")
PRIVATE_PATH = re.compile(r"/(?:home|Users|work|mnt)/\w")


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_examples_in_documents_run(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testfile(str(path), module_relative=False, encoding="utf-8")

    assert failed == 0


@pytest.mark.parametrize("name", MODULES)
def test_examples_in_docstrings_run(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = importlib.import_module(name)
    monkeypatch.chdir(tmp_path)
    failed, _ = doctest.testmod(module)

    assert failed == 0


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_is_left_undone_or_private(path: Path) -> None:
    text = path.read_text(encoding="utf-8")

    for pattern in (UNDONE, VAGUE, PRIVATE_PATH):
        assert not pattern.findall(text), pattern.pattern


def test_every_module_opens_with_a_docstring() -> None:
    for name in MODULES:
        assert importlib.import_module(name).__doc__, f"{name} does not say what it is for"
