"""How the blob map grows: the same calls at ten thousand and at a million snapshots.

    python benchmarks/map_scale.py --root DIRECTORY [--counts 10000 100000 1000000] [--json]

Half of all snapshots share one blob, and ten of the others each of the rest. The snapshotter
and the content store under the map are functions of a number, which take little time and no
memory, so that what is measured is the map. It is filled through the map's own rows, a
thousand a commit; the calls that are timed are the public ones, each durable, on a sample of
names drawn at random. Each count is measured in a process of its own, for its memory.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import time
from datetime import UTC, datetime
from hashlib import sha256
from itertools import islice
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from blobmap import LAYER, Blob, BlobSnapshotter, ContentInfo, Info, Kind, Reference, Usage
from blobmap._map import edges, schema
from blobmap._map.schema import Edge, Scope
from blobmap.errors import NotFound
from blobmap.refs import Refs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHARED_BY = 10
SAMPLE_COUNT = 300
PAGE_COUNT = 50
COMMIT_COUNT = 1000
CREATED = datetime(2026, 1, 1, tzinfo=UTC)
POPULAR = "sha256:" + sha256(b"popular").hexdigest()


def name_of(number: int) -> str:
    return f"layer {number:09}"


def digest_of(number: int) -> str:
    """The blob of a snapshot: the popular one for each odd one, else one of ten."""
    if number % 2:
        return POPULAR
    return "sha256:" + sha256(b"%d" % (number // (2 * SHARED_BY))).hexdigest()


class Numbers:
    """Committed snapshots without parents, by number, but for those that were removed."""

    def __init__(self, count: int) -> None:
        self._count = count
        self._removed: set[str] = set()

    def stat(self, key: str) -> Info:
        """Return it, whatever its number."""
        if key in self._removed or not key.startswith("layer "):
            raise NotFound(key)
        return Info(key, "", Kind.COMMITTED, {}, CREATED, CREATED)

    def walk(self, *_: str) -> Iterator[Info]:
        """Yield all of them."""
        names = (name_of(number) for number in range(self._count))
        return (self.stat(name) for name in names if name not in self._removed)

    def usage(self, _: str) -> Usage:
        """Return nothing."""
        return Usage(0, 0)

    def remove(self, key: str) -> None:
        """Remember that it is gone."""
        self._removed.add(key)

    def close(self) -> None:
        """Do nothing."""

    def _not_asked(self, *_: object, **__: object) -> None:
        raise NotImplementedError

    update = mounts = prepare = view = commit = cleanup = _not_asked


class Blobs:
    """Every blob is there."""

    def __init__(self, count: int) -> None:
        self._digests = sorted({digest_of(number) for number in range(count)})
        self._deleted: set[str] = set()

    def info(self, digest: str) -> ContentInfo:
        """Return that it is there."""
        return ContentInfo(digest, 1000)

    def walk(self, *_: str) -> Iterator[ContentInfo]:
        """Yield all of them."""
        return (self.info(each) for each in self._digests if each not in self._deleted)

    def delete(self, digest: str) -> None:
        """Remember that it is gone."""
        self._deleted.add(digest)


def filled(root: Path, count: int) -> float:
    """Fill a map; return the seconds a snapshot."""
    refs = Refs.open(root, Scope("default", "default"))
    began = time.perf_counter()
    for first in range(0, count, COMMIT_COUNT):
        with refs.update("filled") as change:
            table = change.txn.bucket(schema.EDGE)
            for number in range(first, min(first + COMMIT_COUNT, count)):
                holder = schema.Holder(schema.BY_SNAPSHOT, refs.scope, name_of(number), LAYER)
                digest = digest_of(number)
                edges.link(change, holder, digest, size=1000)
                edge = Edge(Reference(LAYER, Blob(digest, 1000)), CREATED.isoformat())
                table.put(refs.scope.key(name_of(number), LAYER), schema.encode_edge(edge))
    seconds = (time.perf_counter() - began) / count
    refs.close()
    return seconds


def timed(call: Callable[[], object]) -> float:
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def sampled(call: Callable[[str], object], names: list[str]) -> float:
    """The median of the seconds of a call on each of the names."""
    return median(timed(lambda name=name: call(name)) for name in names)


def measure(root: Path, count: int) -> dict[str, float]:
    """Measure everything at one count; seconds, and MiB."""
    shutil.rmtree(root, ignore_errors=True)
    found = {"fill, a snapshot": filled(root, count)}
    rng = random.Random(1)
    opened: list[BlobSnapshotter] = []
    inner, content = Numbers(count), Blobs(count)
    found["open"] = timed(lambda: opened.append(BlobSnapshotter(inner, content, root)))
    with opened[0] as store:
        numbers = rng.sample(range(count), 4 * SAMPLE_COUNT)
        names = [name_of(number) for number in numbers]
        few = [name for name, n in zip(names, numbers, strict=True) if not n % 2][:SAMPLE_COUNT]
        many = [name for name, n in zip(names, numbers, strict=True) if n % 2][:SAMPLE_COUNT]
        new = [name_of(count + number) for number in range(SAMPLE_COUNT)]
        found["get_blob"] = sampled(store.get_blob, names)
        found["references"] = sampled(lambda _: store.references(POPULAR), names)
        found["set_blob"] = sampled(lambda name: store.set_blob(name, POPULAR), new)
        found["remove, ten hold the blob"] = sampled(store.remove, few)
        found["remove, half of all hold it"] = sampled(store.remove, many)
        found["first page of walk"] = sampled(
            lambda _: list(islice(store.walk(), PAGE_COUNT)), names[:5]
        )
        found["first page of snapshots_of"] = sampled(
            lambda _: list(islice(store.snapshots_of(POPULAR), PAGE_COUNT)), names[:5]
        )
        digest = digest_of(0)
        found["explain, ten hold it"] = timed(lambda: store.explain(digest))
        found["reconcile"] = timed(lambda: store.reconcile(dry_run=True))
        found["memory of its own in MiB"] = own_memory()
    used = sum(path.stat().st_size for path in root.iterdir())
    found["on disk, bytes a snapshot"] = used / count
    shutil.rmtree(root)
    return found


def own_memory() -> float:
    """The MiB that this process has to itself, without what it has mapped of files."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("RssAnon:")) / 1024


def shown(name: str, value: float) -> str:
    if "MiB" in name or "bytes" in name:
        return f"{value:,.0f}"
    units = (("s", 1), ("ms", 1e3), ("us", 1e6))
    unit, factor = next((unit, factor) for unit, factor in units if value * factor >= 1)
    return f"{value * factor:.3g} {unit}"


def main() -> None:
    """Measure each count in a child, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True)
    parser.add_argument("--counts", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--one", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one is not None:
        print(json.dumps(measure(options.root / "map", options.one)))
        return
    results = {}
    for count in options.counts:
        command = [sys.executable, __file__, "--root", str(options.root), "--one", str(count)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE)
        results[count] = json.loads(done.stdout)
    if options.json:
        print(json.dumps(results, indent=1))
        return
    print("| | " + " | ".join(f"{count:,}" for count in results) + " |")
    print("|---" * (len(results) + 1) + "|")
    for name in next(iter(results.values())):
        cells = (shown(name, found[name]) for found in results.values())
        print(f"| {name} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
