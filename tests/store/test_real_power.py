"""The plug pulled on real file systems loses no acknowledged commit, nor half of one.

Method: an ext4 and an xfs in a file are mounted, and a process writes a numbered history into a
store there, from four threads, with every kind of call. It says what it was promised, is killed
at some moment and waited for; only then the file system is made to forget what it had not
written, and mounted again. The store must verify and hold exactly what the history says of some
change, none older than the last promised; backups that were promised, too. In a second test the
power goes again while the open that follows recovers.

The same with a store that syncs nothing must lose what it acknowledged, or this tests nothing.
What a reader in another process was shown must survive, too. And a store whose disk goes away
while it is open must refuse writes and show what it has.

`BLOBKV_POWER_CYCLES` cuts the power so many times on each instead of 10 times.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
from support import children, history, volumes
from support.buckets import Contents
from support.volumes import LoopVolume

import blobkv
from blobkv.errors import CorruptionError

pytestmark = pytest.mark.slow

CYCLES = int(os.environ.get("BLOBKV_POWER_CYCLES", "10"))
PROMISES_MAX = 100
# About as many as an open makes to the disk when it has something to recover.
RECOVERY_CHANGES = 16


class Promised(NamedTuple):
    """What must survive: a change and all before it, and backups by their names."""

    number: int
    backups: list[str]


@pytest.fixture(params=["ext4", "xfs"])
def volume(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[LoopVolume]:
    with volumes.loop(tmp_path, request.param) as mounted:
        yield mounted


def test_a_pulled_plug_loses_no_acknowledged_commit(volume: LoopVolume) -> None:
    contents: Contents = {}
    for seed in range(CYCLES):
        promised = write_until_killed(volume.path / "db", seed)
        volume.cut_power()
        contents = check(volume.path / "db", contents, seed, promised)
    print(f"{CYCLES} power cuts on {volume.path.name}, {history.number_of(contents)} changes")


def test_a_plug_pulled_again_during_recovery_loses_none_either(volume: LoopVolume) -> None:
    contents: Contents = {}
    cuts = interrupted = 0
    for seed in range(1000, 1000 + max(3, CYCLES // 3)):
        rng = random.Random(seed)
        promised = write_until_killed(volume.path / "db", seed)
        volume.cut_power()
        for _ in range(2):
            shown = open_until_killed(volume.path / "db", rng.randrange(1, RECOVERY_CHANGES))
            volume.cut_power()
            cuts += 1
            interrupted += shown is None
            # What was shown stays, promised or not.
            promised = promised._replace(number=max(promised.number, shown or 0))
        contents = check(volume.path / "db", contents, seed, promised)
    print(f"{interrupted} of {cuts} recoveries without power on {volume.path.name}")

    assert interrupted


def test_a_store_that_syncs_nothing_is_found_out(volume: LoopVolume) -> None:
    lost = 0
    for seed in range(3):
        path = volume.path / f"db-{seed}"
        blobkv.open(path).close()
        promised = write_until_killed(path, seed, "forget")
        volume.cut_power()
        try:
            lost += history.number_of(history.read(path)) < promised.number
        except CorruptionError:
            lost += 1

    assert lost


def test_what_a_reader_beside_the_writer_was_shown_survives(volume: LoopVolume) -> None:
    """Visible means durable in every process, even of commits that need not be."""
    path, seed = volume.path / "db", 6
    process = children.start("undurable", path, seed)
    try:
        assert process.stdout is not None
        number = int(process.stdout.readline())
        with blobkv.open(path, read_only=True) as reader, reader.view() as txn:
            shown = history.reached(txn)
    finally:
        children.read_until_killed(process, 0)
    volume.cut_power()

    assert shown == number
    assert history.survived(path, seed) == number


def test_a_store_whose_disk_goes_away_refuses_writes_and_reads_on(volume: LoopVolume) -> None:
    path, seed = volume.path / "db", 5
    process = children.start("unplugged", path, seed)
    assert process.stdout is not None
    try:
        number = int(process.stdout.readline())
        volume.shut_down()
        rest, _ = process.communicate("gone\n", timeout=children.TIMEOUT_SECONDS)
    finally:
        process.kill()
        process.wait()
    volume.restart()

    first, *refused, shown, opened = rest.splitlines()
    assert first in {"OSError", "PoisonedError"}
    assert refused == ["PoisonedError"] * 2
    assert (shown, opened) == (f"shown {number}", "OSError")
    assert history.survived(path, seed) == number


def write_until_killed(path: Path, seed: int, *flags: str) -> Promised:
    """Write history from where the store is, and kill the writer; return what it promised."""
    count = random.Random(seed).randrange(1, PROMISES_MAX)
    if seed % 4 == 3:
        flags = (*flags, "child")
    lines = children.read_until_killed(
        children.start("history_writer", path, seed, *flags), count
    )
    backups = [line.split()[1] for line in lines if line.startswith("backup ")]
    return Promised(max((int(line) for line in lines if line.isdigit()), default=0), backups)


def open_until_killed(path: Path, number: int) -> int | None:
    """Open the store, killed before so many changes to the disk; return what it showed."""
    lines, status = children.run("killed_open", path, number)
    assert status == -signal.SIGKILL
    return int(lines[0]) if lines else None


def check(path: Path, before: Contents, seed: int, promised: Promised) -> Contents:
    """Judge what survived; return it. `before` is what the store held before the writer."""
    after = history.read(path)
    number = history.number_of(after)
    assert number >= promised.number, f"cycle {seed}: change {promised.number} is gone"
    assert after == history.replayed(before, seed, number), f"cycle {seed}: not change {number}"
    for name in promised.backups:
        copy = history.read(path.with_name(name))
        number = history.number_of(copy)
        assert copy == history.replayed(before, seed, number), f"cycle {seed}: {name}"
    # Those that were not finished, too.
    for backup in path.parent.glob("backup-*"):
        shutil.rmtree(backup)
    return after
