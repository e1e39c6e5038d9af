"""Merges in pieces that suit the size of a test's data."""

from __future__ import annotations

import pytest

from blobkv._engine import tiers


def set_piece_size(monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """Have every merge be cut into pieces of about so many bytes."""
    for name in ("_PIECE_SIZE_MIN", "_LOAD_PIECE_SIZE_MIN", "_WHOLE_PIECE_SIZE_MIN"):
        monkeypatch.setattr(tiers, name, size)
    for name in ("_PIECE_SIZE_MAX", "_WHOLE_PIECE_SIZE_MAX"):
        monkeypatch.setattr(tiers, name, size)
