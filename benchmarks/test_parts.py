"""The command that times parts runs, tiny."""

from __future__ import annotations

from typing import TYPE_CHECKING

import parts

if TYPE_CHECKING:
    from pathlib import Path

    import pytest


def test_every_part_is_timed_and_nothing_is_left(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parts.main(["--keys", "2000", "--root", str(tmp_path)])

    figures = [float(line.split()[-2]) for line in capsys.readouterr().out.splitlines()]
    assert len(figures) == 19
    assert min(figures) >= 0
    assert list(tmp_path.iterdir()) == []
