"""The path of a commit: one frame, one write, one sync.

    write lock ── append to the log ── apply to the memtable ── unlock
                     └─ wait until the log is synced past the frame ── publish

Until it is published no view sees it, though the next update builds on it. One sync serves
all that wait for one, see `shared_sync.py`, and whoever makes it publishes for all. Commits are
published in order, so what is visible is always a prefix of what was committed.

When the log has grown to the size asked for, it is sealed and its memtable frozen; flushes
and compactions run beside the commits, in a thread that is idle unless there is work.

Invariants:

* `visible` <= `appended`; every commit up to `visible` is durable or asked not to be.
* What is frozen is durable and visible.
* A poisoned store writes nothing more; reads go on.
"""

from __future__ import annotations

import time
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from blobkv._engine.ballast import full_error, is_full
from blobkv._engine.maintenance import Maintenance
from blobkv._engine.pressure import Pressure
from blobkv._engine.room import Room
from blobkv._engine.shared_sync import SharedSync
from blobkv._engine.tree import Tree
from blobkv.errors import LimitError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from blobkv._engine.ballast import Ballast
    from blobkv._engine.files import FileSystem, Lock
    from blobkv._engine.log import Log
    from blobkv._engine.manifest import Manifest
    from blobkv._engine.overlay import Overlay
    from blobkv._engine.recovery import Recovered
    from blobkv._engine.state import Layers
    from blobkv._engine.views import Views

# A small store whose pairs are replaced gets smaller logs, as a part of its tables, and as the
# least part of the size asked for: two logs, and a table that was one, are room that it takes
# beside what is alive.
_LOG_TABLES_DIVISOR: Final = 8
_LOG_SIZE_DIVISOR: Final = 4
# With this many memtables waiting for their flush, the log grows on, up to so many times the
# size asked for, and then the writer flushes, too.
_FROZEN_MAX: Final = 1
_LOG_GROWTH_MAX: Final = 1.25
# Memtables from which on commits are slowed down, the active one as far as it is full; at the
# second figure the writer flushes.
_WAITING_MIN: Final = 1.1
_WAITING_MAX: Final = _FROZEN_MAX + _LOG_GROWTH_MAX


class Appended(NamedTuple):
    """A commit that is in the log: its sequence, and where its frame is."""

    sequence: int
    log: Log
    start: int
    end: int


class Writer:
    """The one writer of a store.

    Attributes:
        appended: The last commit in the log; changed under the write lock.
        visible: The last commit that a new view reads; changed under the state lock.
        commits: Commits made so far.
        syncs: Syncs of the log so far.
        sync_ns: How long they took, in all.
        sync_ns_max: How long the longest took.
        log_written: Bytes appended to logs so far.
        lock: The claim on the store's directory.
        maintenance: The work in the background.
        pressure: What slows commits down when that work is behind.
        failure: What the last flush or compaction in the background failed with, if it did.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        found: Recovered,
        *,
        memtable_size: int,
        views: Views,
        state_lock: threading.Lock,
        lock: Lock,
        ballast: Ballast,
    ) -> None:
        self.tree = Tree(fs, directory, found, state_lock, views)
        self._directory = directory
        self._ballast = ballast
        self.maintenance = Maintenance(fs, directory, self.tree, self._ballast)
        self.pressure = Pressure()
        self.appended = self.visible = found.sequence
        # The last commit known to be durable; below `visible` after ones that need not be.
        self._durable = found.sequence
        self.commits = 0
        self.syncs = 0
        self.sync_ns = 0
        self.sync_ns_max = 0
        self.log_written = 0
        self.failure: Exception | None = None
        self._memtable_size = memtable_size
        # The size at which the log in hand is sealed.
        self._log_size_max = memtable_size
        # Up to where in `log_written` commits were slowed down.
        self._weighed = 0
        self._views = views
        self._state_lock = state_lock
        # Held here, so that a store that is dropped keeps its claim while this still writes.
        self.lock = lock
        self._shared_sync = SharedSync(self._sync_log)
        self._room = Room(fs, directory, memtable_size, self.tree.poison)
        self._log: Log | None = None
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="blobkv")
        self._work: Future[None] | None = None
        self.maintenance.suit_ballast()

    @property
    def layers(self) -> Layers:
        """What a new view reads."""
        return self.tree.layers

    @property
    def manifest(self) -> Manifest:
        """The manifest in force."""
        return self.tree.manifest

    @property
    def log_size(self) -> int:
        """Bytes in the active log."""
        return 0 if self._log is None else self._log.end

    def append(self, changes: Overlay, *, durable: bool) -> Appended:
        """Write a commit to the log and to the memtable. The caller holds the write lock.

        With `durable` false it is visible at once, unless one before it is still to be synced.

        Raises:
            OSError: The device refused; nothing was committed.
            LimitError: It is too large for a frame; nothing was committed.
            PoisonedError: An earlier write or sync failed.
        """
        try:
            return self._append(changes, self._log_with_room, durable=durable)
        except OSError as error:
            # Only what gives room back may use what is kept for that.
            if not is_full(error) or not changes.shrinks:
                raise
        # To the log in hand, however large: a flush takes more room than a commit.
        append = partial(self._append, changes, self._log_in_hand, durable=durable)
        return self._ballast.spend_on(append)

    def settle(self, commit: Appended) -> None:
        """Wait until the commit is durable, then make it visible. Called without any lock.

        Raises:
            OSError: The sync failed. The commit may or may not survive; the store is poisoned.
            PoisonedError: Another's sync failed, and with it this commit's.
        """
        if commit.sequence > self.visible:
            self._shared_sync.through(commit.log, commit.end)
            if commit.sequence > self.visible:
                # The sync began between the write of the frame and the end of `append`.
                self._publish(commit.sequence)
            self._room.keep(commit.log, commit.end - commit.start)

    def sync(self) -> None:
        """Make every commit so far durable and visible. Called without any lock.

        Raises:
            As `settle`.
        """
        appended, log = self.appended, self._log
        # After these: what closes the log without a sync has poisoned the store before.
        self.tree.check_writable()
        if log is not None:
            # Not up to its end: behind a seal it may be closed, and all before it is durable.
            self._shared_sync.through(log, log.commits_end)
        self._publish(appended)

    def freeze(self) -> None:
        """Seal the log and freeze the memtable. The caller holds the write lock.

        Raises:
            OSError: The device refused; all is as before, unless it was a sync that failed.
            PoisonedError: An earlier write or sync failed.
        """
        self.tree.check_writable()
        if self._log is not None:
            self.sync()
            self._ballast.spend_on(partial(self._seal, self._log))
        self.tree.freeze(self.appended)

    def close(self) -> None:
        """End the work in the background, seal the log, and release everything. Idempotent.

        When it returns or raises, other than for an interrupt, nothing is written any more.

        Raises:
            OSError: The log could not be sealed: the next open treats it as after a crash.
            PoisonedError: Commits that were not to be durable at once never became so.
        """
        self.tree.stop()
        self.maintenance.stop()
        self._pool.shutdown(wait=True)
        self._room.close()
        self.maintenance.close()
        # Its traceback would keep tables open.
        self.failure = None
        self.tree.close()
        if self._log is not None:
            try:
                if self._durable < self.visible:
                    self.tree.check_writable()
                if not self.tree.poisoned:
                    self.sync()
                    self._ballast.spend_on(partial(self._log.seal, self.appended))
                    self._log.trim()
                    self._log.sync()
            except BaseException as error:
                self.tree.poison(error)
                raise
            finally:
                self._log.close()
                self._log = None

    def maintain_soon(self) -> None:
        """Flush and compact in the background, as far as there is need."""
        if self._work is None or self._work.done():
            # At interpreter shutdown no thread may start; the next open does the work.
            with suppress(RuntimeError):
                self._work = self._pool.submit(self._maintain)

    def _append(
        self, changes: Overlay, log_for_it: Callable[[], Log], *, durable: bool
    ) -> Appended:
        self.tree.check_writable()
        if self._ballast.in_use and not changes.shrinks:
            # Whoever uses it needs the room to give more of it back.
            raise full_error(self._directory)
        log = log_for_it()
        sequence = self.appended + 1
        ranges = list(changes.ranges)
        start = log.end
        try:
            end = log.append(sequence, changes.entries, ranges)
            with self._state_lock:
                at_once = not durable and self.visible == self.appended
                if at_once:
                    self._views.renew()
                readers = self._views.sequences()
                if readers or not at_once:
                    # And what new views read until this commit is visible, or then.
                    readers.append(sequence if at_once else self.visible)
                active = self.tree.layers.active
                active.apply(sequence, changes.entries, ranges, readers=readers)
                self.appended = sequence
                if at_once:
                    self.visible = sequence
                    self._forget()
        except (OSError, LimitError):
            raise
        except BaseException as error:
            # The log may have what the memtable lacks: after an interrupt, or without memory.
            self.tree.poison(error)
            raise
        self.commits += 1
        self.log_written += end - start
        return Appended(sequence, log, start, end)

    def _log_with_room(self) -> Log:
        if self._log is not None:
            self._slow_down(self._log)
            if self._log.end >= self._log_size_max:
                self._rotate(self._log)
        return self._log_in_hand()

    def _log_in_hand(self) -> Log:
        if self._log is None:
            try:
                self._log = self.tree.open_log(self.appended)
                self._log_size_max = self._useful_log_size()
            except OSError:
                raise
            except BaseException as error:
                # The manifest may name a log that nobody has, and that nobody would seal.
                self.tree.poison(error)
                raise
        return self._log

    def _useful_log_size(self) -> int:
        """Return how large the next log may become before it is sealed. O(tables)."""
        if not self.maintenance.replacing:
            return self._memtable_size
        size = sum(table.size for table in self.tree.layers.tables) // _LOG_TABLES_DIVISOR
        least = self._memtable_size // _LOG_SIZE_DIVISOR
        return min(max(size, least), self._memtable_size)

    def _slow_down(self, log: Log) -> None:
        # Before anything of the commit is done: an interrupt of the wait costs nothing.
        behind = self.maintenance.behind
        waiting = len(self.tree.layers.frozen) + log.end / self._log_size_max
        if waiting > _WAITING_MIN:
            part = (waiting - _WAITING_MIN) / (_WAITING_MAX - _WAITING_MIN)
            behind = max(behind, part)
        self.pressure.delay(self.log_written - self._weighed, behind)
        self._weighed = self.log_written

    def _seal(self, log: Log) -> None:
        try:
            log.seal(self.appended)
            log.close()
            self._log = None
        except OSError:
            raise
        except BaseException as error:
            # A seal may be there: nothing may be written behind it.
            self.tree.poison(error)
            raise

    def _rotate(self, log: Log) -> None:
        if len(self.tree.layers.frozen) >= _FROZEN_MAX:
            if self.failure is None and log.end < _LOG_GROWTH_MAX * self._log_size_max:
                # It may grow yet, while commits are slowed down.
                self.maintain_soon()
                return
            # The background fell behind, or it failed: then this raises what it failed with.
            start = time.monotonic_ns()
            self.maintenance.flush()
            self.pressure.note(start)
        self.freeze()
        self.maintain_soon()

    def _maintain(self) -> None:
        try:
            self.maintenance.flush()
            self.maintenance.compact()
        except Exception as error:  # noqa: BLE001  # Whatever it is, `stats` shall tell.
            # Nothing is lost: the logs still hold what was to be flushed, and the writer
            # flushes itself, and raises, when as many memtables wait as may.
            self.failure = error
        else:
            self.failure = None

    def _sync_log(self, log: Log) -> None:
        self.tree.check_writable()
        appended = self.appended
        start = time.monotonic_ns()
        try:
            log.sync()
        except OSError as error:
            self.tree.poison(error)
            raise
        taken = time.monotonic_ns() - start
        self.syncs += 1
        self.sync_ns += taken
        self.sync_ns_max = max(self.sync_ns_max, taken)
        if log is self._log:
            # Or else the last ones may be in a newer log.
            self._publish(appended)

    def _publish(self, sequence: int) -> None:
        with self._state_lock:
            self._durable = max(self._durable, sequence)
            if sequence > self.visible:
                self.visible = sequence
                self._views.renew()
                self._forget()

    def _forget(self) -> None:
        oldest = min(self._views.sequences(), default=self.visible)
        for memtable in self.tree.layers.memtables:
            memtable.forget(oldest)
