"""One member of a tar as bytes: the same fields give the same bytes, everywhere and always.

    [ pax header   512, then its records, padded to 512 ]  only where a field needs it
    ustar header   512
    data           `size` bytes, padded to 512, written by the caller

What the fields of a ustar header hold goes there: a name of up to 100 bytes, or of up to 256
that can be cut at a "/"; owners below 2^21; whole seconds from 1970 on; sizes below 8 GiB.
What they do not hold goes into a pax header before it, in records sorted by key. Names are
bytes and stay as they are; there are no names of owners, and no time but the member's own.

Source: POSIX.1-2017, pax, "pax Interchange Format" and "ustar Interchange Format". Extended
attributes are those of star, "SCHILY.xattr.", as in the OCI image specification.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

BLOCK_SIZE: Final = 512
END: Final = bytes(2 * BLOCK_SIZE)

FILE: Final = b"0"
LINK: Final = b"1"
SYMLINK: Final = b"2"
CHARACTER: Final = b"3"
BLOCK: Final = b"4"
DIRECTORY: Final = b"5"
FIFO: Final = b"6"

_PAX: Final = b"x"
_PAX_NAME: Final = b"././@PaxHeader"
_XATTR: Final = b"SCHILY.xattr."
_NAME_SIZE: Final = 100
_PREFIX_SIZE: Final = 155
_SHORT_MAX: Final = 8**7 - 1
_LONG_MAX: Final = 8**11 - 1
_NS: Final = 10**9
_CHECKSUM: Final = slice(148, 156)


@dataclass(frozen=True, slots=True)
class Member:
    """What a tar says of one file.

    Attributes:
        name: Its path, without a "/" at either end.
        kind: One of the constants above.
        mode: Its permission bits.
        uid: Its owner's number.
        gid: Its group's number.
        size: Of a regular file, its bytes.
        mtime_ns: When it was modified, in nanoseconds.
        target: Of a link, where it leads.
        device: Of a device, its two numbers.
        xattrs: Its extended attributes.
    """

    name: bytes
    kind: bytes
    mode: int = 0
    uid: int = 0
    gid: int = 0
    size: int = 0
    mtime_ns: int = 0
    target: bytes = b""
    device: tuple[int, int] = (0, 0)
    xattrs: Mapping[str, bytes] = field(default_factory=dict)


def encode(member: Member) -> bytes:
    """Return the member's header or headers.

    Raises:
        InvalidArgument: An extended attribute has a "=" in its name, which ends a name here.

    >>> len(encode(Member(b"a", FILE))), len(encode(Member(b"a" * 101, FILE)))
    (512, 1536)
    """
    name = member.name + (b"/" if member.kind == DIRECTORY else b"")
    records = {_XATTR + _key(key): value for key, value in member.xattrs.items()}
    seconds, rest = divmod(member.mtime_ns, _NS)
    if rest or not 0 <= seconds <= _LONG_MAX:
        records[b"mtime"] = _decimal(member.mtime_ns)
    prefix, tail = _split(name)
    if len(tail) > _NAME_SIZE:
        records[b"path"] = name
    if len(member.target) > _NAME_SIZE:
        records[b"linkpath"] = member.target
    for key, number, most in (
        (b"uid", member.uid, _SHORT_MAX),
        (b"gid", member.gid, _SHORT_MAX),
        (b"size", member.size, _LONG_MAX),
    ):
        if number > most:
            records[key] = b"%d" % number
    header = _header(member, prefix, tail, min(max(seconds, 0), _LONG_MAX))
    return _extended(records) + header if records else header


def padding(size: int) -> bytes:
    """Return what follows `size` bytes of data, so that the next header starts at a block."""
    return bytes(-size % BLOCK_SIZE)


def _key(attribute: str) -> bytes:
    key = attribute.encode("utf-8", "surrogateescape")
    if b"=" in key:
        raise InvalidArgument(
            f'the extended attribute {attribute!r} has a "=" in its name, which no tar can '
            "hold; remove it"
        )
    return key


def _decimal(time_ns: int) -> bytes:
    seconds, rest = divmod(abs(time_ns), _NS)
    text = f"{'-' if time_ns < 0 else ''}{seconds}.{rest:09d}"
    return text.rstrip("0").rstrip(".").encode()


def _split(name: bytes) -> tuple[bytes, bytes]:
    """Return the two fields of a name; the second is too long if it takes a pax header."""
    if len(name) <= _NAME_SIZE:
        return b"", name
    cut = name[:-1].rfind(b"/", 0, _PREFIX_SIZE + 1)
    if cut > 0 and len(name) - cut - 1 <= _NAME_SIZE:
        return name[:cut], name[cut + 1 :]
    return b"", name


def _extended(records: Mapping[bytes, bytes]) -> bytes:
    body = b"".join(_record(key, records[key]) for key in sorted(records))
    header = _header(Member(_PAX_NAME, _PAX, size=len(body)), b"", _PAX_NAME, 0)
    return header + body + padding(len(body))


def _record(key: bytes, value: bytes) -> bytes:
    # The length counts its own digits.
    rest = len(key) + len(value) + 3
    size = rest + len(str(rest))
    size = rest + len(str(size))
    return b"%d %s=%s\n" % (size, key, value)


def _header(member: Member, prefix: bytes, name: bytes, seconds: int) -> bytes:
    short = [member.mode, min(member.uid, _SHORT_MAX), min(member.gid, _SHORT_MAX)]
    block = bytearray(BLOCK_SIZE)
    block[:257] = b"".join(
        (
            name[:_NAME_SIZE].ljust(_NAME_SIZE, b"\0"),
            *(b"%07o\0" % number for number in short),
            *(b"%011o\0" % number for number in (min(member.size, _LONG_MAX), seconds)),
            b" " * 8,
            member.kind,
            member.target[:_NAME_SIZE].ljust(_NAME_SIZE, b"\0"),
        )
    )
    block[257:265] = b"ustar\x0000"
    if member.kind in {CHARACTER, BLOCK}:
        block[329:345] = b"%07o\0%07o\0" % member.device
    block[345 : 345 + len(prefix)] = prefix
    block[_CHECKSUM] = b"%06o\0 " % sum(block)
    assert len(block) == BLOCK_SIZE
    return bytes(block)
