"""A file over 400 lines holds two nouns, a function over 60 lines does two things.

Docstrings do not count for functions: saying more about one must never be discouraged.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FILE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60

# A longer file needs a reason here.
LONGER: dict[str, str] = {}

SOURCES = [
    path
    for folder in ("blobkv", "blobmap", "tests", "benchmarks")
    for path in sorted((ROOT / folder).rglob("*.py"))
]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_sizes(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    long = [
        f"{node.name} has {size} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and (size := body_lines(node)) > FUNCTION_LINES_MAX
    ]

    assert not long
    assert source.count("\n") <= FILE_LINES_MAX or str(path.relative_to(ROOT)) in LONGER


def test_every_exception_is_needed() -> None:
    for name, reason in LONGER.items():
        assert reason
        assert (ROOT / name).read_text(encoding="utf-8").count("\n") > FILE_LINES_MAX


def body_lines(node: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    assert node.end_lineno is not None
    lines = node.end_lineno - node.lineno + 1
    if ast.get_docstring(node) is not None:
        docstring = node.body[0]
        assert docstring.end_lineno is not None
        lines -= docstring.end_lineno - docstring.lineno + 1
    return lines
