"""What one process has open, no other opens; when it is killed, the next one does.

Method: a child that opens and waits to be killed, in the midst of which this process tries.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import children
from support.holding_open import KINDS

import blobkv

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS)
def test_what_another_process_has_open_is_locked_until_it_is_killed(
    tmp_path: Path, kind: str
) -> None:
    root = tmp_path / "root"
    KINDS[kind](root).close()
    child = children.start("holding_open", kind, root)
    assert child.stdout is not None
    try:
        assert child.stdout.readline() == "open\n"
        for _ in range(2):
            with pytest.raises(blobkv.LockedError, match=str(child.pid)):
                KINDS[kind](root)
    finally:
        children.read_until_killed(child, 0)

    with KINDS[kind](root) as opened:
        assert list(opened.walk()) == []


@pytest.mark.parametrize("kind", KINDS)
def test_who_waits_has_it_when_the_other_is_done(tmp_path: Path, kind: str) -> None:
    root = tmp_path / "root"
    child = children.start("holding_open", kind, root)
    assert child.stdout is not None
    assert child.stdin is not None
    try:
        assert child.stdout.readline() == "open\n"
        child.stdin.write("done\n")
        child.stdin.flush()
        with KINDS[kind](root, lock_timeout=children.TIMEOUT_SECONDS) as opened:
            assert list(opened.walk()) == []
    finally:
        children.read_until_killed(child, 0)
