"""What several tests of the store share."""

from __future__ import annotations

import pytest

from blobkv._engine import overlay


@pytest.fixture
def clear_by_range(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `clear` write a range tombstone for one key, as it otherwise does for many."""
    monkeypatch.setattr(overlay, "_POINT_DELETES_MAX", 0)
