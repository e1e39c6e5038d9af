"""The fuzz targets hold for some thousand inputs that chance makes, the same every time.

Method: each target takes the first inputs that its own generator draws from a fixed seed. The
search by coverage, which takes longer, is `tests/fuzz/fuzz.py`; what it found is in
`test_fuzz_finds.py`.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from random import Random
from zlib import crc32

import pytest
from support.fuzz_stores import fuzz_log, fuzz_table
from support.fuzz_targets import TARGETS

from blobkv._engine import format as frames
from blobkv._engine import log, table_format
from blobkv._engine.format import Frame

SCRIPT = Path(__file__).parents[1] / "fuzz" / "fuzz.py"
COUNTS = {
    "manifest": 3000,
    "log": 400,
    "table": 300,
    "block": 5000,
    "store": 300,
    "keys": 1500,
    "answers": 3000,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", TARGETS)
def test_random_inputs_to(name: str) -> None:
    target = TARGETS[name]

    for data in islice(target.inputs(Random(20)), COUNTS[name]):
        try:
            target.run(data)
        except Exception as error:
            error.add_note(f"input {data.hex()}")
            raise


def goes_wrong(run: Callable[[bytes], None], data: bytes) -> bool:
    try:
        run(data)
    except Exception:  # noqa: BLE001  # As a fuzzer takes it.
        return True
    return False


def as_is(name: str, count: int) -> Iterator[bytes]:
    """Inputs whose checksums are not mended."""
    for data in islice(TARGETS[name].inputs(Random(3)), count):
        yield b"\x00" + data[1:]


def test_a_checksum_of_a_block_that_is_not_compared_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        table_format,
        "check_block",
        lambda data, offset, _, start=0: table_format.block_size(data, offset - start),
    )

    assert any(goes_wrong(fuzz_table, data) for data in as_is("table", 300))


def test_a_checksum_of_a_frame_that_is_not_compared_is_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    decode = log.decode_frame

    def lax(data: bytes, at: int, log_id: int) -> Frame | None:
        changed = bytearray(data)
        size = frames.FRAME_SIZE + int.from_bytes(data[at + 4 : at + 8], "little")
        if at + size <= len(data):
            crc = crc32(data[at + 4 : at + size], log_id)
            changed[at : at + 4] = crc.to_bytes(4, "little")
        return decode(bytes(changed), at, log_id)

    monkeypatch.setattr(log, "decode_frame", lax)

    assert any(goes_wrong(fuzz_log, data) for data in as_is("log", 300))


@pytest.mark.slow
def test_the_script_runs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "manifest", "--seconds", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 0, done.stderr


def test_the_script_names_the_targets_there_are() -> None:
    done = subprocess.run(
        [sys.executable, str(SCRIPT), "nothing", "--blind"],
        capture_output=True,
        text=True,
        check=False,
    )

    assert done.returncode == 1
    assert ", ".join(TARGETS) in done.stderr
