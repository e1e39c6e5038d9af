"""Whiteouts hide what the layers below have, and nothing that their own layer adds.

Method: one layer on another in a plain directory; what is left is looked at by name.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.images import (
    Member,
    directory,
    member,
    symlink,
)
from support.layers import apply, names


def test_a_whiteout_hides_what_is_below_and_nothing_else(tmp_path: Path) -> None:
    apply(tmp_path, member("d/a/x"), member("d/b"), symlink("d/s", "b"), member("d/ab"))

    apply(tmp_path, member("d/.wh.a"), member("d/.wh.s"), member("d/.wh.never"))

    assert names(tmp_path) == {"d", "d/b", "d/ab"}


def test_a_whiteout_in_a_missing_directory_makes_none(tmp_path: Path) -> None:
    apply(tmp_path, member("a/b/.wh.c"), member("a/b/.wh..wh..opq"))

    assert names(tmp_path) == set()


@given(st.randoms(use_true_random=False))
def test_whiteouts_spare_their_own_layer_whatever_the_order(
    tmp_path_factory: pytest.TempPathFactory, rng: random.Random
) -> None:
    root = tmp_path_factory.mktemp("root")
    apply(root, member("d/low"), member("d/e/low"), member("x/low"), member("keep"))
    layer = [
        member("d/.wh..wh..opq"),
        member("d/new"),
        member("d/e/new"),
        member("x/new"),
        member(".wh.x"),
    ]
    rng.shuffle(layer)

    apply(root, *layer)

    assert names(root) == {"keep", "d", "d/new", "d/e", "d/e/new", "x", "x/new"}


def test_an_opaque_directory_keeps_an_own_subdirectory_but_not_what_was_below_in_it(
    tmp_path: Path,
) -> None:
    apply(tmp_path, member("d/e/low", mode=0o644), member("d/f/low"))

    apply(tmp_path, directory("d"), directory("d/e"), member("d/.wh..wh..opq"))

    assert names(tmp_path) == {"d", "d/e"}


def test_an_opaque_root_hides_all_layers_below(tmp_path: Path) -> None:
    apply(tmp_path, member("a/b"), member("c"))

    apply(tmp_path, member(".wh..wh..opq"), member("new"))

    assert names(tmp_path) == {"new"}


@pytest.mark.parametrize("replacement", [member("d", b"file"), symlink("d", "e")])
def test_what_was_in_a_replaced_directory_may_be_hidden_once_more(
    tmp_path: Path, replacement: Member
) -> None:
    apply(tmp_path, member("d/a"), member("d/b/c"), member("e/a"))

    apply(tmp_path, replacement, member("d/.wh.a"), member("d/b/.wh.c"))

    assert names(tmp_path) == {"d", "e", "e/a"}


def test_aufs_bookkeeping_is_left_out_and_counted(tmp_path: Path) -> None:
    assert apply(tmp_path, directory(".wh..wh.plnk")).left_out == {"AUFS bookkeeping file": 1}
    assert names(tmp_path) == set()
