"""What the contract tests run over: each of both protocols in memory, and the local one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from support import basis as snapshots
from support.fakes import FakeContentStore, FakeSnapshotter, counting_clock

from blobmap.contracts import ContentStore, Snapshotter
from blobmap.local import LocalContent, NativeSnapshotter


@pytest.fixture(params=["fake", "local"])
def content(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ContentStore]:
    store: ContentStore
    if request.param == "fake":
        store = FakeContentStore()
    else:
        store = LocalContent(tmp_path / "content", clock=counting_clock())
    yield store
    store.close()


@pytest.fixture(params=["fake", "native"])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Snapshotter]:
    """A snapshotter with nothing in it."""
    snapshotter: Snapshotter
    if request.param == "fake":
        snapshotter = FakeSnapshotter()
    else:
        snapshotter = NativeSnapshotter(tmp_path / "native", clock=counting_clock())
    yield snapshotter
    snapshotter.close()


@pytest.fixture
def basis(empty: Snapshotter) -> Snapshotter:
    """A snapshotter with the snapshots of `support.basis`."""
    snapshots.build(empty)
    return empty
