"""D43 to D60: construction, surface, operations.

Method: the map over fakes and a simulated disk, and the embedded default where files matter.
"""

from __future__ import annotations

from support.map_model import BLOBS, MapWorld

X, Y, Z = BLOBS[3:]


def test_d57_a_full_disk_is_no_obstacle_to_removing(world: MapWorld) -> None:
    world.make("s1", X)
    world.make("s2", X)
    world.disk.capacity = world.disk.used_size
    world.snapshotter.remove("s1")
    assert world.present() == {X}
    world.snapshotter.remove("s2")

    assert (world.names(), world.present(), world.queue()) == ([], set(), set())
