r"""What people type and read: the command line's one rule for bytes, entries, and errors.

* Text stands for its UTF-8.
* `\xNN` stands for one byte, `\\` for a backslash. No other escape exists.
* What is printed keeps to the same rule, so it can be pasted back: bytes that are not UTF-8
  or not printable come out as `\xNN`.
* With `--hex`, hexadecimal digits both ways instead.
* In JSON, bytes that are UTF-8 are a string; others are `{"base64": "..."}`. With `--hex`, all
  are a string of hexadecimal digits.
* An entry of a dump is one line of JSON: `{"bucket": [...], "key": ..., "value": ...}`.
"""

from __future__ import annotations

import json
import re
import shlex
from base64 import b64decode, b64encode
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final

from blobkv.errors import CorruptionError, LockedError, UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable

# One that matches neither group is a mistake.
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(\\)|x?)")


def decode(text: str, *, as_hex: bool = False) -> bytes:
    r"""Return the bytes that `text` spells.

    Raises:
        UsageError: It is not hexadecimal, or a backslash in it starts no escape.

    >>> decode(r"caf\xc3\xa9 \\ \x00")
    b'caf\xc3\xa9 \\ \x00'
    >>> decode("00ff", as_hex=True)
    b'\x00\xff'
    """
    if as_hex:
        return _from_hex(text)
    raw = b""
    at = 0
    for escape in _ESCAPE.finditer(text):
        digits, backslash = escape.groups()
        if digits is None and backslash is None:
            wrong = text[escape.start() : escape.start() + (4 if escape[0] == r"\x" else 2)]
            raise UsageError(
                rf"{text}: {wrong} at character {escape.start() + 1} is no escape; spell a "
                r"backslash \\ and a byte \xNN, or use --hex"
            )
        # An argument that is no text reaches Python as surrogates, and leaves it so.
        raw += text[at : escape.start()].encode("utf-8", "surrogateescape")
        raw += bytes.fromhex(digits) if digits else b"\\"
        at = escape.end()
    return raw + text[at:].encode("utf-8", "surrogateescape")


def encode(raw: bytes, *, as_hex: bool = False) -> str:
    r"""Return the text that `decode` turns into `raw`.

    >>> print(encode(b"caf\xc3\xa9\n\xff\\"))
    café\x0a\xff\\
    """
    if as_hex:
        return raw.hex()
    return printable(raw.decode("utf-8", "surrogateescape").replace("\\", "\\\\"))


def printable(text: str) -> str:
    r"""Return `text` on one line: what is not printable is spelled, all else as it is.

    >>> print(printable("a\nb\\c"))
    a\x0ab\c
    """
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else _spell(char) for char in text)


def as_json(raw: bytes, *, as_hex: bool = False) -> str | dict[str, str]:
    r"""Return `raw` as a JSON value.

    >>> as_json(b"text"), as_json(b"\xff"), as_json(b"\xff", as_hex=True)
    ('text', {'base64': '/w=='}, 'ff')
    """
    if as_hex:
        return raw.hex()
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(raw).decode()}


def from_json(value: object, *, as_hex: bool = False) -> bytes:
    r"""Return the bytes that `as_json` turns into `value`.

    Raises:
        UsageError: It turns no bytes into that.

    >>> from_json({"base64": "/w=="})
    b'\xff'
    """
    match value:
        case str() if as_hex:
            return _from_hex(value)
        case str():
            # JSON can spell halves of characters, which UTF-8 cannot.
            with suppress(UnicodeEncodeError):
                return value.encode()
        case {"base64": str(digits), **others} if not others and not as_hex:
            with suppress(ValueError):
                return b64decode(digits, validate=True)
    expected = "hexadecimal" if as_hex else 'text or {"base64": "..."}'
    raise UsageError(f"{json.dumps(value)} is not {expected}")


def to_line(names: Iterable[bytes], key: bytes, value: bytes, *, as_hex: bool = False) -> str:
    r"""Return the line, without its end, that stands for an entry of the bucket `names`.

    >>> to_line([b"stock"], b"apple", b"12")
    '{"bucket": ["stock"], "key": "apple", "value": "12"}'
    """
    spell = partial(as_json, as_hex=as_hex)
    record = {"bucket": [*map(spell, names)], "key": spell(key), "value": spell(value)}
    return json.dumps(record)


def from_line(line: bytes, *, as_hex: bool = False) -> tuple[list[bytes], bytes, bytes]:
    """Return the bucket's names, the key, and the value that `to_line` turns into `line`.

    Raises:
        UsageError: It turns no entry into that.
    """
    try:
        record = json.loads(line)
    except (ValueError, RecursionError) as cause:
        raise UsageError(f"not JSON: {cause}") from cause
    match record:
        case {"bucket": list(names), "key": key, "value": value} if len(record) == 3:
            read = partial(from_json, as_hex=as_hex)
            return [*map(read, names)], read(key), read(value)
    raise UsageError("not an object of bucket, key, and value")


def counted(count: int, noun: str, plural: str = "") -> str:
    """Return so many of something, in words.

    >>> counted(1, "entry", "entries"), counted(2, "key")
    ('1 entry', '2 keys')
    """
    return f"{count} {noun if count == 1 else plural or noun + 's'}"


def explain(error: Exception, path: str) -> str:
    """Return what an error of the store at `path`, or of its disk, means in a shell.

    >>> print(explain(LockedError("db", 42, "here", 0.0), "db"))
    db: process 42 on here has the store open; close it there, or wait with --wait SECONDS
    """
    match error:
        case LockedError():
            known = error.pid is not None
            holder = f"process {error.pid} on {error.host}" if known else "another process"
            remedy = "close it there, or wait with --wait SECONDS"
            return f"{path}: {holder} has the store open; {remedy}"
        case CorruptionError():
            remedy = (
                f"run: blobkv {shlex.quote(path)} verify, or salvage DEST; or restore a backup"
            )
            return f"{path}: {error}; {remedy}"
        case OSError():
            return f"{error.filename or path}: {error.strerror or error}"
    return str(error)


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex(text)
    except ValueError as cause:
        raise UsageError(f"{text} is not hexadecimal") from cause


def _spell(char: str) -> str:
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
