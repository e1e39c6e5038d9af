"""Key order holds at the edges: 0x00 and 0xff, shared prefixes, and mixed types."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.strategies import edge_keys

from blobkv import pack, prefix_end, unpack
from blobkv.errors import LimitError, UsageError
from blobkv.keys import escape, unescape

INTS = st.integers(-(2**64) + 1, 2**64 - 1) | st.sampled_from(
    [sign * 256**size + step for size in range(8) for sign in (1, -1) for step in (-1, 0, 1)]
)
PARTS = edge_keys() | edge_keys().map(lambda key: key.decode("latin-1")) | INTS
TUPLES = st.lists(PARTS, max_size=4).map(tuple)


def order(parts: tuple[bytes | str | int, ...]) -> list[tuple[int, bytes | int]]:
    """What packed keys should sort by: bytes before text before integers, part by part."""
    ranks: list[tuple[int, bytes | int]] = []
    for part in parts:
        if isinstance(part, bytes):
            ranks.append((0, part))
        elif isinstance(part, str):
            ranks.append((1, part.encode("utf-8", "surrogatepass")))
        else:
            ranks.append((2, part))
    return ranks


@given(edge_keys(), edge_keys())
def test_prefix_end_bounds_exactly_the_prefix(prefix: bytes, key: bytes) -> None:
    end = prefix_end(prefix)

    assert key.startswith(prefix) == (key >= prefix and (end is None or key < end))


@pytest.mark.parametrize("prefix", [b"", b"\xff", b"\xff\xff\xff"])
def test_nothing_bounds_a_prefix_of_the_last_byte(prefix: bytes) -> None:
    assert prefix_end(prefix) is None


@pytest.mark.parametrize(
    ("prefix", "end"),
    [(b"a", b"b"), (b"a\xff", b"b"), (b"\x00", b"\x01"), (b"\xfe\xff\xff", b"\xff")],
)
def test_prefix_end_carries(prefix: bytes, end: bytes) -> None:
    assert prefix_end(prefix) == end


@given(edge_keys(), edge_keys(), edge_keys())
def test_an_escaped_name_can_be_followed_by_more_key(
    name: bytes, other: bytes, rest: bytes
) -> None:
    assert unescape(escape(name) + rest, 0) == (name, len(escape(name)))
    assert (escape(name) < escape(other)) == (name < other)
    if name != other:
        assert not escape(other).startswith(escape(name))


@given(TUPLES)
def test_unpack_undoes_pack(parts: tuple[bytes | str | int, ...]) -> None:
    assert unpack(pack(*parts)) == parts


@given(TUPLES, TUPLES)
def test_packed_keys_sort_as_their_parts(
    a: tuple[bytes | str | int, ...], b: tuple[bytes | str | int, ...]
) -> None:
    assert (pack(*a) < pack(*b)) == (order(a) < order(b))


@given(TUPLES, TUPLES)
def test_a_packed_key_starts_with_exactly_its_own_parents(
    parent: tuple[bytes | str | int, ...], key: tuple[bytes | str | int, ...]
) -> None:
    inside = order(key[: len(parent)]) == order(parent)

    assert pack(*key).startswith(pack(*parent)) == inside


@given(st.binary(max_size=12))
def test_bytes_that_pack_did_not_make_are_refused(key: bytes) -> None:
    try:
        parts = unpack(key)
    except UsageError:
        return
    assert pack(*parts) == key


@pytest.mark.parametrize("part", [None, 1.5, True, ["a"], bytearray(b"a")])
def test_other_types_are_refused(part: object) -> None:
    with pytest.raises(UsageError, match=type(part).__name__):
        pack(part)  # type: ignore[arg-type]


@pytest.mark.parametrize("number", [2**64, -(2**64)])
def test_integers_of_more_than_64_bits_are_refused(number: int) -> None:
    assert unpack(pack(number - 1 if number > 0 else number + 1)) != (number,)
    with pytest.raises(LimitError, match="9 bytes"):
        pack(number)


def test_file_names_round_trip_through_text_parts() -> None:
    name = b"caf\xe9".decode("utf-8", "surrogateescape")

    assert unpack(pack(name)) == (name,)
