"""The hash index of a table: where the entry of a key is, in one or two reads.

    hash index: u8[slots] tags, u64[slots] places, u32[pages] checksums

    A slot is empty (tag 0) or stands for one entry:

        tag             low 8 bits of crc32(key), 1 if they are 0
        place
        bits 54 .. 63   size of the key; 1023: that or more
        bits 40 .. 53   size of the value; 16382: that or more; 16383: a tombstone
        bits  0 .. 39   where the key starts in the file; the value follows it

    The home of a key is crc32(key) * homes >> 32; it is in the first slot free from there,
    at most PROBE_MAX, 128, further, without wrapping round: there are PROBE_MAX + 1 slots
    more than homes. No more than PROBE_MAX slots in a row are full. Keys made to collide
    would need more: then a table has no hash index (homes = 0) and is searched by its block
    index.

    A page is 8192 homes; its checksum covers their tags and those of the PROBE_MAX + 1 slots
    behind them, then the places of the same: all that a search from one of them can read.

A miss ends at the first empty tag and reads tags alone, of which a cache line holds 64, but
for one in some 170, which meets a tag like its own and reads a place and a key. A hit reads a
tag or two, a place, the key, and the value beside it.

Invariants:

* A page is read only after its checksum was compared.

Source: tags apart from what they stand for follow Swiss tables.
"""

from __future__ import annotations

import re
from array import array
from itertools import accumulate
from operator import add
from typing import TYPE_CHECKING, Final
from zlib import crc32

from blobkv._engine.format import CRC
from blobkv._engine.table_format import little_endian, numbers_in_place
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobkv._engine.files import Mapped
    from blobkv._engine.table_format import Footer

TAG_MASK: Final = 0xFF
KEY_SHIFT: Final = 54
KEY_LONG: Final = 0x3FF
VALUE_SHIFT: Final = 40
VALUE_MASK: Final = 0x3FFF
VALUE_LONG: Final = 0x3FFE
TOMBSTONE: Final = 0x3FFF
OFFSET_MASK: Final = (1 << VALUE_SHIFT) - 1
PROBE_MAX: Final = 128
PAGE_SHIFT: Final = 13

# The diagram above is the specification; these tie the code to it.
assert KEY_LONG == 1023
assert VALUE_LONG == 16382
assert TOMBSTONE == 16383
assert PROBE_MAX == 128
assert 1 << PAGE_SHIFT == 8192


class HashIndex:
    """The hash index of one open table, each page verified at its first use.

    Args:
        data: The whole file.
        footer: What its footer says.
        name: Its name, for errors.

    Attributes:
        homes: How many slots are somebody's home; 0 if the table has no hash index.
        tags: The tag of each slot.
        places: The place of each slot, as a number.
        verified: For each page, whether it was verified.

    Raises:
        CorruptionError: The checksums of its pages are not what the footer says.

    Cost: O(pages), 4 bytes each.
    """

    def __init__(self, data: Mapped, footer: Footer, name: str) -> None:
        self.homes = footer.homes
        slots, pages = slot_count(self.homes), page_count(self.homes)
        places_offset = footer.hash_offset + slots
        crcs_offset = places_offset + 8 * slots
        if crcs_offset + CRC.size * pages != footer.index_offset:
            reason = f"hash index of {slots} slots does not fit its place"
            raise CorruptionError(name, footer.hash_offset, reason)
        raw = memoryview(data)
        crcs = raw[crcs_offset : footer.index_offset]
        if crc32(crcs) != footer.hash_crc:
            reason = f"hash index checksum is {crc32(crcs):#x}, expected {footer.hash_crc:#x}"
            raise CorruptionError(name, crcs_offset, reason)
        self.tags = raw[footer.hash_offset : places_offset]
        self.places = numbers_in_place(raw[places_offset:crcs_offset], "Q")
        self.verified = bytearray(pages)
        self._raw_places = raw[places_offset:crcs_offset]
        self._crcs = numbers_in_place(crcs, "I")
        self._offset = footer.hash_offset
        self._name = name

    def verify_page(self, page: int) -> None:
        """Verify a page, so that its homes can be searched.

        Raises:
            CorruptionError: It is not what was written.

        Cost: one pass over 72 KiB.
        """
        first, last = page_slots(page)
        found = crc32(self._raw_places[8 * first : 8 * last], crc32(self.tags[first:last]))
        if found != self._crcs[page]:
            reason = f"hash index checksum is {found:#010x}, expected {self._crcs[page]:#010x}"
            raise CorruptionError(self._name, self._offset + first, reason)
        self.verified[page] = 1


def slot_count(homes: int) -> int:
    """Return how many slots there are for that many homes."""
    return homes + PROBE_MAX + 1 if homes else 0


def page_count(homes: int) -> int:
    """Return how many pages there are for that many homes."""
    return -(-homes >> PAGE_SHIFT)


def page_slots(page: int) -> tuple[int, int]:
    """Return the first slot that a page's checksum covers, and the one past the last."""
    return page << PAGE_SHIFT, (page + 1 << PAGE_SHIFT) + PROBE_MAX + 1


def places_of(
    key_sizes: Sequence[int],
    value_sizes: Sequence[int],
    values: Sequence[bytes | None],
    at: int,
) -> list[int]:
    """Return the place of each entry of a block.

    Args:
        key_sizes: Those of its keys, in bytes.
        value_sizes: Those of its values.
        values: The values; None for a tombstone.
        at: Where its first key is in the file.
    """
    starts = accumulate(map(add, key_sizes, value_sizes), initial=at)
    if max(key_sizes) > KEY_LONG:
        key_sizes = [min(size, KEY_LONG) for size in key_sizes]
    if max(value_sizes) > VALUE_LONG:
        value_sizes = [min(size, VALUE_LONG) for size in value_sizes]
    sizes = zip(starts, key_sizes, value_sizes, strict=False)
    places = [key << KEY_SHIFT | value << VALUE_SHIFT | start for start, key, value in sizes]
    if None in values:
        for i, value in enumerate(values):
            if value is None:
                places[i] |= TOMBSTONE << VALUE_SHIFT
    return places


def fill_slots(hashes: array[int], places: array[int]) -> tuple[bytearray, array[int]]:
    """Return the tags and the places of all slots; none if keys collide too much.

    Args:
        hashes: crc32 of each key.
        places: The place of each.

    Cost: O(entries), 9 bytes a slot, two slots an entry, so that a hit reads 1.5 tags and a
    miss 2.5 on average.
    """
    homes = 2 * len(hashes)
    tags = bytearray(slot_count(homes))
    slots = array("Q", [0]) * len(tags)
    for crc, place in zip(hashes, places, strict=True):
        home = at = crc * homes >> 32
        while tags[at]:
            at += 1
            if at - home > PROBE_MAX:
                return bytearray(), array("Q")
        tags[at] = crc & TAG_MASK or 1
        slots[at] = place
    if is_too_full(tags):
        return bytearray(), array("Q")
    return tags, slots


def is_too_full(tags: bytearray | memoryview) -> bool:
    """Return whether more than PROBE_MAX slots in a row are full.

    A search for what is not there reads on to an empty slot, and no checksum reaches further.
    """
    return re.search(rb"[^\x00]{%d}" % (PROBE_MAX + 1), tags) is not None


def encode_hash_index(tags: bytearray, places: array[int]) -> Iterator[bytes]:
    """Yield the bytes of the hash index in parts; the last part is the checksums."""
    homes = max(len(tags) - PROBE_MAX - 1, 0)
    crcs = array("I")
    yield bytes(tags)
    for page in range(page_count(homes)):
        first, last = page_slots(page)
        raw = little_endian(places[first:last])
        crcs.append(crc32(raw, crc32(tags[first:last])))
        # Those behind its homes stand in the next page; the last page has no next.
        yield raw if last >= len(tags) else raw[: 8 << PAGE_SHIFT]
    yield little_endian(crcs)
