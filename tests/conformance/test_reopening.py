"""What was made is there, the same, when it is opened again in the same directory.

containerd's suites open a store once. Method: everything a caller can see of it is told
before it is closed, and told again after it was opened anew.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from support import basis as snapshots
from support.blobs import add, read, some_bytes
from support.implementations import Implementation

from blobmap import digest as digests
from blobmap.contracts import ContentStore, Info, Kind, Snapshotter
from blobmap.errors import AlreadyExists, FailedPrecondition, NotFound

pytestmark = pytest.mark.needs("reopening")


def test_snapshots_are_the_same(
    kind_of_snapshotter: Implementation[Snapshotter], root: Path
) -> None:
    """Upstream: none."""

    def told(snapshotter: Snapshotter) -> list[object]:
        infos = list(snapshotter.walk())
        mounted = [info.name for info in infos if info.kind is not Kind.COMMITTED]
        return [
            infos,
            [snapshotter.usage(info.name) for info in infos],
            [snapshotter.mounts(key) for key in mounted],
        ]

    opened = kind_of_snapshotter.open(root)
    snapshots.build(opened)
    opened.update(Info("active-1", "", Kind.ACTIVE, {"l": "1", "\udcff": "é"}))
    opened.prepare("gone", "committed-2")
    opened.remove("gone")
    before = told(opened)
    opened.close()

    opened = kind_of_snapshotter.open(root)
    assert told(opened) == before
    with pytest.raises(AlreadyExists):
        opened.prepare("active-1")
    with pytest.raises(FailedPrecondition, match="remove"):
        opened.remove("committed-1")
    opened.commit("committed-3", "active-3")
    opened.remove("view-2")
    opened.remove("committed-3")
    opened.remove("committed-2")
    opened.close()

    opened = kind_of_snapshotter.open(root)
    assert snapshots.names(opened) == ["active-1", "active-2", "committed-1", "view-1"]
    opened.close()


def test_a_key_used_again_is_another_snapshot(
    kind_of_snapshotter: Implementation[Snapshotter], root: Path
) -> None:
    """Upstream: none."""
    made = []
    for _ in range(3):
        opened = kind_of_snapshotter.open(root)
        opened.prepare("key")
        made.append(opened.stat("key").created)
        opened.remove("key")
        opened.close()

    assert len(set(made)) == 3


def test_blobs_and_ingests_are_the_same(
    kind_of_content: Implementation[ContentStore], root: Path
) -> None:
    """Upstream: none."""
    data = some_bytes(5000)
    opened = kind_of_content.open(root)
    kept = add(opened, b"kept", {"a": "b", "\udcff": "é"})
    gone = add(opened, b"gone")
    opened.delete(gone)
    with opened.writer("half", size=5000, digest=digests.of(data)) as writer:
        writer.write(data[:2000])
    opened.writer("dropped").close()
    opened.abort("dropped")
    infos, statuses = list(opened.walk()), opened.list_statuses()
    opened.close()

    opened = kind_of_content.open(root)
    assert (list(opened.walk()), opened.list_statuses()) == (infos, statuses)
    assert read(opened, kept) == b"kept"
    with pytest.raises(NotFound):
        opened.info(gone)
    with opened.writer("half", size=5000) as writer:
        assert writer.digest() == digests.of(data[:2000])
        writer.write(data[2000:])
        writer.commit(5000, digests.of(data))
    assert read(opened, digests.of(data)) == data
    assert opened.list_statuses() == []
    opened.close()
