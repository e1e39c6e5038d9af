"""Makes the old stores that `tests/store/test_old_stores.py` opens. No test runs it.

    PYTHONPATH=tests python tests/data/make.py tests/data/format-1

What is there was made once, by the first blobkv that wrote that format, and is kept as it is:
these bytes stand for those on people's disks. When the format changes, run this with the new
blobkv and another directory, and keep the old ones. Beside each store stands what it holds:
for each entry the names of its buckets, its key, and its value, all in hexadecimal.
"""

from __future__ import annotations

import json
import random
import sys
from collections.abc import Callable
from pathlib import Path

from support import buckets
from support.buckets import Contents

import blobkv
from blobkv import Store
from blobkv.testing import SimulatedDisk

Made = tuple[SimulatedDisk, Contents]
NAMES = [b"\x00", b"a", b"a\x00", b"\xfe", b"\xff", b"\xff\xff", "ü".encode()]


def closed() -> Made:
    """A store that was written in three sittings, and closed each time."""
    disk = SimulatedDisk()
    for sitting in range(3):
        with blobkv.open("/db", fs=disk) as store:
            for i in range(4):
                with store.update() as txn:
                    txn[b"sitting"] = b"%d" % sitting
                    txn[b"%d.%d" % (sitting, i)] = b"v" * 10 * i
                    txn.delete(b"%d.%d" % (sitting - 1, i - 1))
            if sitting == 0:
                store.flush()
            contents = dump(store)
    return disk, contents


def killed() -> Made:
    """A store that was killed: one table, and a log with a torn tail and room ahead."""
    disk = SimulatedDisk()
    store = blobkv.open("/db", fs=disk)
    with store.update() as txn:
        txn[b"table"] = b"value"
    store.flush()
    for i in range(90):
        with store.update() as txn:
            txn[b"%02d" % (i % 30)] = b"%d" % i * 5
    # Room is made in the background: wait for it.
    store._source._room.close()
    contents, end = dump(store), store.stats().log_size
    with store.update(durable=False) as txn:
        txn[b"torn"] = b"t" * 200
    after = disk.crash(random.Random(0), keep="all")
    store.close()
    (log,) = (f"/db/{name}" for name in after.names("/db") if name.endswith(".log"))
    data = bytearray(after.contents(log))
    assert len(data) > end + 1000
    data[end + 100 : end + 300] = bytes(200)
    after.set_contents(log, bytes(data))
    return after, contents


def ranges() -> Made:
    """Several tables that overlap, with overwrites, tombstones, and range tombstones."""
    disk, rng = SimulatedDisk(), random.Random(1)
    keys = [b"%02d/%02d" % (group, i) for group in range(6) for i in range(90)]
    cleared: list[tuple[bytes, ...]] = [(), (b"00",), (b"01", b"02"), (b"03",)]
    with blobkv.open("/db", fs=disk) as store:
        for layer, prefixes in enumerate(cleared):
            with store.update() as txn:
                # So many that each is a range tombstone.
                assert all(txn.clear(prefix) > 64 for prefix in prefixes)
                for key in rng.sample(keys, 500 - 140 * layer):
                    txn[key] = b"%d" % layer * rng.randrange(12)
                for key in rng.sample(keys, 20):
                    txn.delete(key)
            store._freeze().maintenance.flush()
        with store.update() as txn:
            assert txn.clear(b"05") > 64
            txn[b"05/log"] = b"in the log"
        contents = dump(store)
    return disk, contents


def with_buckets() -> Made:
    """Buckets whose names need escapes, and keys and values large and empty."""
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        with store.update() as txn:
            for name in NAMES:
                for inner in NAMES[:3]:
                    for key in (b"", *NAMES):
                        txn.bucket(name, inner)[key] = name + inner + key
            txn.bucket("packed")[blobkv.pack("a", -1, b"\x00")] = blobkv.pack(2**63)
        store.flush()
        with store.update() as txn:
            large = txn.bucket("large")
            large[b"k" * 3000] = b"a long key"
            # As long as a place in the hash index can say, and a little more or less: ten bits
            # for a key with the path of its bucket, fourteen for a value.
            large[b"value"] = (bytes(range(256)) * 64)[:16383]
            for size in range(1012, 1017):
                large[b"\xff" * size] = b""
            txn.delete_bucket(b"\xff\xff")
        store.flush()
        with store.update() as txn:
            txn.bucket("log", "inner")[b""] = b""
        contents = dump(store)
    return disk, contents


MAKERS: dict[str, Callable[[], Made]] = {
    "closed": closed,
    "killed": killed,
    "ranges": ranges,
    "buckets": with_buckets,
}


def dump(store: Store) -> Contents:
    with store.view() as txn:
        return buckets.dump(txn)


def save(directory: Path, name: str, disk: SimulatedDisk, contents: Contents) -> None:
    (directory / name).mkdir(parents=True)
    for file in disk.names("/db"):
        if file not in {"LOCK", "MANIFEST.new", "BALLAST"}:
            (directory / name / file).write_bytes(disk.contents(f"/db/{file}"))
    lines = [
        json.dumps([[part.hex() for part in path], key.hex(), value.hex()])
        for path, entries in contents.items()
        for key, value in entries.items()
    ]
    (directory / f"{name}.json").write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    for store_name, make in MAKERS.items():
        save(Path(sys.argv[1]), store_name, *make())
