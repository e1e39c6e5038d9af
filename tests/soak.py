"""Everything at once for as long as you like: no answer may be wrong, and nothing may grow.

    python tests/soak.py [--seconds 3600] [--seed N] [--directory DIRECTORY]

Rounds follow each other. In each the store is opened, threads do all that a store can do, and
it is closed again; then every writer's model must be what the store holds. A writer changes
one bucket of its own, and with each commit the bucket's sum, so that whoever reads, in any view
of any store beside or backup, can tell whether what it sees is one commit's state. After
each round memory and descriptors are noted; once warm, neither may grow. What was noted is
printed every minute. The exit status is 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import gc
import resource
import shutil
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from random import Random
from statistics import median
from zlib import crc32

import blobkv
from blobkv import Store, Transaction

Pairs = dict[bytes, bytes]

MEMTABLE_SIZE = 1 << 20
WRITERS = 3
READERS = 2
KEYS = 4000
ROUND_SECONDS_MAX = 15.0
PRINT_SECONDS = 60.0
# What a growth of memory has to exceed to be one, and not the allocator's mood.
GROWTH_FACTOR_MAX = 1.2
GROWTH_SIZE_MAX = 24 << 20
GROWTH_BLOCKS_MAX = 20_000
WARM_ROUNDS = 3
SWITCH_SECONDS = 0.0002


class Wrong(Exception):
    """An answer that is not right, or something that grows."""


def check(condition: object, what: str) -> None:
    if not condition:
        raise Wrong(what)


def total(pairs: Pairs) -> int:
    """Return a number that stands for what is in a bucket, in whatever order."""
    return sum(crc32(value, crc32(key)) * (len(value) + 1) for key, value in pairs.items())


def spelled(pairs: Pairs) -> bytes:
    return b"%d %d" % (len(pairs), total(pairs))


def data_of(txn: Transaction, name: bytes) -> blobkv.Bucket:
    return txn.bucket(b"data", name)


def check_view(txn: Transaction, where: str) -> int:
    """Check that all that a view shows is of one commit; return how many pairs that is."""
    count = 0
    for name, expected in txn.bucket(b"sums").items():
        pairs = dict(data_of(txn, name).items())
        check(list(pairs) == sorted(pairs), f"{where}: keys of {name!r} are not in order")
        check(spelled(pairs) == expected, f"{where}: {name!r} is of no commit")
        count += len(pairs)
    return count


class Writer:
    """Changes one bucket, and knows what is in it; lives on from round to round."""

    def __init__(self, name: bytes, rng: Random) -> None:
        self.name = name
        self.model: Pairs = {}
        self._rng = rng

    def work(self, store: Store, count: Counter[str]) -> None:
        """Do one thing."""
        rng = self._rng
        kind = rng.choice(("update", "update", "quick", "batch", "undone", "look", "walk"))
        count[kind] += 1
        if kind == "look":
            self._look(store)
        elif kind == "walk":
            self._walk(store)
        elif kind == "undone":
            txn = store.update()
            self._change(txn)
            txn.rollback()
        elif kind == "batch":
            self.model = store.batch(self._change)
        else:
            with store.update(durable=kind == "update") as txn:
                changed = self._change(txn)
            self.model = changed

    def compare(self, store: Store) -> None:
        """Check that the store holds the model."""
        with store.view() as txn:
            check(dict(data_of(txn, self.name)) == self.model, f"{self.name!r} is not itself")

    def _change(self, txn: Transaction) -> Pairs:
        rng, model = self._rng, self.model.copy()
        entries = data_of(txn, self.name)
        for _ in range(rng.choice((1, 1, 5, 60))):
            key = self._key()
            if rng.random() < 0.25:
                entries.delete(key)
                model.pop(key, None)
            else:
                value = rng.randbytes(8) * rng.choice((1, 8, 60, 190))
                entries.put(key, value)
                model[key] = value
        if rng.random() < 0.02:
            # A thousand keys, or a hundred, or ten.
            prefix = self._key()[: rng.choice((6, 7, 8))]
            doomed = [key for key in model if key.startswith(prefix)]
            check(entries.clear(prefix) == len(doomed), f"{self.name!r}: cleared others")
            for key in doomed:
                del model[key]
        if rng.random() < 0.0002:
            check(txn.delete_bucket(b"data", self.name) == len(model), "deleted others")
            model = {}
        txn.bucket(b"sums").put(self.name, spelled(model))
        return model

    def _look(self, store: Store) -> None:
        with store.view() as txn:
            entries = data_of(txn, self.name)
            for _ in range(20):
                key = self._key()
                check(entries.get(key) == self.model.get(key), f"{self.name!r}: {key!r}")

    def _walk(self, store: Store) -> None:
        keys = sorted(self.model)
        if not keys:
            return
        with store.view() as txn:
            at = self._rng.randrange(len(keys))
            cursor = data_of(txn, self.name).cursor()
            check(cursor.seek(keys[at]), "a cursor misses a key")
            for i in range(at, min(at + 20, len(keys))):
                check(cursor.key == keys[i], "a cursor skips a key")
                check(cursor.value == self.model[keys[i]], "a cursor has another value")
                cursor.next()
            start = keys[at]
            entries = data_of(txn, self.name)
            found = list(entries.keys(stop=start, reverse=True))
            check(found == keys[:at][::-1], "a reversed range differs")
            check(len(entries.keys(start=start)) == len(keys) - at, "a count differs")

    def _key(self) -> bytes:
        return b"key %05d" % self._rng.randrange(KEYS)


class Round:
    """One opening of the store, with all who work on it.

    Attributes:
        count: What was done, by kind.
    """

    def __init__(self, path: Path, rng: Random, writers: list[Writer]) -> None:
        self.count: Counter[str] = Counter()
        self._path = path
        self._rng = rng
        self._writers = writers
        self._ended = threading.Event()
        self._failure: BaseException | None = None

    def run(self, seconds: float) -> None:
        """Work for so long, and compare.

        Raises:
            Wrong: Something is; or whatever else came out of a thread.
        """
        with blobkv.open(self._path, memtable_size=MEMTABLE_SIZE) as store:
            for writer in self._writers:
                writer.compare(store)
            threads = [
                threading.Thread(target=self._loop, args=job) for job in self._jobs(store)
            ]
            for thread in threads:
                thread.start()
            self._ended.wait(seconds)
            self._ended.set()
            for thread in threads:
                thread.join()
            if self._failure is not None:
                raise self._failure
            for writer in self._writers:
                writer.compare(store)
            check(store.stats().failure is None, f"background: {store.stats().failure}")

    def _jobs(self, store: Store) -> list[tuple[Callable[..., None], Store, Random]]:
        seeds = [Random(self._rng.random()) for _ in range(WRITERS + READERS + 2)]
        jobs: list[Callable[..., None]] = [
            *(self._write(writer) for writer in self._writers),
            *[self._read] * READERS,
            self._read_beside,
            self._maintain,
        ]
        return [(job, store, rng) for job, rng in zip(jobs, seeds, strict=True)]

    def _loop(self, job: Callable[[Store, Random], None], store: Store, rng: Random) -> None:
        try:
            while not self._ended.is_set():
                job(store, rng)
        except BaseException as error:  # noqa: BLE001  # It is raised where all are waited for.
            self._failure = self._failure or error
            self._ended.set()

    def _write(self, writer: Writer) -> Callable[[Store, Random], None]:
        return lambda store, _: writer.work(store, self.count)

    def _read(self, store: Store, rng: Random) -> None:
        """Look at a view, keep it for a while, and look again."""
        with store.view() as txn:
            before = check_view(txn, "view")
            half_read = iter(txn.bucket(b"data", b"0").items())
            next(half_read, None)
            self._ended.wait(2 * rng.random())
            check(check_view(txn, "held view") == before, "a held view has changed")
            rest = sum(1 for _ in half_read)
            check(rest == max(len(txn.bucket(b"data", b"0")) - 1, 0), "a held iterator differs")
        self.count["view"] += 1

    def _read_beside(self, _: Store, rng: Random) -> None:
        with blobkv.open(self._path, read_only=True) as reader:
            sequence = 0
            for _ in range(rng.randrange(1, 20)):
                with reader.view() as txn:
                    check_view(txn, "reader beside")
                    check(txn.sequence >= sequence, "a reader went back")
                    sequence = txn.sequence
                self.count["view beside"] += 1
                if self._ended.wait(0.2 * rng.random()):
                    return

    def _maintain(self, store: Store, rng: Random) -> None:
        kind = rng.choice(("flush", "flush", "sync", "compact", "verify", "backup", "stats"))
        self.count[kind] += 1
        if kind == "verify":
            report = store.verify()
            check(report.ok, str(report))
        elif kind == "backup":
            copy = self._path.with_name("copy")
            store.backup(copy)
            with blobkv.open(copy, read_only=True) as copied, copied.view() as txn:
                check_view(txn, "backup")
            shutil.rmtree(copy)
        else:
            getattr(store, kind)()
        self._ended.wait(rng.random() * 0.5)


class Growth:
    """What was noted after each round, and whether it grows."""

    def __init__(self) -> None:
        self.resident: list[int] = []
        self.blocks: list[int] = []
        self.descriptors: list[int] = []

    def note(self) -> None:
        """Note what this process takes now that no store is open."""
        gc.collect()
        self.resident.append(resident_size())
        self.blocks.append(sys.getallocatedblocks())
        self.descriptors.append(len(list(Path("/dev/fd").iterdir())))

    def check(self) -> None:
        """Raise Wrong if memory or descriptors grow after the first rounds."""
        warm = self.descriptors[WARM_ROUNDS:]
        check(len(set(warm)) <= 1, f"descriptors after each round: {warm}")
        for what, noted, more in (
            ("resident", self.resident, GROWTH_SIZE_MAX),
            ("blocks", self.blocks, GROWTH_BLOCKS_MAX),
        ):
            sizes = noted[WARM_ROUNDS:]
            part = len(sizes) // 4
            if part:
                first, last = median(sizes[: 2 * part]), median(sizes[-part:])
                limit = first * GROWTH_FACTOR_MAX + more
                check(last <= limit, f"{what} of memory after each round: {sizes}")


def resident_size() -> int:
    """Return the bytes of memory that this process has; at most so far, where not told."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except FileNotFoundError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return pages * resource.getpagesize()


def space(path: Path) -> int:
    return sum(file.stat().st_size for file in path.iterdir())


def soak(path: Path, seconds: float, seed: int) -> None:
    """Run rounds until the time is over.

    Raises:
        Wrong: An answer was, or something grows; or whatever else came out of a call.
    """
    rng = Random(seed)
    writers = [Writer(b"%d" % i, Random(rng.random())) for i in range(WRITERS)]
    count: Counter[str] = Counter()
    growth = Growth()
    start = printed = time.monotonic()
    growth.note()
    while (left := start + seconds - time.monotonic()) > 0:
        current = Round(path, rng, writers)
        try:
            current.run(min(left, ROUND_SECONDS_MAX, max(seconds / 8, 0.2)))
        finally:
            count += current.count
        growth.note()
        now = time.monotonic()
        if now - printed >= PRINT_SECONDS or now - start >= seconds:
            printed = now
            print(line(now - start, count, growth, path), flush=True)
        growth.check()
    print(", ".join(f"{kind} {times}" for kind, times in sorted(count.items())))


def line(elapsed: float, count: Counter[str], growth: Growth, path: Path) -> str:
    return (
        f"{elapsed:7.0f} s  {sum(count.values()):10,} operations  "
        f"{len(growth.resident) - 1} rounds  "
        f"{growth.resident[-1] / (1 << 20):7.1f} MiB resident  {growth.blocks[-1]:,} blocks  "
        f"{growth.descriptors[-1]} descriptors  {space(path) / (1 << 20):6.1f} MiB of store"
    )


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description="Do everything at once, and compare.")
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--directory", type=Path, help="where to; a new one unless given")
    given = parser.parse_args(arguments)
    print(f"seed {given.seed}", flush=True)
    # So that threads which compute do not keep those that write waiting, and meet more often.
    sys.setswitchinterval(SWITCH_SECONDS)
    with tempfile.TemporaryDirectory(dir=given.directory, prefix="soak-") as folder:
        try:
            soak(Path(folder, "db"), given.seconds, given.seed)
        except Exception:  # noqa: BLE001  # Whatever it is, it is what was looked for.
            traceback.print_exc()
            print(f"wrong, with seed {given.seed}", file=sys.stderr)
            return 1
    print("nothing was wrong")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
