"""Whatever a child says, it is a piece, or the job is done in this process.

Method: a child is put in place that says what no child of blobkv does, as when something that
is loaded with the interpreter writes to its standard output.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

import blobkv
from blobkv._engine import builder
from blobkv._engine.child import Child, ChildError


def saying(*lines: bytes) -> Child:
    """A child whose answers these are; it never ends by itself."""

    def never() -> int:
        raise AssertionError("waited for a child that lives")

    child = Child.__new__(Child)
    out = b"".join(line + b"\n" for line in lines)
    process = SimpleNamespace(stdin=BytesIO(), stdout=BytesIO(out), wait=never)
    child._process = cast("Any", process)
    return child


NO_PIECES = [
    b"true",
    b"7",
    b'"text"',
    b"[]",
    b"[null, 0]",
    b"[null, null, null]",
    b'[null, 0, "no hex"]',
    b"[[1], 0, null]",
    b'[["1", 2, 3, "4"], 5, null]',
    b'[[999, 2, 3, "4"], 5, null]',
]


@pytest.mark.parametrize("line", [b"null", b"[" * 100_000, b"\xff", b"{}"])
def test_what_is_no_answer_at_all_is_the_childs_failure(line: bytes) -> None:
    with pytest.raises(ChildError):
        saying(line).ask("piece", 1)


@pytest.mark.parametrize("line", NO_PIECES)
def test_what_is_no_answer_to_the_job_is_done_here(
    line: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "CHILD_SIZE_MIN", 0)
    monkeypatch.setattr(builder, "child_is_possible", lambda _: None)
    answers: Iterator[object] = iter([json.loads(line)] * 99)
    monkeypatch.setattr(Child, "ask", lambda *_: next(answers))
    pairs = {b"%03d" % i: b"value" for i in range(300)}
    with blobkv.open(tmp_path / "db") as store:
        for start in (0, 100):
            with store.update() as txn:
                txn.update({key: pairs[key] for key in list(pairs)[start:]})
            store._freeze().maintenance.flush()
        store.compact()

        assert store.stats().child_reason is not None
        assert store.stats().child_tables == 0
        assert store.verify().ok
        with store.view() as txn:
            assert dict(txn) == pairs
