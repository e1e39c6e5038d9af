"""What the contract tests run over: a snapshotter in memory, and the local ones."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from support import basis as snapshots
from support.fakes import FakeSnapshotter, counting_clock
from support.importing import checked
from support.local_kinds import KINDS, kind_of
from support.room_ahead import make_in_turn

from blobmap import BlobSnapshotter
from blobmap.contracts import Snapshotter
from blobmap.local import durable


@pytest.fixture(autouse=True)
def _room_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    make_in_turn(monkeypatch)


@pytest.fixture(params=["fake", *KINDS])
def empty(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Snapshotter]:
    """A snapshotter with nothing in it."""
    snapshotter: Snapshotter
    if request.param == "fake":
        snapshotter = FakeSnapshotter()
    else:
        make = KINDS[request.param]
        snapshotter = make(tmp_path / request.param, clock=counting_clock())
    yield snapshotter
    snapshotter.close()


@pytest.fixture
def basis(empty: Snapshotter) -> Snapshotter:
    """A snapshotter with the snapshots of `support.basis`."""
    snapshots.build(empty)
    return empty


@pytest.fixture(params=KINDS)
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[BlobSnapshotter]:
    """What images are imported into, with nothing in it; checked at the end."""
    kind_of(request.param, tmp_path)
    with checked(tmp_path / "root", request.param) as target:
        yield target


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What becomes durable or gets its name, in order; paths by their last two parts.

    A sync of the records' log is told as "record". It listens through /proc: Linux only.
    """
    heard: list[str] = []

    def listen(name: str, call: Callable[..., object]) -> Callable[..., object]:
        def heard_call(target: object, *args: object, **kwargs: object) -> object:
            if isinstance(target, int):
                path = Path(f"/proc/self/fd/{target}").readlink()
            else:
                path = Path(str(target))
            result = call(target, *args, **kwargs)
            is_record = name == "fdatasync" and path.suffix == ".log"
            heard.append("record" if is_record else f"{name} {'/'.join(path.parts[-2:])}")
            return result

        return heard_call

    for name in ("fsync", "fdatasync", "rename", "unlink"):
        monkeypatch.setattr(os, name, listen(name, getattr(os, name)))
    assert durable._SYNCFS is not None
    monkeypatch.setattr(durable, "_SYNCFS", listen("syncfs", durable._SYNCFS))
    yield heard
    monkeypatch.undo()
