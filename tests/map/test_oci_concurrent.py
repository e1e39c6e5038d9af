"""Imports that meet each other, or the leavings of one that died, end as if alone.

Method: threads that import and remove the same images; ingests left half-way on purpose.
"""

from __future__ import annotations

import threading
from datetime import timedelta
from pathlib import Path

import pytest
from support import images
from support.images import LayoutBuilder, digest_of, layout
from support.importing import (
    BASE,
    SECOND,
    THIRD,
    assert_empty,
    content,
    snapshots,
)

import blobmap
from blobmap import BlobSnapshotter
from blobmap._oci import ingest as ingest_module
from blobmap.contracts import Image
from blobmap.errors import FailedPrecondition, Unavailable
from blobmap.oci import Progress, Stage, import_layout


@pytest.mark.slow
def test_imports_at_the_same_time_agree(target: BlobSnapshotter, tmp_path: Path) -> None:
    count = 4
    path = layout(tmp_path / "layout", BASE, SECOND, THIRD)
    results: list[list[Image]] = []
    barrier = threading.Barrier(count)

    def work() -> None:
        barrier.wait()
        results.append(import_layout(target, path))

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(results) == count
    assert len(snapshots(target)) == 3
    assert len(content(target)) == 5
    assert target.content.list_statuses() == []


@pytest.mark.slow
def test_imports_and_removals_at_the_same_time_leave_all_or_nothing(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    one = LayoutBuilder()
    one.put(one.image(BASE, SECOND, name="one"))
    two = LayoutBuilder()
    two.put(two.image(BASE, THIRD, name="two"))
    paths = {"one": one.write(tmp_path / "one"), "two": two.write(tmp_path / "two")}
    failures: list[BaseException] = []

    def churn(name: str) -> None:
        try:
            for _ in range(8):
                import_layout(target, paths[name])
                target.remove_image(name)
        except BaseException as error:  # noqa: BLE001  # Reported below, whatever it is.
            failures.append(error)

    threads = [threading.Thread(target=churn, args=(name,)) for name in paths]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert failures == []
    assert_empty(target)


def test_an_interrupted_ingest_is_continued(target: BlobSnapshotter, tmp_path: Path) -> None:
    path = layout(tmp_path / "layout", BASE)
    layer = images.compress(BASE, "gzip")
    digest = digest_of(layer)
    with target.content.writer(f"import-{digest}", size=len(layer)) as writer:
        writer.write(layer[:20])
    events: list[Progress] = []

    import_layout(target, path, progress=events.append)

    starts = [e.done for e in events if e.digest == digest and e.stage is Stage.INGEST]
    assert starts[0] == 20
    assert digest in content(target)


@pytest.mark.parametrize("packing", ["directory", "gzip"])
@pytest.mark.parametrize("bad", [b"wrong bytes", b"x" * 100_000])
def test_an_interrupted_ingest_of_wrong_bytes_is_begun_anew(
    target: BlobSnapshotter, tmp_path: Path, bad: bytes, packing: str
) -> None:
    path = layout(tmp_path / "layout", BASE, how=packing)
    digest = digest_of(images.compress(BASE, "gzip"))
    with target.content.writer(f"import-{digest}") as writer:
        writer.write(bad)

    import_layout(target, path)

    assert digest in content(target)
    assert target.content.list_statuses() == []


def test_what_an_import_left_half_way_is_dropped_after_a_day(
    target: BlobSnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = layout(tmp_path / "layout", BASE)
    for ref in (f"import-{digest_of(b'never again')}", "another's"):
        with target.content.writer(ref) as writer:
            writer.write(b"some bytes")

    import_layout(target, path)
    kept = len(target.content.list_statuses())
    monkeypatch.setattr(ingest_module, "_STALE", timedelta(0))
    import_layout(target, path)

    assert kept == 2
    assert [status.ref for status in target.content.list_statuses()] == ["another's"]


def test_a_stuck_writer_of_the_same_blob_is_not_waited_for_forever(
    target: BlobSnapshotter, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ingest_module, "_PATIENCE_SECONDS", 0.05)
    path = layout(tmp_path / "layout", BASE)
    digest = digest_of(images.compress(BASE, "gzip"))

    with target.content.writer(f"import-{digest}"), pytest.raises(Unavailable):
        import_layout(target, path)

    target.content.abort(f"import-{digest}")
    assert_empty(target)


def test_a_snapshot_that_is_not_what_its_name_says_is_left_alone(
    target: BlobSnapshotter, tmp_path: Path
) -> None:
    path = layout(tmp_path / "layout", BASE)
    target.prepare(digest_of(BASE))

    with pytest.raises(FailedPrecondition, match="not what its name says: it is active"):
        import_layout(target, path)

    assert target.stat(digest_of(BASE)).kind is blobmap.Kind.ACTIVE
