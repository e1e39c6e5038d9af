"""What several tests of the store share."""

from __future__ import annotations

import pytest
from support.piece_sizes import set_piece_size
from support.room_ahead import make_at_once

from blobkv._engine import merge, overlay, tiers


@pytest.fixture
def clear_by_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `clear` write a range tombstone for one key, as it otherwise does for many."""
    monkeypatch.setattr(overlay, "_POINT_DELETES_MAX", 0)


@pytest.fixture
def room_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small logs grow ahead, too, as part of the commit that sees the need."""
    make_at_once(monkeypatch)


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have merges be cut into many pieces, and made for little garbage."""
    set_piece_size(monkeypatch, 6000)
    monkeypatch.setattr(tiers, "_GARBAGE_MIN", 1)
    # So that pieces are cut where they are large enough, not far beyond.
    monkeypatch.setattr(merge, "_GATHERED_MAX", 16)
