"""Removing, mapping, making, and looking at one snapshot at once is as if done one by one.

Method: three threads work on one name, with the interpreter switching between them as often as
it can; each call is recorded with when it began and ended, and what it says of whether there
is a snapshot and which blob it stands for. An order must exist that explains them all
(`support.histories`). Both blobs are held by another snapshot, too, so that what is absent is
never the blob.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support.fakes import FakeContentStore, FakeSnapshotter, no_hook
from support.histories import Call, linearizes

from blobmap import BlobSnapshotter
from blobmap.contracts import Snapshotter
from blobmap.errors import AlreadyExists, BlobMapError, NotFound
from blobmap.local import NativeSnapshotter

NAME = "raced"
ROUNDS = {"fake": 150, "native": 25}


@pytest.fixture(params=ROUNDS)
def snapshotter(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobSnapshotter]:
    inner: Snapshotter
    inner = FakeSnapshotter() if request.param == "fake" else NativeSnapshotter(tmp_path / "n")
    with BlobSnapshotter(inner, FakeContentStore(), tmp_path / "map") as opened:
        yield opened


@pytest.fixture
def _eager_switches() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Recorder:
    """The calls of all threads on one snapshotter, on one clock."""

    def __init__(self, snapshotter: BlobSnapshotter, blobs: list[str]) -> None:
        self.calls: list[Call] = []
        self._snapshotter = snapshotter
        self._blobs = blobs
        self._clock = itertools.count()

    def remove(self) -> None:
        self._record(
            lambda: self._snapshotter.remove(NAME), {"there": 1}, {"there": None, "blob": None}
        )

    def set_blob(self, at: int) -> None:
        digest = self._blobs[at - 1]
        self._record(
            lambda: self._snapshotter.set_blob(NAME, digest, replace=True),
            {"there": 1},
            {"blob": at},
        )

    def make(self, thread: int) -> None:
        self._snapshotter.prepare(f"making {thread}")
        self._record(
            lambda: self._snapshotter.commit(NAME, f"making {thread}"),
            {"there": None},
            {"there": 1, "blob": None},
        )
        try:
            self._snapshotter.remove(f"making {thread}")
        except NotFound:
            return

    def look(self) -> None:
        began = next(self._clock)
        seen = self.now()
        # Of a snapshot that is gone nothing is said of the blob.
        reads = seen if seen["there"] else {"there": None}
        self.calls.append(Call(began, next(self._clock), reads))

    def now(self) -> dict[str, int | None]:
        """Return what there is, in the words of the history."""
        try:
            blob = self._snapshotter.get_blob(NAME)
        except NotFound:
            return {"there": None, "blob": None}
        return {"there": 1, "blob": blob and self._blobs.index(blob.digest) + 1}

    def _record(
        self,
        call: Callable[[], None],
        reads: dict[str, int | None],
        writes: dict[str, int | None],
    ) -> None:
        began = next(self._clock)
        try:
            call()
        except (AlreadyExists, NotFound):
            # It found the contrary of what it needs, and did nothing.
            reads, writes = {"there": None if reads["there"] else 1}, {}
        self.calls.append(Call(began, next(self._clock), reads, writes))


@pytest.mark.slow
@pytest.mark.usefixtures("_eager_switches")
def test_remove_and_map_and_remove_have_an_order(
    snapshotter: BlobSnapshotter, request: pytest.FixtureRequest
) -> None:
    assert isinstance(snapshotter.content, FakeContentStore)
    blobs = [snapshotter.content.add_blob(data) for data in (b"one", b"two")]
    for at, digest in enumerate(blobs):
        snapshotter.prepare("making")
        snapshotter.commit(f"anchor {at}", "making")
        snapshotter.set_blob(f"anchor {at}", digest)
    seed = random.randrange(1 << 32)
    rounds = next(count for kind, count in ROUNDS.items() if kind in request.node.name)
    rounds = int(os.environ.get("BLOBMAP_HISTORY_COUNT", rounds))
    overlaps = 0
    for turn in range(rounds):
        recorder = Recorder(snapshotter, blobs)
        start = recorder.now()
        assert work_together(recorder, f"{seed} {turn}") == [], f"seed {seed}, round {turn}"
        end = recorder.now()
        last = max(call.ended for call in recorder.calls) + 1
        calls = [*recorder.calls, Call(last, last + 1, end)]
        assert linearizes(calls, start), f"seed {seed}, round {turn}: {calls}"
        overlaps += any(one.began < other.began < one.ended for one in calls for other in calls)
        held = sum(end["blob"] == at + 1 for at in range(2))
        assert sum(map(snapshotter.references, blobs)) == 2 + held
    assert overlaps, "the threads took turns"


def work_together(recorder: Recorder, seed: str) -> list[BlobMapError]:
    """Let three threads draw and make six calls each; return what is no answer to them."""
    together = threading.Barrier(3)
    failures: list[BlobMapError] = []

    def work(thread: int) -> None:
        draw = random.Random(f"{seed} {thread}")
        together.wait()
        for _ in range(6):
            step = draw.randrange(6)
            try:
                if step < 2:
                    recorder.set_blob(step + 1)
                elif step == 2:
                    recorder.remove()
                elif step == 3:
                    recorder.make(thread)
                else:
                    recorder.look()
            except BlobMapError as error:
                failures.append(error)

    threads = [threading.Thread(target=work, args=(at,)) for at in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return failures


def test_a_snapshot_removed_while_it_is_looked_at_is_told_with_its_blob(
    tmp_path: Path,
) -> None:
    inner, content = FakeSnapshotter(), FakeContentStore()
    with BlobSnapshotter(inner, content, tmp_path) as snapshotter:
        digest = content.add_blob(b"one")
        snapshotter.prepare("making")
        snapshotter.commit(NAME, "making")
        snapshotter.set_blob(NAME, digest)

        def remove_it(moment: str, call: str, key: str) -> None:
            if (moment, call) == ("after", "stat"):
                inner.hook = no_hook
                snapshotter.remove(NAME)

        inner.hook = remove_it
        blob = snapshotter.get_blob(NAME)

        assert blob is not None
        assert blob.digest == digest
        assert list(snapshotter.walk()) == []
