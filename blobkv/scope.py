"""What a transaction and all of its buckets share, and what is left of it at its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from blobkv._engine.state import ENDED, LASTING, State
from blobkv.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobkv._engine.overlay import Overlay
    from blobkv._engine.state import Owner, Reader


class _Ended:
    """The reader of a transaction that has ended."""

    def get(self, key: bytes) -> NoReturn:  # noqa: ARG002  # As every reader's.
        self.check_open()

    def items(
        self,
        start: bytes,  # noqa: ARG002
        stop: bytes | None,  # noqa: ARG002
        *,
        owner: Owner = LASTING,  # noqa: ARG002
        skip: int = 0,  # noqa: ARG002
        reverse: bool = False,  # noqa: ARG002
    ) -> NoReturn:
        self.check_open()

    def count(self, start: bytes, stop: bytes | None) -> NoReturn:  # noqa: ARG002
        self.check_open()

    def check_open(self) -> NoReturn:
        raise ClosedError(ENDED)


_ENDED: Final = _Ended()


class Scope:
    """The state that a transaction reads, and in an update its changes.

    Made by the store, and by batches.

    Attributes:
        get: The reader's, one step nearer: returns the value of a stored key, or None.
        reader: The state it reads; one that raises `ClosedError` once it has ended.
        changes: The same as `reader` in an update; None in a view and at the end.
        sequence: The commit it reads.
        hooks: What to call after the commit.
        ended: Whether the transaction has ended.
    """

    __slots__ = ("changes", "ended", "get", "hooks", "reader", "sequence")

    def __init__(self, sequence: int, reader: Reader, changes: Overlay | None = None) -> None:
        self.get = reader.get
        self.reader = reader
        self.changes = changes
        self.sequence = sequence
        self.hooks: tuple[Callable[[], object], ...] = ()
        self.ended = False

    def end(self) -> None:
        """Make every later use raise `ClosedError`. Idempotent."""
        reader = self.reader
        self.ended = True
        self.changes = None
        self.reader = _ENDED
        self.get = _ENDED.get
        if isinstance(reader, State):
            reader.cut(self)
