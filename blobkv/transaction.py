"""Transactions: one consistent state of the store, and in an update the changes to it.

A *view* shows the store as of one commit and never changes. An *update* shows the newest
state with its own changes on top; it commits at the end of its with-block, or rolls back if
the block raises. Both are mappings of the entries outside any bucket (see `bucket.py`).

Source: bolt's Tx, as a mapping.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from blobkv.bucket import ENTRIES_END, ENTRY, Entries

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

    from blobkv.scope import Scope


class Transaction(Entries):
    """One view or one update. Made by `Store.view`, `Store.update`, and `Store.batch`.

    Not to be shared between threads. Leaving the with-block ends it: a view is given up, an
    update commits, or rolls back if the block raised.

    Args:
        scope: What it reads and changes.
    """

    # A view has nothing of its own: that makes it cheap to open.
    __slots__ = ("__weakref__",)

    _path = b""
    _prefix = ENTRY
    _end = ENTRIES_END

    @property
    def sequence(self) -> int:
        """The commit it reads; of an update that has committed, its own commit."""
        return self._scope.sequence

    def commit(self) -> None:
        """Make the changes visible, and durable unless `durable=False`; end the transaction.

        Nothing to change: nothing is written. Of a view: the same as `rollback`.

        Raises:
            OSError: The device refused. Nothing was committed if it was the write that failed;
                if it was the sync, it may survive, and the store is poisoned.
            LimitError: The changes are over 4 GiB.
            PoisonedError: An earlier write or sync failed.
            ClosedError: It has ended already.
        """
        self._check_open()
        self.rollback()

    def rollback(self) -> None:
        """Drop the changes and end the transaction. Idempotent."""
        self._scope.end()

    def on_commit(self, fn: Callable[[], object]) -> None:
        """Call `fn()` after this update has committed: once it is durable, if it is to be.

        In the thread that called `commit`, or in a batch in that of the call's own caller; in
        the order given. Not called if it rolls back. What `fn` raises comes out of the commit,
        which stands; those after it are not called.

        Raises:
            ReadOnlyError: The transaction is a view.
        """
        self._changes()
        self._scope.hooks += (fn,)

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._scope.end()


class Update(Transaction):
    """A transaction that can change the store.

    Args:
        scope: What it reads and changes.
        commit: Makes the scope's changes durable and returns their sequence.
        release: Called when it ends, maybe more than once. That it is dropped is enough: one
            that nobody refers to must not hold the write lock for ever.
    """

    __slots__ = ("_commit", "_release")

    def __init__(
        self,
        scope: Scope,
        *,
        commit: Callable[[Scope], int],
        release: Callable[[], object],
    ) -> None:
        super().__init__(scope)
        self._commit = commit
        self._release = release

    def commit(self) -> None:
        """Make the changes visible, as `Transaction.commit`."""
        scope = self._scope
        self._check_open()
        try:
            scope.sequence = self._commit(scope)
        finally:
            self.rollback()
        for hook in scope.hooks:
            hook()

    def rollback(self) -> None:
        """Drop the changes and end the transaction. Idempotent."""
        self._scope.end()
        # Also when it had ended: an interrupt may have come between the two.
        self._release()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if exc_type is None and not self._scope.ended:
            self.commit()
        else:
            self.rollback()
