"""`explain` draws who holds a blob, and who holds those.

Method: the wrapper over in-memory fakes and a simulated disk.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.map_model import BLOBS, DATA, MapWorld, image_of, map_world

from blobmap.errors import (
    NotFound,
)

X, Y, Z = BLOBS[3:]


@pytest.fixture
def world() -> Iterator[MapWorld]:
    with map_world(X, Y) as world:
        yield world


def test_explaining_shows_who_holds_the_holders(world: MapWorld) -> None:
    world.make("s", X)
    world.make("t", parent="s")
    world.snapshotter.view("v", "t")
    world.snapshotter.set_image(image_of("i", (X,), ("s",)))
    with world.snapshotter.work() as work:
        work.hold(X)
        lines = str(world.snapshotter.explain(X)).split("\n")

    assert lines[:-1] == [
        f"{X}  {len(DATA[X])} bytes",
        "├── image i",
        "├── snapshot s",
        "│   ├── image i",
        "│   └── snapshot t",
        "│       └── snapshot v",
    ]
    assert lines[-1].startswith("└── work ")


def test_explaining_what_nothing_holds(world: MapWorld) -> None:
    assert "held by nothing" in str(world.snapshotter.explain(X))
    with pytest.raises(NotFound, match="neither"):
        world.snapshotter.explain(Z)


def test_explaining_a_chain_deeper_than_python_recurses(world: MapWorld) -> None:
    world.make("0", X)
    for number in range(1, 1500):
        world.make(str(number), parent=str(number - 1))

    assert len(str(world.snapshotter.explain(X)).split("\n")) == 1501
