"""Many callers, one commit: each caller's function runs once, in the transaction of a leader.

Whoever gets the write lock first leads: it runs the functions of all who wait, each in an
overlay of its own on the transaction so far, and commits once. A function that raises loses
its overlay and gets its own exception; the others are untouched. Nobody waits on a timer.

Source: bolt's DB.Batch, without its delay and without calling a function twice.
"""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from blobkv._engine.overlay import Overlay
from blobkv.errors import InterruptedCommit, UsageError
from blobkv.scope import Scope
from blobkv.transaction import Update

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobkv.transaction import Transaction

T = TypeVar("T")


class _Call(Generic[T]):
    """One caller's function and what became of it."""

    def __init__(self, fn: Callable[[Transaction], T]) -> None:
        self.fn = fn
        self.done = threading.Event()
        self.taken = False
        self.hooks: tuple[Callable[[], object], ...] = ()
        self.result: list[T] = []
        self.error: BaseException | None = None

    def run(self, sequence: int, below: Overlay) -> None:
        """Call the function on top of `below`, and keep what it changed unless it raises."""
        changes = Overlay(below)
        scope = Scope(sequence, changes, changes)
        transaction = Update(scope, commit=_refuse, release=_ignore)
        try:
            self.result.append(self.fn(transaction))
        except KeyboardInterrupt:
            # Of the thread that leads, whoever's function it was.
            raise
        except BaseException as error:  # noqa: BLE001  # Its own caller gets it.
            self.error = error
        else:
            # Ended already if the function rolled back: then it has changed nothing.
            if not scope.ended:
                below.absorb(changes)
                self.hooks = scope.hooks
        finally:
            scope.end()

    def outcome(self) -> T:
        """Return what the function returned, or raise what became of it."""
        if self.error is not None:
            raise self.error
        for hook in self.hooks:
            hook()
        return self.result[0]


class Batches:
    """The calls that wait for a leader.

    Args:
        begin: Waits for the write lock and begins an update: its scope and itself.
    """

    def __init__(self, begin: Callable[[], tuple[Scope, Transaction]]) -> None:
        self._begin = begin
        self._waiting: deque[_Call[Any]] = deque()

    def run(self, fn: Callable[[Transaction], T]) -> T:
        """Have `fn` called exactly once, by this thread or a leader, and return its result.

        Raises:
            Whatever `fn` raises, or what the commit raises.
        """
        call = _Call(fn)
        self._waiting.append(call)
        try:
            scope, transaction = self._begin()
        except BaseException as error:
            # Unless a leader took the call already: then the call has an outcome of its own.
            if self._withdraw(call):
                raise
            call.done.wait()
            if not isinstance(error, Exception):
                raise
        else:
            if call.taken:
                # The leader that took it waits for the disk; hand the lock on to who needs it.
                transaction.rollback()
            else:
                self._lead(scope, transaction)
        call.done.wait()
        return call.outcome()

    def _lead(self, scope: Scope, transaction: Transaction) -> None:
        calls: list[_Call[Any]] = []
        changes = scope.changes
        assert changes is not None
        try:
            self._take(calls)
            for call in calls:
                call.run(scope.sequence, changes)
            transaction.commit()
        except Exception as error:  # noqa: BLE001  # Every caller gets it, this one included.
            _fail(calls, error)
        except BaseException:
            _fail(calls, InterruptedCommit("the thread that led this batch was interrupted"))
            for call in calls:
                # One that was just being taken must not be called by the next leader as well.
                self._withdraw(call)
            raise
        finally:
            try:
                transaction.rollback()
                for call in calls:
                    call.done.set()
            except BaseException:
                # Interrupted just here: nobody else would tell those who wait.
                for call in calls:
                    call.done.set()
                raise

    def _take(self, calls: list[_Call[Any]]) -> None:
        for call in list(self._waiting):
            # In this order, an interrupt leaves no call that nobody knows of.
            calls.append(call)
            call.taken = True
            self._waiting.remove(call)

    def _withdraw(self, call: _Call[T]) -> bool:
        try:
            self._waiting.remove(call)
        except ValueError:
            return False
        return True


def _fail(calls: list[_Call[Any]], error: Exception) -> None:
    for call in calls:
        call.error = call.error or error


def _refuse(scope: Scope) -> NoReturn:  # noqa: ARG001  # As every commit's.
    raise UsageError("a batch commits by itself when the function returns")


def _ignore(scope: Scope) -> None:  # As every release's.
    """Release nothing: the leader's transaction holds what there is to hold."""
