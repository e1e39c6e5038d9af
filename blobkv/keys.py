r"""Key order, the end of a prefix, and composite keys that sort like their parts.

Keys are ordered byte by byte, as `bytes` compare. Two encodings build on that order:

* `escape(name)` spells a name so that more key can follow it: 0x00 becomes 0x00 0xff and
  0x00 0x00 ends it. It keeps the order of names, and no escaped name is a prefix of
  another, so a range over one name never reaches into its neighbor.
* `pack(*parts)` spells a tuple of bytes, str, and int so that packed keys sort as the
  tuples do, part by part, and so that `pack("a")` bounds exactly the keys that start with
  the part "a". A part is a tag byte and a body:

    tag   part   body
    ----  -----  ---------------------------------------------------------------
    0x01  bytes  escape(part)
    0x02  str    escape(UTF-8 of part); surrogates pass through, so file names round-trip
    0x14+n int   n = -8 .. 8: the number of magnitude bytes, negative below zero; then
                 the magnitude, big-endian (its complement below zero)

Source: the byte-string rule of toyDB's keycode and the integer rule of FoundationDB's tuple
layer (design/tuple.md), without its floats, nesting, and longer integers.
"""

from __future__ import annotations

from typing import Final

from blobkv.errors import LimitError, UsageError

Part = bytes | str | int

_BYTES: Final = 0x01
_STR: Final = 0x02
_INT_ZERO: Final = 0x14
_INT_SIZE_MAX: Final = 8
_END: Final = b"\x00\x00"
_ZERO: Final = b"\x00\xff"


def prefix_end(prefix: bytes) -> bytes | None:
    r"""Return the smallest key past every key that starts with `prefix`.

    Returns:
        The exclusive upper bound of the prefix's range, or None if no key bounds it: the
        prefix is empty or all 0xff.

    Cost: O(len(prefix)).

    >>> prefix_end(b"a\xff")
    b'b'
    >>> prefix_end(b"\xff\xff") is None
    True
    """
    stem = prefix.rstrip(b"\xff")
    if not stem:
        return None
    return stem[:-1] + bytes((stem[-1] + 1,))


def escape(name: bytes) -> bytes:
    """Return `name` spelled so that it can be followed by more key."""
    return name.replace(b"\x00", _ZERO) + _END


def unescape(key: bytes, at: int) -> tuple[bytes, int]:
    """Read one escaped name that starts at `at`.

    Returns:
        The name, and where the key goes on after it.

    Raises:
        UsageError: No escaped name starts there.
    """
    end = at
    while True:
        end = key.find(b"\x00", end)
        if end < 0 or end + 1 >= len(key):
            raise UsageError(f"no escaped name at byte {at} of key {key!r}")
        if key[end + 1] == 0x00:
            return key[at:end].replace(_ZERO, b"\x00"), end + 2
        if key[end + 1] != 0xFF:
            raise UsageError(f"no escaped name at byte {at} of key {key!r}")
        end += 2


def pack(*parts: Part) -> bytes:
    r"""Return one key that sorts, among packed keys, as `parts` sort among tuples.

    Args:
        *parts: Bytes, text, or integers of at most 64 bits of magnitude, in any mix. Within
            one position bytes sort before text and text before integers.

    Raises:
        UsageError: A part is of another type.
        LimitError: An integer's magnitude needs more than 64 bits.

    Cost: O(size).
    Source: FoundationDB's tuple layer.

    >>> pack("ns", 7, b"\x00") < pack("ns", 8)
    True
    >>> unpack(pack("ns", 7, b"\x00"))
    ('ns', 7, b'\x00')
    """
    return b"".join(map(_pack_part, parts))


def unpack(key: bytes) -> tuple[Part, ...]:
    """Return the parts that `pack` made `key` from.

    Raises:
        UsageError: `key` is not a packed key.
    """
    parts: list[Part] = []
    at = 0
    while at < len(key):
        part, at = _unpack_part(key, at)
        parts.append(part)
    return tuple(parts)


def _pack_part(part: Part) -> bytes:
    if isinstance(part, bytes):
        return b"\x01" + escape(part)
    if isinstance(part, str):
        return b"\x02" + escape(part.encode("utf-8", "surrogatepass"))
    if type(part) is int:
        return _pack_int(part)
    raise UsageError(f"a key part must be bytes, str or int, not {type(part).__name__}")


def _pack_int(number: int) -> bytes:
    magnitude = abs(number)
    size = (magnitude.bit_length() + 7) // 8
    if size > _INT_SIZE_MAX:
        raise LimitError(f"integer {number} needs {size} bytes, limit {_INT_SIZE_MAX}")
    if number < 0:
        # The complement makes the larger magnitude, the smaller number, sort first.
        complement = (1 << 8 * size) - 1 - magnitude
        return bytes((_INT_ZERO - size,)) + complement.to_bytes(size, "big")
    return bytes((_INT_ZERO + size,)) + magnitude.to_bytes(size, "big")


def _unpack_part(key: bytes, at: int) -> tuple[Part, int]:
    tag = key[at]
    if tag == _BYTES:
        return unescape(key, at + 1)
    if tag == _STR:
        raw, at = unescape(key, at + 1)
        try:
            return raw.decode("utf-8", "surrogatepass"), at
        except UnicodeDecodeError as cause:
            raise UsageError(f"not a packed key: bad text in {key!r}") from cause
    size = abs(tag - _INT_ZERO)
    body = key[at + 1 : at + 1 + size]
    if size > _INT_SIZE_MAX or len(body) < size:
        raise UsageError(f"not a packed key: no part starts at byte {at} of {key!r}")
    number = int.from_bytes(body, "big")
    if tag < _INT_ZERO:
        number -= (1 << 8 * size) - 1
    if _pack_int(number) != key[at : at + 1 + size]:
        raise UsageError(f"not a packed key: integer at byte {at} of {key!r} is not shortest")
    return number, at + 1 + size
