"""Inputs chosen to collide: bugs live at shared prefixes and at 0x00 and 0xff."""

from __future__ import annotations

from hypothesis import strategies as st

_EDGE_BYTES = st.sampled_from(b"\x00a\xfe\xff")


def edge_keys(min_size: int = 0) -> st.SearchStrategy[bytes]:
    """Keys over four bytes only, so prefixes overlap and carries happen."""
    return st.lists(_EDGE_BYTES, min_size=min_size, max_size=4).map(bytes)


def values() -> st.SearchStrategy[bytes]:
    """Values mostly short, now and then longer than a block of a table."""
    return st.binary(max_size=8) | st.integers(0, 255).map(lambda b: bytes((b,)) * 5000)


def bucket_paths() -> st.SearchStrategy[tuple[bytes, ...]]:
    """Paths of buckets, at most two deep; () is the store's own top level."""
    return st.lists(edge_keys(), max_size=2).map(tuple)
