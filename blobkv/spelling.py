r"""Bytes as people type and read them: the command line's one rule for keys and values.

* Text stands for its UTF-8.
* `\xNN` stands for one byte, `\\` for a backslash. No other escape exists.
* What is printed keeps to the same rule, so it can be pasted back: bytes that are not UTF-8
  or not printable come out as `\xNN`.
* With `--hex`, hexadecimal digits both ways instead.
* In JSON, bytes that are UTF-8 are a string; others are `{"base64": "..."}`.
"""

from __future__ import annotations

import re
from base64 import b64encode
from typing import Final

from blobkv.errors import UsageError

_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|(\\)|)")


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
        try:
            return bytes.fromhex(text)
        except ValueError as cause:
            raise UsageError(f"{text!r} is not hexadecimal") from cause
    raw = b""
    at = 0
    for escape in _ESCAPE.finditer(text):
        digits, backslash = escape.groups()
        if digits is None and backslash is None:
            raise UsageError(f"{text!r}: spell a backslash \\\\ and a byte \\xNN, or use --hex")
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
    return "".join(map(_spell, raw.decode("utf-8", "surrogateescape")))


def as_json(raw: bytes) -> str | dict[str, str]:
    r"""Return `raw` as a JSON value.

    >>> as_json(b"text"), as_json(b"\xff")
    ('text', {'base64': '/w=='})
    """
    try:
        return raw.decode()
    except UnicodeDecodeError:
        return {"base64": b64encode(raw).decode()}


def _spell(char: str) -> str:
    if char == "\\":
        return "\\\\"
    if char.isprintable():
        return char
    return "".join(f"\\x{byte:02x}" for byte in char.encode("utf-8", "surrogateescape"))
