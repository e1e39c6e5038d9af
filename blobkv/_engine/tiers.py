"""Which tables to merge: lazily by size, and to the bottom when there is garbage to drop.

Runs of like size are merged once there are four of them, so that each entry is rewritten
O(log n) times and reads probe O(log n) runs. (A run is tables without a key in common; those
too small to be a piece count one by one, or there would be ever more.) Only neighbors in age
are merged, which keeps the tables ordered by age. With new keys only nothing else happens:
10^6 of them are written 2.5 times, log and flush included, as measured.

Once there is garbage of more than a third of what is alive, everything is merged to the bottom.
What a share s costs: a store grows to 1 + s, so for each byte that becomes garbage (1 + s) / s
are read and 1 / s written: 4 and 3 for a third, 3 and 2 for a half, 6 and 5 for a fifth; and
while that merge runs the store holds its newer inputs, two pieces, and what is committed
meanwhile on top. A third leaves 0.87 of the 2.2 aimed at (decision 7) for those.

Source: RocksDB's universal compaction, with its bound on space amplification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from blobkv._engine.tables import Tables

_TIER_COUNT: Final = 4
_LIKE_FACTOR: Final = 2
_GARBAGE_DIVISOR: Final = 3
# Below this, nobody misses the room, and small stores are left in peace.
_GARBAGE_MIN: Final = 1 << 20

# So that the room for a piece is a small part of the store's, and a table has a useful size.
# Where nothing is garbage the room is not short, and each piece costs several syncs.
_PIECE_SIZE_MIN: Final = 4 << 20
_LOAD_PIECE_SIZE_MIN: Final = 16 << 20
_PIECE_SIZE_MAX: Final = 64 << 20
_PIECE_DIVISOR: Final = 16
# Of a merge of everything that was asked for: the fewer tables, the better, but the next merge
# needs room for one of them.
_WHOLE_PIECE_SIZE_MIN: Final = 8 << 20
_WHOLE_PIECE_DIVISOR: Final = 4
_WHOLE_PIECE_SIZE_MAX: Final = 256 << 20


def choose(tables: Tables, garbage: int) -> slice | None:
    """Return which neighboring tables to merge, or None if none.

    Args:
        tables: Those to choose from, the newest first.
        garbage: How many bytes of all of them no reader needs.
    """
    alive = sum(table.size for table in tables) - garbage
    if much_garbage(garbage, alive):
        return slice(0, len(tables))
    counts, sizes = _units(tables)
    for first, size in enumerate(sizes):
        last = first
        while last < len(sizes) and sizes[last] <= _LIKE_FACTOR * size:
            last += 1
        if last - first >= _TIER_COUNT:
            return slice(sum(counts[:first]), sum(counts[:last]))
    return None


def much_garbage(garbage: int, alive: int) -> bool:
    """Return whether there is enough garbage to merge everything for it."""
    return garbage >= _GARBAGE_MIN and garbage * _GARBAGE_DIVISOR > alive


def _units(tables: Tables) -> tuple[list[int], list[int]]:
    """Return how many tables, and how many bytes, make what counts as one, by age."""
    counts: list[int] = []
    sizes: list[int] = []
    at = 0
    for run in tables.runs:
        begun = False
        # By age, unlike in the run.
        for table in tables[at : at + len(run.tables)]:
            if begun:
                counts[-1] += 1
                sizes[-1] += table.size
            else:
                counts.append(1)
                sizes.append(table.size)
            # The last piece of a merge is small, and belongs to those before it. Others are
            # half of a piece at least: counted one by one, they would be merged for ever.
            begun = begun or table.size >= _PIECE_SIZE_MIN // 2
        at += len(run.tables)
    return counts, sizes


def piece_size(size: int, garbage: int) -> int:
    """Return how large a piece is to be, in a merge of `size` bytes to which `garbage` led."""
    least = _LOAD_PIECE_SIZE_MIN if garbage < _GARBAGE_MIN else _PIECE_SIZE_MIN
    return max(least, min(size // _PIECE_DIVISOR, _PIECE_SIZE_MAX))


def whole_piece_size(size: int) -> int:
    """Return the same where those are all there are, and the caller asked for it."""
    size //= _WHOLE_PIECE_DIVISOR
    return max(_WHOLE_PIECE_SIZE_MIN, min(size, _WHOLE_PIECE_SIZE_MAX))
