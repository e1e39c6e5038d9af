"""Inputs hold what their names say, the same every time."""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import crc32

import pytest
from inputs import CALLS, KEY_SIZE, MIXES, PREFIX_SIZE, Inputs, key, prefix, scatter

if TYPE_CHECKING:
    from pathlib import Path

KEYS = 50


@pytest.fixture
def inputs(tmp_path: Path) -> Inputs:
    return Inputs(tmp_path, KEYS, 10)


def cut(path: Path, size: int, wanted: int | None = None) -> list[bytes]:
    """The records of a file, or their first bytes."""
    data = path.read_bytes()
    return [data[at : at + (wanted or size)] for at in range(0, len(data), size)]


def test_every_pair_is_loaded_once_in_either_order(inputs: Inputs) -> None:
    scattered = cut(inputs.scattered(), KEY_SIZE + 10)
    ordered = cut(inputs.ordered(), KEY_SIZE + 10)

    assert len(set(scattered)) == KEYS
    assert scattered != ordered == sorted(scattered)


def test_hits_are_loaded_and_misses_and_fresh_pairs_are_not(inputs: Inputs) -> None:
    loaded = set(cut(inputs.scattered(), KEY_SIZE + 10, KEY_SIZE))

    assert set(cut(inputs.hits(30), KEY_SIZE)) <= loaded
    assert loaded.isdisjoint(cut(inputs.misses(30), KEY_SIZE))
    fresh = cut(inputs.fresh(30), KEY_SIZE + 10, KEY_SIZE)
    assert loaded.isdisjoint(fresh)
    assert inputs.newest(30).read_bytes() == fresh[-1]


def test_each_prefix_has_ten_keys(inputs: Inputs) -> None:
    loaded = cut(inputs.scattered(), KEY_SIZE + 10, KEY_SIZE)

    for wanted in cut(inputs.prefixes(20), PREFIX_SIZE):
        assert sum(key.startswith(wanted) for key in loaded) == 10


@pytest.mark.parametrize("name", MIXES)
def test_a_mix_has_the_calls_it_should(name: str, inputs: Inputs) -> None:
    calls = cut(inputs.mix(name, 4000), 3 + KEY_SIZE + 10, 1)

    for call, percent in zip(CALLS, MIXES[name], strict=True):
        assert calls.count(bytes([call])) == pytest.approx(percent * 40, abs=150)


def test_inputs_are_the_same_everywhere(inputs: Inputs) -> None:
    """Results of two days are compared: a change here makes the older ones worthless."""
    assert key(12) == prefix(1) + b"00002"
    assert sorted(scatter(i, KEYS) for i in range(KEYS)) == list(range(KEYS))
    assert crc32(inputs.mix("a", 100).read_bytes()) == 2762328881
