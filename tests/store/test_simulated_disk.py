"""The simulated disk loses exactly what a real one may lose, and nothing that it promised.

Method: small scenes, each crashed with many seeds; the set of outcomes must lie within what
the assumptions in `blobkv.testing` allow, and where the harm is the point, reach it.
"""

from __future__ import annotations

import errno
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobkv.testing import PowerCut, SimulatedDisk

SEEDS = range(300)


def disk_with(data: bytes) -> SimulatedDisk:
    """A disk with the durable file /a and nothing else."""
    disk = SimulatedDisk()
    file = disk.create("/a")
    file.append(data)
    file.sync()
    file.close()
    disk.sync_directory("/")
    return disk


def outcomes(disk: SimulatedDisk, path: str = "/a") -> set[bytes]:
    return {disk.crash(random.Random(seed)).contents(path) for seed in SEEDS}


def names_left(disk: SimulatedDisk, path: str = "/") -> set[tuple[str, ...]]:
    return {tuple(disk.crash(random.Random(seed)).names(path)) for seed in SEEDS}


def test_synced_bytes_and_names_survive() -> None:
    assert outcomes(disk_with(b"x" * 2000)) == {b"x" * 2000}


def test_a_synced_file_whose_name_was_not_synced_may_be_gone() -> None:
    disk = SimulatedDisk()
    file = disk.create("/a")
    file.append(b"x")
    file.sync()

    assert names_left(disk) == {(), ("a",)}
    assert disk.crash(random.Random(0), keep="none").names("/") == []
    assert disk.crash(random.Random(0), keep="all").names("/") == ["a"]


def test_unsynced_sectors_survive_one_by_one_and_torn() -> None:
    disk = SimulatedDisk()
    file = disk.create("/a")
    disk.sync_directory("/")
    file.append(b"x" * 1536)

    left = outcomes(disk)

    assert {b"", b"x" * 1536} <= left
    assert bytes(512) + b"x" * 1024 in left, "the first sector alone can be lost"
    assert bytes(1536) in left, "the size can be ahead of the data"
    assert any(data.rstrip(b"\0").count(b"x") % 512 > 0 for data in left), "sectors tear"
    assert all(set(data) <= set(b"\0x") and len(data) <= 1536 for data in left)


@given(st.binary(max_size=1500), st.binary(max_size=1500), st.randoms(use_true_random=False))
def test_what_was_synced_survives_what_is_written_behind_it(
    synced: bytes, unsynced: bytes, rng: random.Random
) -> None:
    disk = SimulatedDisk()
    file = disk.create("/a")
    disk.sync_directory("/")
    file.append(synced)
    file.sync()
    file.append(unsynced)

    left = disk.crash(rng).contents("/a")

    assert left.startswith(synced)
    assert len(left) <= len(synced + unsynced)
    assert all(b in (0, w) for b, w in zip(left, synced + unsynced, strict=False) if b != w)


def test_a_cut_is_lost_or_kept_and_what_it_took_away_may_come_back() -> None:
    disk = disk_with(b"old!")
    file = disk.create("/b")
    disk.sync_directory("/")
    file.append(b"failed frame")
    file.truncate(0)
    file.append(b"next")

    left = outcomes(disk, "/b")

    assert {b"", b"next"} <= left
    assert any(data.endswith(b"frame") for data in left)
    file.sync()
    assert outcomes(disk, "/b") == {b"next"}


def test_a_rename_leaves_the_old_file_or_the_new_one() -> None:
    disk = disk_with(b"old")
    file = disk.create("/b")
    file.append(b"new")
    file.sync()
    disk.rename("/b", "/a")

    assert outcomes(disk) == {b"old", b"new"}
    assert names_left(disk) == {("a",), ("a", "b")}
    disk.sync_directory("/")
    assert outcomes(disk) == {b"new"}


def test_a_rename_ahead_of_its_data_leaves_an_empty_file() -> None:
    disk = disk_with(b"old")
    disk.create("/b").append(b"new")
    disk.rename("/b", "/a")

    assert outcomes(disk) >= {b"old", b"new", b""}


def test_later_changes_of_names_survive_without_earlier_ones() -> None:
    disk = SimulatedDisk()
    disk.create("/a")
    disk.create("/b")

    assert names_left(disk) == {(), ("a",), ("b",), ("a", "b")}


def test_a_remove_may_be_undone_until_the_directory_is_synced() -> None:
    disk = disk_with(b"x")
    disk.remove("/a")

    assert names_left(disk) == {(), ("a",)}
    disk.sync_directory("/")
    assert names_left(disk) == {()}


def test_made_directories_survive_with_their_parents() -> None:
    disk = SimulatedDisk()
    disk.make_directory("/a/b")

    assert names_left(disk, "/a") == {("b",)}


def test_the_disk_goes_on_after_a_crash_and_shares_nothing() -> None:
    disk = disk_with(b"x")
    lock = disk.lock("/LOCK", 0.0)
    after = disk.crash(random.Random(0), keep="all")

    after.remove("/a")
    after.lock("/LOCK", 0.0).release()

    assert disk.contents("/a") == b"x"
    lock.release()


def test_the_power_goes_off_at_the_given_operation_and_stays_off() -> None:
    disk = disk_with(b"")
    before = disk.operations
    disk.cut_at = before + 2

    disk.create("/b")
    for _ in range(2):
        with pytest.raises(PowerCut):
            disk.remove("/a")
    with pytest.raises(PowerCut):
        disk.names("/")

    assert not issubclass(PowerCut, Exception)
    assert disk.operations == before + 2
    assert disk.crash(random.Random(0), keep="all").names("/") == ["a", "b"]


def test_a_failed_sync_loses_the_dirty_bytes_for_good() -> None:
    disk = disk_with(b"")
    file = disk.create("/b")
    disk.sync_directory("/")
    file.append(b"one ")
    file.sync()
    file.append(b"two ")
    disk.fail(when=lambda operation, path: (operation, path) == ("sync", "/b"))
    with pytest.raises(OSError, match="EIO"):
        file.sync()
    file.append(b"three")
    file.sync()

    assert disk.contents("/b") == b"one two three", "the running system sees no loss"
    left = disk.crash(random.Random(0), keep="none").contents("/b")
    assert left == b"one \0\0\0\0three"


def test_a_short_write_leaves_what_it_wrote() -> None:
    disk = SimulatedDisk()
    file = disk.create("/a")
    disk.fail(errno.ENOSPC, at=disk.operations + 1, kept_size=3)
    with pytest.raises(OSError, match="ENOSPC"):
        file.append(b"abcdef")
    file.truncate(0)
    file.append(b"xy")

    assert disk.contents("/a") == b"xy"


def test_faults_strike_as_often_as_asked_and_heal() -> None:
    disk = disk_with(b"x")
    disk.fail(when=lambda operation, _: operation == "open", times=2)
    for _ in range(2):
        with pytest.raises(OSError, match="EIO"):
            disk.open("/a")
    disk.open("/a").close()
    disk.fail(times=None)
    for _ in range(3):
        with pytest.raises(OSError, match="EIO"):
            disk.map("/a")
    disk.heal()

    assert disk.map("/a") == b"x"


def test_a_full_disk_takes_what_fits() -> None:
    disk = SimulatedDisk(capacity=10)
    file = disk.create("/a")
    file.append(b"12345678")
    with pytest.raises(OSError, match="ENOSPC"):
        file.append(b"90ab")

    assert disk.contents("/a") == b"1234567890"
    assert disk.used_size == 10
    disk.remove("/a")
    disk.create("/b").append(b"room again")


def test_a_lying_disk_keeps_nothing_it_promised() -> None:
    disk = SimulatedDisk(lie=True)
    file = disk.create("/a")
    file.append(b"x")
    file.sync()
    disk.sync_directory("/")

    assert disk.contents("/a") == b"x"
    assert disk.crash(random.Random(0), keep="none").names("/") == []


def test_damage_is_seen_by_open_readers_and_survives() -> None:
    disk = disk_with(b"good")
    reader = disk.open("/a")
    disk.set_contents("/a", b"rot")

    assert reader.read(0, 10) == b"rot"
    assert outcomes(disk) == {b"rot"}
