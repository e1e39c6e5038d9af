"""The store: its lifecycle, and who may do what when.

Locks, in the order they may be taken together:

    (turn)          one batch at a time; the batches'
    _write_lock     one update at a time, from its begin to its append; in a read-only
                    store, one look at a time at what is new
    (merging, step) one compaction at a time; one flush or piece of one; the maintenance's
    (child)         which child there is; the builder's
    (manifest)      one replacement of the manifest at a time; the tree's
    (sync)          one sync of the log at a time; the writer's
    _state_lock     what a new view reads, and the order of keys in memory; never held over I/O

How a commit goes is told in `_engine/writer.py`.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager, nullcontext, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Self, TypeVar
from weakref import ref

from blobkv._engine import recovery
from blobkv._engine.backup import copy_store, link_store
from blobkv._engine.ballast import Ballast
from blobkv._engine.figures import figures
from blobkv._engine.follower import Follower
from blobkv._engine.fs import on_fork
from blobkv._engine.overlay import Overlay
from blobkv._engine.state import State
from blobkv._engine.verify import verify_files
from blobkv._engine.views import Views
from blobkv._engine.writer import Writer
from blobkv.batch import Batches
from blobkv.errors import ClosedError, PoisonedError, ReadOnlyError, UsageError
from blobkv.scope import Scope
from blobkv.transaction import Transaction, Update

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Generator
    from types import TracebackType

    from blobkv._engine.files import FileSystem, Lock
    from blobkv._engine.report import Report
    from blobkv.stats import Stats

T = TypeVar("T")


class Store:
    """An open store. Made by `blobkv.open`; safe to use from many threads.

    Leaving its with-block closes it. After a fork the child's store is closed; the child
    opens its own.
    """

    def __init__(
        self, fs: FileSystem, directory: Path, lock: Lock | None, memtable_size: int
    ) -> None:
        self._fs = fs
        self._path = directory
        self._write_lock = threading.Lock()
        self._state_lock = threading.Lock()
        self._views = Views()
        self._batches = Batches(self._begin, lambda: self._updating)
        self._closed: str | None = None
        self._released = False
        # The update that holds the write lock, the thread that holds it, and the hold itself,
        # which is the update's: one that is dropped lets go.
        self._update: Scope | None = None
        self._updating: int | None = None
        self._hold: Callable[[], Generator[None] | None] = lambda: None
        self._source: Writer | Follower
        path, state_lock, views = str(directory), self._state_lock, self._views
        if lock is None:
            self._source = Follower(fs, path, views, state_lock)
        else:
            ballast, found = Ballast(fs, path), recovery.recover(fs, path, state_lock)
            settle = partial(recovery.settle, fs, path, found, lock=state_lock)
            found = ballast.spend_on(partial(settle, memtable_size=memtable_size))
            self._source = Writer(
                fs,
                path,
                found,
                memtable_size=memtable_size,
                views=views,
                state_lock=state_lock,
                lock=lock,
                ballast=ballast,
            )
            if self._source.maintenance.may_want_compaction:
                self._source.maintain_soon()
        on_fork(self)

    @property
    def path(self) -> Path:
        """The store's directory."""
        return self._path

    @property
    def sequence(self) -> int:
        """The last commit that a new view reads; 0 in a new store.

        In a read-only store each look first reads what is new. Raises, and costs: as `view`.
        """
        self._follow()
        return self._source.visible

    def view(self) -> Transaction:
        """Return a transaction that reads the newest state and never changes.

        It waits for no writer, and no writer for it. While it is open, what it reads is kept.
        In a read-only store each call first reads what is new, one thread at a time.

        Raises:
            ClosedError: The store is closed.
            CorruptionError: Read-only, and what is new is not what was written.
            OSError: Read-only, and the device refused.

        Cost: O(1) and no I/O; in a read-only store one stat, what is new, and a sync if the
        writer has not synced that yet.
        """
        # Without a lock and with as few steps as can be, where there is nothing newer.
        state = self._views.newest or self._newest()
        return Transaction(Scope(state.sequence, state))

    def update(self, *, durable: bool = True) -> Transaction:
        """Return a transaction that reads the newest state and changes it.

        It commits at the end of its with-block and rolls back if the block raises. One is
        open at a time; the next waits.

        Args:
            durable: Whether the commit waits until it would survive power loss. Without, it
                is visible at once, or as soon as the durable commits before it are. It becomes
                durable with the next durable commit, with `sync`, or with `close`. Power loss
                before that may lose it and what came after it, never what came before.

        Raises:
            ReadOnlyError: The store was opened with `read_only`.
            UsageError: This thread has an update open already.
            PoisonedError: An earlier write or sync failed.
            ClosedError: The store is closed.

        Cost: one write, and one sync unless another commit shares its own.
        """
        return self._begin(durable=durable)[1]

    def batch(self, fn: Callable[[Transaction], T]) -> T:
        """Call `fn(txn)` exactly once in an update, and return its result once it is durable.

        Concurrent callers share one commit; one whose function raises gets its exception and
        changes nothing, and the others are untouched. The function may run in the thread of
        another caller, so it should be quick and must not wait for other callers.

        Raises:
            InterruptedCommit: The thread that led was interrupted.
            What `fn` raises, and as `update` and `Transaction.commit`.
        """
        return self._batches.run(fn)

    def flush(self) -> None:
        """Write what is in memory as a table, so that no log is left to replay.

        Tables are merged then as far as there is need, so that many flushes leave few tables.

        Raises:
            UsageError: This thread has an update open.
            ReadOnlyError, ClosedError, PoisonedError, OSError: As `update`.
            CorruptionError: A table to be merged is not what was written.
        """
        writer = self._freeze()
        writer.maintenance.flush()
        writer.maintenance.compact()

    def compact(self) -> None:
        """Flush, then merge all tables into one run without what is deleted or shadowed.

        Raises: as `flush`. Cost: reads and writes everything once, beside other work.
        """
        writer = self._freeze()
        writer.maintenance.flush()
        writer.maintenance.compact(everything=True)

    def sync(self) -> None:
        """Make every commit so far durable, those with `durable=False` included.

        Raises:
            ReadOnlyError, ClosedError, PoisonedError, OSError: As `update`.
        """
        self._writer().sync()

    def verify(self, *, progress: Callable[[int, int], None] | None = None) -> Report:
        """Read every byte of the store, beside other work, and report what is wrong.

        Args:
            progress: Called after each table with the bytes of tables read and those there are.

        Raises:
            ClosedError: The store is closed.

        Cost: reads everything once, a table at a time into memory.
        """
        self._check_open()
        return verify_files(self._fs, str(self._path), self._source.manifest.epoch, progress)

    def backup(
        self,
        path: str | os.PathLike[str],
        *,
        hard_links: bool = False,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        """Write a copy of the newest state to the new directory `path`, beside other work.

        Args:
            path: Made if it is not there, and empty again after an error.
            progress: Called now and then with the entries read and about how many there are.
            hard_links: Share the tables with the copy, where the file system can: quick, and
                takes next to no room, but damage to one is damage to both. Without, equal
                contents at the same commit make equal files.

        Raises:
            UsageError: The directory is not empty.
            CorruptionError: What is read is not what was written.
            OSError: A device refused.

        Cost: reads every entry once and writes it once; with links, what is in memory only.
        """
        target, state = str(Path(path).absolute()), self._newest()
        if hard_links:
            link_store(self._fs, str(self._path), target, state)
        else:
            copy_store(self._fs, target, state, progress)

    def stats(self) -> Stats:
        """Return what the store can tell about itself in numbers.

        Raises: as `view`.

        Cost: O(tables); in a read-only store that of a view, too.
        """
        self._follow()
        with self._state_lock:
            self._check_open()
            # What only the next view would read is read by nobody.
            self._views.renew()
            return figures(self._source, self._views.sequences())

    def close(self) -> None:
        """Roll back this thread's open update, wait for others', and release everything.

        Open views end. Idempotent.

        Raises:
            OSError: The log could not be sealed; durable commits are safe all the same.
            PoisonedError: Commits with `durable=False` never became durable.
        """
        if self._released:
            return
        hold = self._hold()
        if hold is not None and self._updating == threading.get_ident():
            next(hold, None)
        with self._write_lock:
            if self._released:
                return  # type: ignore[unreachable]  # Another thread may have closed it.
            with self._state_lock:
                self._end("the store is closed")
            try:
                self._source.close()
            except Exception:
                self._release_claim()
                raise
            # Not after an interrupt: then something may still be writing. Close it again.
            self._release_claim()

    def forget_in_child(self) -> None:
        """End everything in a forked child. For the file layer, not for callers."""
        # No lock is taken: at the fork any of them may have been held by another thread.
        self._released = True
        if self._update is not None:
            self._update.end()
        self._end("it was opened before a fork; open it again in the child")

    def __enter__(self) -> Self:
        self._check_open()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        # An error on its way tells more, and may be what has poisoned the store.
        with suppress(PoisonedError) if exc_type is not None else nullcontext():
            self.close()

    def __repr__(self) -> str:
        return f"<blobkv.Store {str(self._path)!r}, {'closed' if self._closed else 'open'}>"

    def _begin(self, *, durable: bool = True) -> tuple[Scope, Transaction]:
        writer = self._writer()
        hold = self._held()
        try:
            next(hold)
            writer.tree.check_writable()
            changes = Overlay(State(writer.layers, writer.appended))
            scope = Scope(writer.appended, changes, changes)
            # Resumed, the hold ends; once it has ended that does nothing. No function of ours.
            release = partial(next, hold, None)
            commit = partial(self._commit, release=release, durable=durable)
            transaction = Update(scope, commit=commit, release=release)
            self._update, self._hold = scope, ref(hold)
        except BaseException:
            hold.close()
            raise
        return scope, transaction

    def _commit(self, scope: Scope, *, release: Callable[[], None], durable: bool) -> int:
        writer = self._writer()
        changes = scope.changes
        try:
            commit = writer.append(changes, durable=durable) if changes else None
        finally:
            release()
        if commit is not None:
            writer.settle(commit)
            return commit.sequence
        if durable:
            # What it has read, and left as it was, may be another's that is not durable yet.
            writer.sync()
        return scope.sequence

    def _held(self) -> Generator[None]:
        """Hold the write lock from the first `next` until resumed, closed, or dropped.

        An interrupt that comes as the lock is taken is raised within the `with`, and one that
        comes as `next` returns drops the generator: whatever happens, the lock is let go.
        """
        if self._updating == threading.get_ident():
            raise UsageError("this thread has an update open; commit it or roll it back first")
        with self._write_lock:
            try:
                self._updating = threading.get_ident()
                self._check_open()
                yield
            finally:
                # No call before these: an interrupt could come there.
                update, self._update = self._update, None
                self._updating = None
                if update is not None:
                    # One that was dropped: a bucket of it may still be there.
                    update.end()

    def _release_claim(self) -> None:
        if isinstance(self._source, Writer):
            self._source.lock.release()
        # Last: one that is interrupted before it has let go can be closed again.
        self._released = True

    def _freeze(self) -> Writer:
        writer = self._writer()
        with contextmanager(self._held)():
            writer.freeze()
        return writer

    def _writer(self) -> Writer:
        self._check_open()
        if isinstance(self._source, Follower):
            raise ReadOnlyError(f"{self._path}: opened with read_only=True")
        return self._source

    def _newest(self) -> State:
        self._follow()
        with self._state_lock:
            self._check_open()
            # A follower's next view looks again at what is new.
            keep = isinstance(self._source, Writer)
            source = self._source
            return self._views.state(source.layers, source.visible, keep=keep)

    def _follow(self) -> None:
        self._check_open()
        if isinstance(self._source, Follower):
            with self._write_lock:
                self._check_open()
                self._source.refresh()

    def _check_open(self) -> None:
        if self._closed is not None:
            raise ClosedError(f"{self._path}: {self._closed}")

    def _end(self, reason: str) -> None:
        self._closed = reason
        self._views.close()
