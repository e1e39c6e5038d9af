"""What the tests of imports share: three layers, a target that is checked, and its contents."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from support import images
from support.images import directory, member, symlink, tar
from support.local_kinds import seen

import blobmap
from blobmap import BlobSnapshotter

BASE = tar(directory("etc"), member("etc/a", b"a" * 5000), symlink("l", "etc/a"))
SECOND = tar(member("etc/b", b"b"), member("etc/.wh.a"))
THIRD = tar(member("c", b"c"))


@contextmanager
def checked(root: Path, snapshotter: str | None = None) -> Iterator[BlobSnapshotter]:
    """Open the embedded default; at the end nothing in it may need repair or be unknown."""
    with blobmap.open(root, snapshotter=snapshotter) as target:
        yield target
        report = target.reconcile(dry_run=True)
        assert report.ok, str(report)
        assert report.unowned_count == 0


def content(target: BlobSnapshotter) -> set[str]:
    return {info.digest for info in target.content.walk()}


def snapshots(target: BlobSnapshotter) -> set[str]:
    return {info.name for info in target.walk()}


def names(target: BlobSnapshotter, snapshot: str) -> set[str]:
    target.view("look", snapshot)
    try:
        with seen(target, "look") as root:
            return set(images.read_tree(root)) - {"."}
    finally:
        target.remove("look")


def assert_empty(target: BlobSnapshotter) -> None:
    assert content(target) == snapshots(target) == set()
    assert list(target.images()) == list(target.blobs()) == []
    assert target.content.list_statuses() == []
