"""The format has one specification: the page shows what the modules' docstrings say.

Method: every indented paragraph of the docstrings that specify bytes must stand in the page.
"""

from __future__ import annotations

import importlib
from pathlib import Path

import pytest

from blobkv._engine.format import encode_frame

PAGE = (Path(__file__).parents[2] / "docs" / "format.md").read_text(encoding="utf-8")
SPECIFIED = [
    "blobkv._engine.format",
    "blobkv._engine.table_format",
    "blobkv._engine.hash_index",
    "blobkv._engine.block_index",
    "blobkv._engine.manifest",
    "blobkv.bucket",
    "blobkv.keys",
]


@pytest.mark.parametrize("name", SPECIFIED)
def test_the_page_shows_the_docstring_of(name: str) -> None:
    docstring = importlib.import_module(name).__doc__ or ""
    figures = [part for part in docstring.split("\n\n") if part.startswith("    ")]

    assert figures
    for figure in figures:
        assert "\n".join(line[4:] for line in figure.splitlines()).rstrip() in PAGE


def test_the_worked_example_is_what_is_written() -> None:
    example = PAGE.split("Worked example")[1].split("```")[1]
    words = "".join(line[:28].replace(" ", "") for line in example.strip().splitlines())

    frame = encode_frame(1, {b"foo": b"bar", b"x": None}, log_id=0x01020304, synced=64)

    assert words == frame.hex()
