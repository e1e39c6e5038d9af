"""A few seconds of `tests/soak.py`, so that it runs, and fails where it should.

Method: the script is run for a short time; then its checks are given what must not pass.
"""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path
from random import Random

import pytest
import soak

import blobkv
from blobkv.testing import SimulatedDisk

SCRIPT = Path(soak.__file__)


@pytest.mark.slow
def test_a_short_soak(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "--seconds", "4", "--seed", "1", "--directory", tmp_path],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr
    assert "operations" in done.stdout
    assert done.stdout.endswith("nothing was wrong\n")
    assert list(tmp_path.iterdir()) == []


def test_a_pair_that_nobody_wrote_is_noticed() -> None:
    writer = soak.Writer(b"0", Random(1))
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        for _ in range(30):
            writer.work(store, Counter())
        writer.compare(store)
        with store.view() as txn:
            assert soak.check_view(txn, "view") == len(writer.model) > 0
        with store.update() as txn:
            soak.data_of(txn, b"0").put(b"stray", b"")

        with pytest.raises(soak.Wrong, match="is not itself"):
            writer.compare(store)
        with store.view() as txn, pytest.raises(soak.Wrong, match="of no commit"):
            soak.check_view(txn, "view")


@pytest.mark.parametrize("what", ["resident", "blocks", "descriptors"])
def test_growth_is_noticed(what: str) -> None:
    growth = soak.Growth()
    growth.resident = [10, 200, 300] + [(100 << 20) + i for i in range(20)]
    growth.blocks = list(growth.resident)
    growth.descriptors = [5, 9] + [6] * 21
    growth.check()

    getattr(growth, what)[-6:] = [200 << 20] * 6
    with pytest.raises(soak.Wrong, match=what):
        growth.check()
