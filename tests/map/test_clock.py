"""No two times given out are equal, so a name used again is never mistaken for its old self.

Method: clocks that stand still, go back, and go forward.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path

from blobmap import digest as digests
from blobmap.clock import Ticker, utc_now
from blobmap.contracts import ContentInfo
from blobmap.local import LocalContent, NativeSnapshotter

NOON = datetime(2000, 1, 1, 12, tzinfo=UTC)


def test_a_clock_that_stands_still_ticks() -> None:
    ticker = Ticker(lambda: NOON)

    assert [ticker.now() - NOON for _ in range(3)] == [
        timedelta(microseconds=count) for count in range(3)
    ]


def test_a_clock_set_back_goes_on_from_where_it_was() -> None:
    times = iter([NOON, NOON - timedelta(hours=1), NOON + timedelta(hours=1)])
    ticker = Ticker(lambda: next(times))

    given = [ticker.now() for _ in range(3)]
    assert given == [NOON, NOON + timedelta(microseconds=1), NOON + timedelta(hours=1)]


def test_times_start_after_the_floor() -> None:
    assert Ticker(lambda: NOON, floor=NOON).now() > NOON


def test_the_real_clock_is_in_utc_and_moves() -> None:
    ticker = Ticker(utc_now)

    given = [ticker.now() for _ in range(100)]
    assert all(one < other for one, other in pairwise(given))
    assert given[0].utcoffset() == timedelta(0)


def test_a_key_used_again_differs_though_the_clock_stands_still(tmp_path: Path) -> None:
    created = []
    for _ in range(2):
        with NativeSnapshotter(tmp_path, clock=lambda: NOON) as snapshotter:
            for _ in range(2):
                snapshotter.prepare("key")
                created.append(snapshotter.stat("key").created)
                snapshotter.remove("key")
            snapshotter.prepare(f"other {len(created)}")

    assert len(set(created)) == 4


def test_nothing_is_changed_before_it_was_made_though_the_clock_is_set_back(
    tmp_path: Path,
) -> None:
    digest = digests.of(b"a blob")
    with LocalContent(tmp_path, clock=lambda: NOON) as content:
        with content.writer("ref") as writer:
            writer.write(b"a blob")
            writer.commit()
        content.writer("half").close()
        made, begun = content.info(digest), content.status("half")
        assert made.updated is not None

    earlier = NOON - timedelta(days=1)
    with LocalContent(tmp_path, clock=lambda: earlier) as content:
        changed = content.update(ContentInfo(digest, 0, labels={"a": "b"}))
        assert changed.created == made.created
        assert changed.updated is not None
        assert changed.updated > made.updated
        with content.writer("half") as writer:
            writer.write(b"more")
        assert content.status("half").started == begun.started
        assert content.status("half").updated > begun.updated
