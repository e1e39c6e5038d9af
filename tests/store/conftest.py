"""What several tests of the store share."""

from __future__ import annotations

import pytest
from support.room_ahead import make_at_once

from blobkv._engine import overlay


@pytest.fixture
def clear_by_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `clear` write a range tombstone for one key, as it otherwise does for many."""
    monkeypatch.setattr(overlay, "_POINT_DELETES_MAX", 0)


@pytest.fixture
def room_ahead(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have small logs grow ahead, too, as part of the commit that sees the need."""
    make_at_once(monkeypatch)
