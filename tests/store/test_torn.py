"""A log that ends early loses its tail and nothing else; any other file that does is corrupt.

Method: a store is killed, its files are cut to every length, and it is opened again. And:
valid bytes behind a torn frame are cut with it, zeroes behind the end are no damage, and a
commit after such a cut stays.
"""

from __future__ import annotations

import random
from struct import pack

import pytest
from support import buckets

import blobkv
from blobkv._engine.format import FRAME_MAGIC, FRAME_SIZE
from blobkv.errors import CorruptionError
from blobkv.testing import SimulatedDisk

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("room_ahead")]


def killed_store() -> tuple[SimulatedDisk, str, list[int], list[buckets.Contents]]:
    """A killed store; its log's name; where each frame ends; the contents at each end."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    with store.update() as txn:
        txn.put(b"table", b"value")
    store.flush()
    with store.update() as txn:
        txn.put(b"log", b"value")
    log = max(name for name in disk.names("/db") if name.endswith(".log"))
    ends, states = [], []
    for i in range(5):
        with store.view() as txn:
            states.append(buckets.dump(txn))
        ends.append(end_of(disk, log))
        with store.update(durable=i % 2 == 0) as txn:
            txn.put(b"%d" % i, b"v" * i)
    with store.view() as txn:
        states.append(buckets.dump(txn))
    ends.append(end_of(disk, log))
    after = disk.crash(random.Random(0), keep="all")
    store.close()
    return after, log, ends, states


def end_of(disk: SimulatedDisk, log: str) -> int:
    """Where the log's bytes end; it may have been grown ahead with zeroes."""
    return max(64, len(disk.contents(f"/db/{log}").rstrip(b"\0")))


def with_file(disk: SimulatedDisk, name: str, data: bytes) -> SimulatedDisk:
    copy = disk.crash(random.Random(0), keep="all")
    copy.set_contents(f"/db/{name}", data)
    return copy


def contents(disk: SimulatedDisk) -> buckets.Contents:
    with blobkv.open("/db", fs=disk, create=False) as store:
        assert store.verify().ok
        with store.view() as txn:
            return buckets.dump(txn)


def test_a_log_cut_anywhere_keeps_what_is_whole() -> None:
    disk, log, ends, states = killed_store()
    data = disk.contents(f"/db/{log}")

    for size in range(ends[0], ends[-1] + 1):
        whole = sum(end <= size for end in ends) - 1
        assert contents(with_file(disk, log, data[:size])) == states[whole], size
        # As a log that was grown ahead, or whose size reached the disk before its data.
        zeroed = data[:size] + bytes(1000)
        assert contents(with_file(disk, log, zeroed)) == states[whole], size


def test_frames_behind_a_torn_one_are_cut_with_it() -> None:
    disk, log, ends, states = killed_store()
    data = bytearray(disk.contents(f"/db/{log}"))
    # The second to last frame was not synced when the last one was written.
    data[ends[3] + 40] ^= 0xFF
    after = with_file(disk, log, bytes(data))

    assert contents(after) == states[3]
    with blobkv.open("/db", fs=after) as store, store.update() as txn:
        txn.put(b"after", b"the cut")
    assert contents(after) == {(): {**states[3][()], b"after": b"the cut"}}


def test_a_frame_that_was_promised_is_not_torn_but_corrupt() -> None:
    disk, log, ends, _ = killed_store()
    data = bytearray(disk.contents(f"/db/{log}"))
    data[ends[2] + 40] ^= 0xFF

    with pytest.raises(CorruptionError) as caught:
        contents(with_file(disk, log, bytes(data)))
    assert (caught.value.path, caught.value.offset) == (log, ends[2])


@pytest.mark.parametrize("suffix", [".tbl", "MANIFEST"])
def test_other_files_cut_anywhere_are_corrupt(suffix: str) -> None:
    disk, *_ = killed_store()
    name = next(name for name in disk.names("/db") if name.endswith(suffix))
    data = disk.contents(f"/db/{name}")

    for size in range(len(data)):
        with pytest.raises(CorruptionError) as caught:
            contents(with_file(disk, name, data[:size]))
        assert caught.value.path == name


@pytest.mark.parametrize("suffix", [".log", ".tbl", "MANIFEST"])
def test_a_missing_file_is_corruption_that_names_it(suffix: str) -> None:
    disk, *_ = killed_store()
    name = max(name for name in disk.names("/db") if name.endswith(suffix))
    disk.remove(f"/db/{name}")

    with pytest.raises(CorruptionError) as caught:
        blobkv.open("/db", fs=disk)
    assert caught.value.path == name


def test_an_older_log_that_ends_early_is_corrupt_though_its_last_commit_is_not_promised() -> (
    None
):
    """That a newer log exists is the promise that the older one was whole and durable."""
    disk = SimulatedDisk()
    for value in (b"older", b"newer"):
        with blobkv.open("/db", fs=disk) as store, store.update() as txn:
            txn.put(b"key", value)
    older, newer = sorted(name for name in disk.names("/db") if name.endswith(".log"))
    assert older < newer
    data = disk.contents(f"/db/{older}").rstrip(b"\0")

    commits_end = len(data) - FRAME_SIZE
    # Of the seal nothing was promised: it says only that the end was a clean one.
    for size in range(commits_end, len(data)):
        assert contents(with_file(disk, older, data[:size])) == contents(disk)
    for size in range(commits_end):
        with pytest.raises(CorruptionError) as caught:
            contents(with_file(disk, older, data[:size]))
        assert caught.value.path == older


def test_a_store_without_its_manifest_is_not_called_none() -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store, store.update() as txn:
        txn.put(b"k", b"v")
    disk.remove("/db/MANIFEST")

    for options in ({"read_only": True}, {"create": False}, {}):
        with pytest.raises(CorruptionError, match=r"MANIFEST.*missing, though 000001\.log"):
            blobkv.open("/db", fs=disk, **options)


@pytest.mark.parametrize("synced", [64, 2**40, "another log's"])
def test_a_torn_value_that_is_full_of_frame_headers_is_cut(synced: int | str) -> None:
    """As of a store's log that somebody keeps in a store."""
    claimed = 400_000
    headers = b"".join(
        pack(
            "<IIQQIBxH",
            7,
            claimed,
            1_000_000 + i,
            64 + 32 * i if isinstance(synced, str) else synced,
            0,
            1,
            FRAME_MAGIC,
        )
        for i in range(1 << 15)
    )
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    with store.update() as txn:
        txn.put(b"safe", b"")
    with store.update(durable=False) as txn:
        txn.put(b"torn", headers)
    for seed in range(20):
        after = disk.crash(random.Random(seed))
        with blobkv.open("/db", fs=after) as survivor, survivor.view() as txn:
            assert txn.get(b"safe") == b""
            assert txn.get(b"torn", headers) == headers
