"""Bytes, entries, and errors are spelled so that people and programs can read them back."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blobkv import spelling
from blobkv.errors import CorruptionError, LockedError, UsageError


@given(st.binary(), st.booleans())
def test_spelling_round_trips(raw: bytes, as_hex: bool) -> None:  # noqa: FBT001 - by Hypothesis
    text = spelling.encode(raw, as_hex=as_hex)

    assert spelling.decode(text, as_hex=as_hex) == raw
    assert text.isprintable()


@pytest.mark.parametrize("text", ["\\", "a\\n", "\\x", "\\x1", "\\xg0"])
def test_a_backslash_that_starts_no_escape_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--hex"):
        spelling.decode(text)


def test_the_escape_that_is_wrong_is_pointed_at() -> None:
    with pytest.raises(UsageError) as raised:
        spelling.decode(r"a\\b\x4g\n")

    assert str(raised.value) == (
        r"a\\b\x4g\n: \x4g at character 5 is no escape; spell a backslash \\ and a byte \xNN, "
        r"or use --hex"
    )


@given(st.binary(), st.booleans())
def test_bytes_round_trip_through_json(raw: bytes, as_hex: bool) -> None:  # noqa: FBT001 - as above
    value = json.loads(json.dumps(spelling.as_json(raw, as_hex=as_hex)))

    assert spelling.from_json(value, as_hex=as_hex) == raw


@given(st.lists(st.binary()), st.binary(), st.binary(), st.booleans())
def test_entries_round_trip_through_a_line(
    names: list[bytes],
    key: bytes,
    value: bytes,
    as_hex: bool,  # noqa: FBT001 - as above
) -> None:
    line = spelling.to_line(names, key, value, as_hex=as_hex)

    assert "\n" not in line
    assert spelling.from_line(line.encode(), as_hex=as_hex) == (names, key, value)


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"\xff",
        b"[" * 100_000,
        b'{"key": "k", "value": "v"}',
        b'{"bucket": "b", "key": "k", "value": "v"}',
        b'{"bucket": [], "key": "k", "value": 1}',
        b'{"bucket": [], "key": "k", "value": null}',
        b'{"bucket": [1], "key": "k", "value": "v"}',
        b'{"bucket": [], "key": "\\ud800", "value": "v"}',
        b'{"bucket": [], "key": "k", "value": {"base64": "/w"}}',
        b'{"bucket": [], "key": "k", "value": {"base64": "/w==", "more": 1}}',
        b'{"bucket": [], "key": "k", "value": "v", "more": 1}',
    ],
    ids=range(14),
)
def test_a_line_that_is_no_entry_is_refused(line: bytes) -> None:
    with pytest.raises(UsageError):
        spelling.from_line(line)


def test_hexadecimal_lines_hold_nothing_else() -> None:
    for value in ("xyz", {"base64": "/w=="}):
        line = json.dumps({"bucket": [], "key": "00", "value": value}).encode()
        with pytest.raises(UsageError, match="hexadecimal"):
            spelling.from_line(line, as_hex=True)


def test_errors_say_what_to_do_in_a_shell() -> None:
    locked = LockedError("db", None, None, 0.0)
    damaged = CorruptionError("MANIFEST", 16, "bad checksum")
    full = OSError(28, "No space left on device")

    assert spelling.explain(locked, "db") == (
        "db: another process has the store open; close it there, or wait with --wait SECONDS"
    )
    assert spelling.explain(damaged, "my db") == (
        "my db: MANIFEST+0x10: bad checksum; run: blobkv 'my db' verify, or salvage DEST; "
        "or restore a backup"
    )
    assert spelling.explain(full, "db") == "db: No space left on device"
