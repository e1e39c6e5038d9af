"""One file and one directory: what a program sees, and what a power cut leaves of it.

A node has no name and no lock of its own: names are entries of directories, and the volume
that holds the nodes serializes every call.

Invariants:

* `live` is what reads return; `durable` is what the last successful sync promised.
* Without a change since the last sync, both are equal, unless a sync failed in between.
* A file has one name at most in each directory: another place in it takes the old name away.
"""

from __future__ import annotations

from itertools import count
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from random import Random

Keep = Literal["random", "all", "none"]

SECTOR_SIZE: Final = 512
_NUMBERS: Final = count(1)


class FileNode:
    """The bytes of one file, twice: as read, and as durable."""

    def __init__(self, data: bytes = b"") -> None:
        self.live = bytearray(data)
        self.durable = bytearray(data)
        self.number = next(_NUMBERS)
        self.change_count = 0
        # How often a sync has failed, which every open handle reports once.
        self.loss_count = 0
        self._dirty: list[tuple[int, int]] = []
        # What a cut took away again may have reached the disk before the cut did.
        self._dropped: list[bytes] = []

    def replace(self, data: bytes) -> None:
        """Hold `data`, durably, and nothing else."""
        self.live[:] = data
        self.durable[:] = data
        self._dirty.clear()
        self._dropped.clear()
        self.change_count += 1

    def write(self, start: int, data: bytes | bytearray) -> None:
        """Put `data` at `start`, at most the end; a power cut may leave any sectors of it."""
        stop = start + len(data)
        self.live[start:stop] = data
        self.change_count += 1
        if self._dirty and self._dirty[-1][1] == start:
            start = self._dirty.pop()[0]
        self._dirty.append((start, stop))

    def truncate(self, size: int) -> None:
        """Cut the file, or grow it with zeroes, to `size` bytes."""
        self.change_count += 1
        if size < len(self.live):
            self._dropped.append(bytes(self.live))
        del self.live[size:]
        self.live += bytes(size - len(self.live))
        self._dirty = [(start, min(stop, size)) for start, stop in self._dirty if start < size]

    def sync(self) -> None:
        """Make everything written since the last sync, failed or not, durable.

        Where a failed sync lost bytes and nothing rewrote them, `durable` keeps what it had,
        or zeroes where it had nothing.
        """
        del self.durable[len(self.live) :]
        self.durable += bytes(len(self.live) - len(self.durable))
        for start, stop in self._dirty:
            self.durable[start:stop] = self.live[start:stop]
        self._dirty.clear()
        self._dropped.clear()

    def lose(self) -> None:
        """Fail a sync: the dirty bytes are clean now, and not durable."""
        self._dirty.clear()
        self.loss_count += 1

    def survivor(self, rng: Random, keep: Keep) -> FileNode:
        """Return the file as a power cut now might leave it."""
        if keep == "random":
            # The extremes are the likeliest in life and would be rare sector by sector.
            keep = rng.choice(("all", "none", "random", "random"))
        if keep == "all":
            return FileNode(bytes(self.live))
        if keep == "none" or (self.live == self.durable and not self._dropped):
            return FileNode(bytes(self.durable))
        return FileNode(self._torn(rng))

    def _torn(self, rng: Random) -> bytes:
        images = [bytes(self.durable), bytes(self.live), *self._dropped]
        sizes = [len(image) for image in images]
        shortest, longest = min(sizes[:2]), max(sizes)
        size = rng.choice((*sizes, rng.randint(shortest, longest)))
        size = max(size, shortest)
        images = [image.ljust(size, b"\0") for image in images]
        sectors = []
        for at in range(0, size, SECTOR_SIZE):
            first, second = (rng.choice(images)[at : at + SECTOR_SIZE] for _ in range(2))
            cut = rng.choice((0, SECTOR_SIZE, rng.randrange(SECTOR_SIZE)))
            sectors.append(first[:cut] + second[cut:])
        return b"".join(sectors)[:size]


class DirectoryNode:
    """The names in one directory, twice: as seen, and as durable."""

    def __init__(self, entries: dict[str, Node] | None = None) -> None:
        self.live: dict[str, Node] = dict(entries or {})
        self.durable: dict[str, Node] = dict(self.live)
        # In order: this node stands at this name now, or at none.
        self._pending: list[tuple[Node, str | None]] = []

    def place(self, name: str, node: Node) -> None:
        """Give `node` this name only, whatever had it before."""
        self._change(node, name)

    def drop(self, node: Node) -> None:
        """Take the node's name away."""
        self._change(node, None)

    def sync(self) -> None:
        """Make every name durable."""
        self.durable = dict(self.live)
        self._pending.clear()

    def survivor(self, rng: Random, keep: Keep) -> DirectoryNode:
        """Return the directory, and all in it, as a power cut now might leave it."""
        entries = dict(self.durable)
        for node, name in self._pending:
            if keep == "all" or (keep == "random" and rng.random() < 0.5):
                _apply(entries, node, name)
        return DirectoryNode({name: node.survivor(rng, keep) for name, node in entries.items()})

    def _change(self, node: Node, name: str | None) -> None:
        _apply(self.live, node, name)
        self._pending.append((node, name))


Node = FileNode | DirectoryNode


def _apply(entries: dict[str, Node], node: Node, name: str | None) -> None:
    for held in [held for held, other in entries.items() if other is node]:
        del entries[held]
    if name is not None:
        entries[name] = node
