"""Small programs that damage bytes: what a fuzzer mutates in place of the bytes themselves.

A program is records of 15 bytes, each one edit of what the edits before it left: a bit
flipped, a number put somewhere, a stretch deleted, repeated, or copied, or the end cut off.
So a short input damages a large file, and leaves what it does not touch in its place. Bytes
behind the last whole record do nothing.
"""

from __future__ import annotations

from random import Random
from struct import Struct, pack_into
from typing import Final

_EDIT: Final = Struct("<BIHQ")
EDITS_MAX: Final = 8
# Where sums overflow, signs change, and sizes stop making sense.
_NUMBERS: Final = (
    *(0, 1, 2, 7, 63, 64, 65, 127, 128, 255, 4095, 4096, 4097, 0xFFFF, 0x10000),
    *(2**bits + more for bits in (31, 32, 40, 54, 60, 62, 63) for more in (-2, -1, 0)),
    *(2**64 - 1, 2**64 - 2),
)
_KINDS: Final = 9
# From the end, or at one of the places that the caller knows.
_FROM_END: Final = 0x40
_KNOWN_PLACE: Final = 0x80


def edited(data: bytes, program: bytes, places: tuple[int, ...] = ()) -> bytes:
    """Return `data` after the edits, at most 8 of them.

    Args:
        data: What is damaged.
        program: The edits.
        places: Offsets in `data` where something begins that is worth an edit.
    """
    changed = bytearray(data)
    whole = min(len(program) // _EDIT.size, EDITS_MAX) * _EDIT.size
    for kind, where, size, value in _EDIT.iter_unpack(program[:whole]):
        if not changed:
            break
        at = where % len(changed)
        if kind & _FROM_END:
            at = len(changed) - 1 - at
        if kind & _KNOWN_PLACE and places:
            at = min(places[where % len(places)], len(changed) - 1)
        _edit(changed, kind % 16 % _KINDS, at, size, value)
    return bytes(changed)


def _edit(data: bytearray, kind: int, at: int, size: int, value: int) -> None:
    source = value % len(data)
    match kind:
        case 0:
            data[at] ^= 1 << value % 8
        case 1:
            data[at] = value & 0xFF
        case 2:
            _put(data, at, 4, value & 0xFFFFFFFF)
        case 3:
            _put(data, at, 8, value)
        case 4:
            number = _NUMBERS[value % len(_NUMBERS)]
            _put(data, at, 4 if size % 2 else 8, number)
        case 5:
            del data[at : at + size]
        case 6:
            data[at:at] = data[source : source + size]
        case 7:
            data[at : at + size] = data[source : source + size]
        case _:
            del data[at:]


def _put(data: bytearray, at: int, size: int, number: int) -> None:
    if at + size <= len(data):
        pack_into("<I" if size == 4 else "<Q", data, at, number & ((1 << 8 * size) - 1))


def random_program(rng: Random) -> bytes:
    """Return a program of one to three edits, most of them at known places."""
    return b"".join(
        _EDIT.pack(
            rng.randrange(_KINDS) | rng.choice((0, _FROM_END, _KNOWN_PLACE, _KNOWN_PLACE)),
            rng.getrandbits(32),
            rng.choice((1, 4, 8, rng.randrange(64), rng.randrange(5000))),
            rng.getrandbits(rng.choice((3, 8, 32, 64))),
        )
        for _ in range(rng.randint(1, 3))
    )
