"""Which states are still being read, so that nothing a reader needs is forgotten.

All views of one commit share one state, made when the first of them asks for it. Whoever
reads keeps a reference to it, and this module only weak ones: a view costs nothing to open
or to end, needs no lock for either, and may end in the middle of anything, when the
interpreter drops it.

An update's own state is not among them: while it holds the write lock nothing newer is applied.

One reader is not seen: a view in a cycle of references that only the garbage collector ends,
if a finalizer in that cycle goes on reading it. The collector clears weak references first.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import ref

from blobkv._engine.state import State

if TYPE_CHECKING:
    from blobkv._engine.state import Layers


class Views:
    """The states that are read.

    Attributes:
        newest: What a new view reads, once made; None when there is something newer. Read
            without a lock, changed under the state lock.
    """

    def __init__(self) -> None:
        self.newest: State | None = None
        # In the order of their sequences, since each new state is of the newest.
        self._live: dict[ref[State], int] = {}

    def state(self, layers: Layers, sequence: int, *, keep: bool) -> State:
        """Return what a new view reads. Called under the state lock.

        Args:
            layers: What it consists of.
            sequence: Its commit.
            keep: Whether later views may read it, without asking, until `renew`.

        Cost: O(memtables) the first time, then O(1).
        """
        if self.newest is not None:
            return self.newest
        state = State(layers, sequence)
        # Called whenever and wherever the last reader lets go. It is no function of ours:
        # there an interrupt would be lost, and so would be what it was to do.
        self._live[ref(state, self._live.pop)] = sequence
        if keep:
            # Last: from here on anybody may read it.
            self.newest = state
        return state

    def renew(self) -> None:
        """Have the next view ask for its state. Called under the state lock."""
        self.newest = None

    def sequences(self) -> list[int]:
        """Return the sequences that are read, ascending. O(states that are read).

        What `newest` is kept for counts as read: call `renew` before, if it is not to.
        """
        return list(self._live.values())

    def close(self) -> None:
        """Have every read of every open view raise `ClosedError`."""
        self.newest = None
        for reference in list(self._live):
            state = reference()
            if state is not None:
                state.close()
