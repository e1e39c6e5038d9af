"""What the tests of defects run over: a map on fakes that outlive it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fakes import no_hook
from support.map_model import MapWorld
from support.room_ahead import make_in_turn


@pytest.fixture(autouse=True)
def _room_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    make_in_turn(monkeypatch)


@pytest.fixture
def world() -> Iterator[MapWorld]:
    """A map that is looked through when the test is done."""
    world = MapWorld()
    yield world
    world.inner.hook = world.content.hook = no_hook
    world.check()
    world.snapshotter.close()
