"""A snapshotter that copies: it needs no mount, no privileges, and no special file system.

    ROOT/snapshots/<id>/            the tree of an active or committed snapshot
    ROOT/snapshots/new-<id>/        a tree being made
    ROOT/snapshots/rm-<id>.../      a tree being removed
    ROOT/meta/                      the records (`blobmap.local.snapshots`)

An active snapshot starts as a full copy of its parent's tree, so a tree never depends on
another. Its mount is a bind of its own directory. A view of a committed snapshot has no
tree: its mount is a read-only bind of the parent's, which cannot change, nor go while the
view is its child. Where nothing is ever mounted, the mount's `source` is the tree itself;
who writes into a view's source writes into its parent.

A tree becomes a snapshot in this order, each step durable before the next: the tree under
its temporary name, its own name, its record. It stops being one in this order: its record,
its name, the tree. So a record never names a tree that is not whole, and what no record
names is garbage, which opening and `cleanup` remove.

Source: containerd's native snapshotter (plugins/snapshots/native); the records follow its
core/snapshots/storage. Views without a copy are this module's own.
"""

from __future__ import annotations

import logging
import re
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final, Self

from blobmap import filters as filter_language
from blobmap import labels as label_rules
from blobmap import locks
from blobmap.clock import Clock, Ticker, utc_now
from blobmap.contracts import Info, Kind, Mount, Usage
from blobmap.errors import BlobMapError, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from blobmap.local import snapshots, tree
from blobmap.local.durable import make_directory, resolved, sync_directory, sync_tree
from blobmap.local.records import Records
from blobmap.local.snapshots import Snapshot

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping
    from types import TracebackType

_NEW: Final = "new-"
_REMOVED: Final = "rm-"
_TREE: Final = re.compile(rf"(?:{_REMOVED})?(?:{_NEW})?(?P<id>\d+)(?:-[0-9a-f]+)?")
_ROOT_MODE: Final = 0o755

_LOG: Final = logging.getLogger("blobmap")


class NativeSnapshotter:
    """The snapshotter under one root. Safe to call from many threads.

    Trees are copied, measured, and synced outside all transactions; only commits and removes
    of the same key wait for each other. Besides the errors named below, every call raises
    `NotFound` for a key that does not exist and `FailedPrecondition` once it is closed.

    Invariants:

    * A tree under a plain id is whole.
    * A tree whose id neither a record nor `_busy` has is garbage; whoever makes or removes one
      has its id in `_busy` meanwhile.

    Args:
        root: The directory; made if it does not exist.
        clock: Tells the time; for tests.
        lock_timeout: How long to wait for another who has it open, in seconds.

    Raises:
        blobkv.LockedError: Another has it open.
        FailedPrecondition: Another version of blobmap made it.

    Cost: O(snapshots), and the size of the trees that a crash left, which are removed.
    """

    def __init__(
        self, root: str | os.PathLike[str], *, clock: Clock = utc_now, lock_timeout: float = 0.0
    ) -> None:
        path = resolved(root)
        self._trees = path / "snapshots"
        make_directory(self._trees)
        self._locks = locks.Locks()
        self._mutex = threading.Lock()
        self._busy: set[int] = set()
        self._records = Records(path / "meta", lock_timeout=lock_timeout)
        try:
            with self._records.view() as txn:
                self._next_id = snapshots.next_id(txn)
                self._ticker = Ticker(clock, floor=snapshots.newest_time(txn))
            self.cleanup()
        except BaseException:
            self._records.close()
            raise

    def stat(self, key: str) -> Info:
        """Return the snapshot of any kind."""
        with self._records.view() as txn:
            return snapshots.find(txn, key).info

    def update(self, info: Info, *fieldpaths: str) -> Info:
        """Change the labels of the snapshot `info.name`: all, or those at the paths only.

        Raises:
            InvalidArgument: A path is not `labels` or `labels.<key>`, or a label too large.
        """
        with self._records.update() as txn:
            found = snapshots.find(txn, info.name)
            labels = label_rules.updated(found.info.labels, info.labels, fieldpaths)
            changed = replace(found.info, labels=labels, updated=self._ticker.now())
            snapshots.put(txn, replace(found, info=changed))
        return changed

    def usage(self, key: str) -> Usage:
        """Return what the snapshot holds beyond its parent, as `tree.measure` defines it.

        Of a committed snapshot that is what it was at its commit; of a view, nothing.

        Cost: O(1); of an active snapshot, O(entries of its tree).
        """
        with self._records.view() as txn:
            found = snapshots.find(txn, key)
            base = snapshots.parent_of(txn, found)
        if found.info.kind is not Kind.ACTIVE:
            return found.usage
        usage = self._measure(found, base)
        # It may have been removed or committed while it was measured.
        self.stat(key)
        return usage

    def mounts(self, key: str) -> list[Mount]:
        """Return the mounts of an active snapshot or a view.

        Raises:
            FailedPrecondition: The snapshot is committed.
        """
        with self._records.view() as txn:
            found = snapshots.find(txn, key)
            if found.info.kind is Kind.COMMITTED:
                raise FailedPrecondition(
                    f"snapshot {key!r} is committed and has no mounts; make a view of it"
                )
            return self._mounts(found, snapshots.parent_of(txn, found))

    def prepare(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        """Make an active snapshot on `parent` and return its mounts.

        The root of one without a parent has mode 0755, whatever the umask.

        Raises:
            AlreadyExists: The key exists, whatever its kind.
            NotFound: The parent does not exist.
            InvalidArgument: The key is empty, the parent is not committed, or a label is too
                large.

        Cost: a copy of the parent's tree, its sync, and one durable commit.
        """
        return self._create(Kind.ACTIVE, key, parent, labels)

    def view(
        self, key: str, parent: str = "", *, labels: Mapping[str, str] | None = None
    ) -> list[Mount]:
        """Make a read-only snapshot of `parent`; otherwise as `prepare`.

        Cost: one durable commit.
        """
        return self._create(Kind.VIEW, key, parent, labels)

    def commit(self, name: str, key: str, *, labels: Mapping[str, str] | None = None) -> None:
        """Turn the active snapshot `key` into the committed snapshot `name`.

        Labels are those given here; the active's are not inherited. The key is free again.
        Nothing may write to the tree meanwhile or afterwards.

        Raises:
            AlreadyExists: The name exists.
            FailedPrecondition: The snapshot is not active.
            InvalidArgument: The name is empty, or a label is too large.

        Cost: a sync of the tree, a measuring of it, and one durable commit.
        """
        kept = label_rules.checked(labels)
        _require_name(name)
        with self._locks.hold(locks.snapshot(key)):
            with self._records.view() as txn:
                snapshots.require_free(txn, name)
                found = snapshots.find(txn, key)
                base = snapshots.parent_of(txn, found)
            if found.info.kind is not Kind.ACTIVE:
                raise FailedPrecondition(
                    f"snapshot {key!r} is {found.info.kind.value}; only active ones can be "
                    "committed"
                )
            sync_tree(self._path(found))
            usage = self._measure(found, base)
            with self._records.update() as txn:
                snapshots.require_free(txn, name)
                snapshots.delete(txn, found)
                now = self._ticker.now()
                info = Info(name, found.info.parent, Kind.COMMITTED, kept, now, now)
                snapshots.put(txn, Snapshot(found.id, info, usage))

    def remove(self, key: str) -> None:
        """Remove the snapshot; its key is free at once.

        If its tree cannot be removed after its record, that is logged, and left to `cleanup`.

        Raises:
            FailedPrecondition: Another snapshot has it as its parent.

        Cost: one durable commit, and O(entries of its tree).
        """
        with self._locks.hold(locks.snapshot(key)):
            with self._records.update() as txn:
                found = snapshots.find(txn, key)
                child = snapshots.child_of(txn, key)
                if child is not None:
                    raise FailedPrecondition(
                        f"cannot remove snapshot {key!r}: it is the parent of {child!r}; "
                        "remove that first"
                    )
                snapshots.delete(txn, found)
            self._reclaim(found.id, str(found.id))

    def walk(self, *filters: str) -> Iterator[Info]:
        """Yield each snapshot that some filter matches, in key order; no filter means all.

        Other methods may be called between two steps; a snapshot removed meanwhile is left
        out, one added meanwhile may be.

        Raises:
            InvalidArgument: A filter does not parse.
        """
        matches = filter_language.parse(*filters)
        with self._records.view() as txn:
            names = snapshots.names(txn)
        return self._walk(names, matches)

    def cleanup(self) -> None:
        """Remove every tree that no snapshot has; what cannot be removed is logged.

        Cost: O(snapshots), and the leftovers' size.
        """
        # In this order, so that a tree recorded meanwhile is known by one or the other.
        found = [
            match for path in self._trees.iterdir() if (match := _TREE.fullmatch(path.name))
        ]
        with self._mutex:
            known = set(self._busy)
        with self._records.view() as txn:
            known.update(snapshot.id for snapshot in snapshots.every(txn))
        for match in found:
            if int(match["id"]) not in known:
                self._reclaim(int(match["id"]), match[0])

    def close(self) -> None:
        """Close the records. Idempotent."""
        self._records.close()

    def __repr__(self) -> str:
        return f"NativeSnapshotter({str(self._trees.parent)!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def _create(
        self, kind: Kind, key: str, parent: str, labels: Mapping[str, str] | None
    ) -> list[Mount]:
        kept = label_rules.checked(labels)
        _require_name(key)
        with self._records.view() as txn:
            snapshots.require_free(txn, key)
            base = snapshots.committed(txn, parent) if parent else None
        id_ = self._take_id()
        if kind is Kind.ACTIVE or base is None:
            self._make_tree(id_, base)
        snapshot = Snapshot(id_, Info(key, parent, kind, kept), Usage(0, 0))
        return self._mounts(self._record(snapshot, base), base)

    def _take_id(self) -> int:
        with self._mutex:
            id_, self._next_id = self._next_id, self._next_id + 1
            self._busy.add(id_)
            return id_

    def _make_tree(self, id_: int, base: Snapshot | None) -> None:
        fresh = self._trees / f"{_NEW}{id_}"
        try:
            if base is None:
                fresh.mkdir()
                fresh.chmod(_ROOT_MODE)
                sync_directory(fresh)
            else:
                self._copy_tree(base, str(fresh))
            fresh.rename(self._trees / str(id_))
            sync_directory(self._trees)
        except (BlobMapError, OSError):
            self._unmake(id_)
            raise

    def _copy_tree(self, base: Snapshot, target: str) -> None:
        try:
            tree.copy(self._path(base), target)
        except OSError as error:
            with self._records.view() as txn:
                snapshots.require_same(txn, base)
            if not Path(self._path(base)).exists():
                raise DataLoss(f"the tree of snapshot {base.info.name!r} is gone") from error
            raise
        sync_tree(target)

    def _record(self, snapshot: Snapshot, base: Snapshot | None) -> Snapshot:
        """Write the record, or discard the tree if it is certain that none was written.

        After a failure of the device it is not: the record may turn up at the next open. So
        the tree stays, and its id in `_busy`, where `cleanup` spares it.
        """
        try:
            with self._records.update() as txn:
                snapshots.require_free(txn, snapshot.info.name)
                if base is not None:
                    snapshots.require_same(txn, base)
                now = self._ticker.now()
                info = replace(snapshot.info, created=now, updated=now)
                recorded = replace(snapshot, info=info)
                snapshots.put(txn, recorded)
        except BlobMapError:
            self._unmake(snapshot.id)
            raise
        self._release(snapshot.id)
        return recorded

    def _unmake(self, id_: int) -> None:
        for name in (f"{_NEW}{id_}", str(id_)):
            self._remove_tree(name)
        self._release(id_)

    def _reclaim(self, id_: int, name: str) -> None:
        """Remove a tree that no record names, unless another thread is doing so."""
        with self._mutex:
            if id_ in self._busy:
                return
            self._busy.add(id_)
        self._remove_tree(name)
        self._release(id_)

    def _release(self, id_: int) -> None:
        with self._mutex:
            self._busy.discard(id_)

    def _remove_tree(self, name: str) -> None:
        if not (self._trees / name).exists():
            return
        aside = name if name.startswith(_REMOVED) else f"{_REMOVED}{name}"
        try:
            (self._trees / name).rename(self._trees / aside)
            tree.remove(str(self._trees), aside)
        except OSError as error:
            _LOG.warning("%s: left for the next cleanup: %s", self._trees / name, error)

    def _walk(self, names: list[str], matches: filter_language.Matcher) -> Iterator[Info]:
        for name in names:
            try:
                info = self.stat(name)
            except NotFound:
                continue
            if matches(filter_language.snapshot(info)):
                yield info

    def _mounts(self, snapshot: Snapshot, base: Snapshot | None) -> list[Mount]:
        if snapshot.info.kind is Kind.ACTIVE:
            return [Mount("bind", self._path(snapshot), options=("rbind", "rw"))]
        return [Mount("bind", self._path(base or snapshot), options=("rbind", "ro"))]

    def _measure(self, snapshot: Snapshot, base: Snapshot | None) -> Usage:
        return tree.measure(self._path(snapshot), None if base is None else self._path(base))

    def _path(self, snapshot: Snapshot) -> str:
        return str(self._trees / str(snapshot.id))


def _require_name(name: str) -> None:
    if not name:
        raise InvalidArgument("a snapshot needs a name that is not empty")
