"""An interrupt anywhere in a call leaves a map that closes, and opens as before it or after it.

Method: the steps of `map_workload`, over fakes, with KeyboardInterrupt raised at one place of
the code of blobmap, as `support.interrupts` finds them. The map is closed then, which must not
hang, opened anew, and compared with the model. `BLOBMAP_INTERRUPT_EVERY=1` takes every place;
usually it is one of many.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from support import interrupts
from support.fault_table import Note
from support.interrupts import Interrupts
from support.map_model import MapWorld, check_feed, state_of
from support.map_workload import WORKLOAD, acceptable, play

import blobmap
from blobmap._map.work import Work
from blobmap.deadlines import deadline

EVERY = int(os.environ.get("BLOBMAP_INTERRUPT_EVERY", "149"))
LIMIT_SECONDS = 30.0


@pytest.fixture(autouse=True)
def blobmap_s_places(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interrupts, "SOURCES", (str(Path(blobmap.__file__).parent),))


def interrupted(world: MapWorld, strike: Interrupts) -> int:
    """Play the steps up to the interrupt; return how many were done."""
    works: dict[str, Work] = {}
    done = 0
    try:
        with strike.watching():
            for played in WORKLOAD:
                play(world.snapshotter, world.clock, works, played)
                done += 1
    except KeyboardInterrupt:
        pass
    return done


@pytest.mark.slow
# Where a generator is let go of in the middle, the interpreter drops what comes.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("background", [False, True])
def test_an_interrupt_anywhere_in_a_call(tried: Note, *, background: bool) -> None:
    points, place = 0, 1
    while True:
        world = MapWorld(background=background)
        strike = Interrupts(strike_at=place)
        done = interrupted(world, strike)
        with deadline(LIMIT_SECONDS):
            world.snapshotter.close()
        world.background = False
        world.snapshotter = world.open()
        found = state_of(world.snapshotter)
        assert found in acceptable()[done], f"place {place}, step {WORKLOAD[done:][:1]}"
        world.check()
        check_feed(world.snapshotter)
        world.snapshotter.close()
        if strike.met < place:
            break
        points += 1
        place += EVERY
    tried("interrupt anywhere in a call of a map", points)
