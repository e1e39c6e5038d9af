"""A digest is spelled one way only, and nothing but a digest passes for one.

Method: name each way to be malformed, then draw text near the grammar and check that what
passes is exactly what the grammar allows.
"""

from __future__ import annotations

import hashlib
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobmap import digest
from blobmap.errors import InvalidArgument

HEX = hashlib.sha256(b"").hexdigest()
GRAMMAR = re.compile(r"sha256:[0-9a-f]{64}|sha512:[0-9a-f]{128}")


@pytest.mark.parametrize("valid", [f"sha256:{HEX}", f"sha512:{HEX}{HEX}"])
def test_a_digest_is_returned_as_it_is(valid: str) -> None:
    assert digest.validate(valid) is valid
    assert ":".join(digest.split(valid)) == valid


@pytest.mark.parametrize(
    "malformed",
    [
        "",
        ":",
        HEX,
        "sha256",
        "sha256:",
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha256:{HEX[:-1]}g",
        f"sha256:{HEX[:-1]}\n",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha512:{HEX}",
        f"md5:{HEX[:32]}",
        f"sha256+b64:{HEX}",
        f"sha256::{HEX[1:]}",
        f"sha256:{'٣' * 64}",
        "sha256:" + "../" * 21 + ".",
        "../../etc/passwd",
        f"sha256:{HEX[:-1]}\x00",
        f"sha256:{HEX[:-1]}/",
    ],
)
def test_anything_else_is_refused(malformed: str) -> None:
    with pytest.raises(InvalidArgument):
        digest.validate(malformed)


@pytest.mark.parametrize("other", [None, 7, b"sha256:" + HEX.encode()])
def test_what_is_not_text_is_refused(other: object) -> None:
    with pytest.raises(InvalidArgument, match="is a str"):
        digest.validate(other)  # type: ignore[arg-type]  # That is the point.


def test_the_error_says_what_to_change() -> None:
    with pytest.raises(InvalidArgument, match="write sha256:<64 hex digits>"):
        digest.validate(HEX)
    with pytest.raises(InvalidArgument, match="has 63 digits where sha256 has 64"):
        digest.validate(f"sha256:{HEX[:-1]}")
    with pytest.raises(InvalidArgument, match="lower-case"):
        digest.validate(f"sha256:{HEX.upper()}")


@given(
    st.text(st.sampled_from("sha256512:-_=+./\x00 AFafg0189"), max_size=20),
    st.sampled_from(["", f"sha256:{HEX}", f"sha512:{HEX}{HEX}", HEX[:-1], "sha256:"]),
    st.text(st.sampled_from("sha256512:-_=+./\x00 AFafg0189"), max_size=2),
)
def test_what_passes_is_what_the_grammar_allows(before: str, core: str, after: str) -> None:
    text = before + core + after
    try:
        digest.validate(text)
    except InvalidArgument:
        assert not GRAMMAR.fullmatch(text)
    else:
        assert GRAMMAR.fullmatch(text)
        assert not set(text) & set("/.\x00")


@pytest.mark.parametrize("algorithm", digest.ALGORITHMS)
def test_a_running_hash_names_what_it_has_seen(algorithm: str) -> None:
    running = digest.hasher(algorithm)
    running.update(b"some ")
    running.update(b"bytes")

    named = digest.name(running)

    assert named == f"{algorithm}:{hashlib.new(algorithm, b'some bytes').hexdigest()}"
    assert digest.validate(named) == named


def test_the_canonical_digest_is_sha256() -> None:
    assert digest.of(b"") == f"sha256:{HEX}"


def test_no_other_algorithm_hashes() -> None:
    with pytest.raises(InvalidArgument, match="md5"):
        digest.hasher("md5")
