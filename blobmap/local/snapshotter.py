"""A snapshotter in a directory: records of what there is, and a tree for each that needs one.

    ROOT/snapshots/     the trees (`blobmap.local.forest`)
    ROOT/meta/          the records (`blobmap.local.snapshots`)

How trees are made and shown is not said here but by a `Trees`: copied, or laid one over the
other. All else is the same, and is here: keys, kinds, labels, usage, and the order of steps.

A tree becomes a snapshot in this order, each step durable before the next: the tree under
its temporary name, its own name, its record. It stops being one in this order: its record,
its name, the tree. So a record never names a tree that is not whole, and what no record
names is garbage, which opening and `cleanup` remove.

Source: the records follow containerd's core/snapshots/storage.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING, Final, Protocol

from blobmap import filters as filter_language
from blobmap import labels as label_rules
from blobmap import locks
from blobmap.clock import Clock, Ticker, utc_now
from blobmap.closing import Closing
from blobmap.contracts import Info, Kind, Mount, Usage
from blobmap.errors import BlobMapError, DataLoss, FailedPrecondition, InvalidArgument, NotFound
from blobmap.local import snapshots
from blobmap.local.durable import make_directory, resolved, sync_tree
from blobmap.local.forest import Forest
from blobmap.local.records import Records
from blobmap.local.snapshots import Snapshot

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from pathlib import Path

    from blobkv import Transaction

_LOG: Final = logging.getLogger("blobmap")


class Trees(Protocol):
    """How trees are made and shown: what one snapshotter does otherwise than another.

    `path` is a tree's directory, and `below` are those of its parents, the nearest first.

    Attributes:
        name: What the records call it, so that no other reads these trees.
    """

    name: str

    def make(self, path: Path, below: Sequence[Path], kind: Kind) -> None:
        """Make a tree, durably, at `path`, which does not exist.

        Raises:
            OSError: It failed; `path` is then half made.
        """

    def mounts(self, path: Path, below: Sequence[Path], kind: Kind) -> list[Mount]:
        """Return the mounts of an active snapshot or a view."""

    def measure(self, path: Path, below: Sequence[Path]) -> Usage:
        """Return what the tree holds beyond its parent."""

    def top(self, path: Path) -> Path:
        """Return the directory that holds a tree's files."""

    def leftovers(self, path: Path) -> list[str]:
        """Return the directories in a tree that it needs no more once it is committed."""


class LocalSnapshotter(Closing):
    """The snapshotter under one root. Safe to call from many threads.

    Trees are made, measured, and synced outside all transactions; only commits and removes
    of the same key wait for each other. Besides the errors named below, every call raises
    `NotFound` for a key that does not exist and `FailedPrecondition` once it is closed.

    Args:
        root: The directory; made if it does not exist.
        trees: How trees are made and shown.
        clock: Tells the time; for tests.
        lock_timeout: How long to wait for another who has it open, in seconds.

    Raises:
        blobkv.LockedError: Another has it open.
        FailedPrecondition: Another version of blobmap made it, or another snapshotter.

    Cost: O(snapshots), and the size of the trees that a crash left, which are removed.
    """

    def __init__(
        self,
        root: str | os.PathLike[str],
        trees: Trees,
        *,
        clock: Clock = utc_now,
        lock_timeout: float = 0.0,
    ) -> None:
        self._root = resolved(root)
        make_directory(self._root / "snapshots")
        self._trees = trees
        self._locks = locks.Locks()
        self._records = Records(self._root / "meta", lock_timeout=lock_timeout)
        try:
            self._claim()
            with self._records.view() as txn:
                self._forest = Forest(self._root / "snapshots", snapshots.next_id(txn))
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
        """Return what the snapshot holds beyond its parent.

        Of a committed snapshot that is what it was at its commit; of a view, nothing.

        Cost: O(1); of an active snapshot, O(entries of its tree).
        """
        with self._records.view() as txn:
            found = snapshots.find(txn, key)
            below = self._below(txn, found)
        if found.info.kind is not Kind.ACTIVE:
            return found.usage
        usage = self._trees.measure(self._path(found), below)
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
            below = self._below(txn, found)
        return self._trees.mounts(self._path(found), below, found.info.kind)

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

        Cost: that of making a tree, and one durable commit.
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
                below = self._below(txn, found)
            if found.info.kind is not Kind.ACTIVE:
                raise FailedPrecondition(
                    f"snapshot {key!r} is {found.info.kind.value}; only active ones can be "
                    "committed"
                )
            sync_tree(str(self._trees.top(self._path(found))))
            usage = self._trees.measure(self._path(found), below)
            with self._records.update() as txn:
                snapshots.require_free(txn, name)
                snapshots.delete(txn, found)
                now = self._ticker.now()
                info = Info(name, found.info.parent, Kind.COMMITTED, kept, now, now)
                committed = Snapshot(found.id, info, usage)
                snapshots.put(txn, committed)
        self._trim(committed)

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
            self._forest.reclaim(found.id)

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
        """Remove what no snapshot has or needs any more; what cannot be removed is logged.

        Cost: O(snapshots), and the leftovers' size.
        """
        with self._records.view() as txn:
            committed = [
                snapshot
                for snapshot in snapshots.every(txn)
                if snapshot.info.kind is Kind.COMMITTED
            ]
        for snapshot in committed:
            self._trim(snapshot)
        self._forest.reclaim_all(self._ids)

    def close(self) -> None:
        """Close the records. Idempotent."""
        self._records.close()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._root)!r})"

    def _claim(self) -> None:
        """Note whose trees these are; refuse those of another snapshotter."""
        with self._records.view() as txn:
            owner = snapshots.trees(txn)
        if not owner:
            with self._records.update() as txn:
                snapshots.set_trees(txn, self._trees.name)
        elif owner != self._trees.name:
            raise FailedPrecondition(
                f"{self._root}: its trees are {owner}, not {self._trees.name}; "
                "open it with the snapshotter that made them"
            )

    def _create(
        self, kind: Kind, key: str, parent: str, labels: Mapping[str, str] | None
    ) -> list[Mount]:
        kept = label_rules.checked(labels)
        _require_name(key)
        with self._records.view() as txn:
            snapshots.require_free(txn, key)
            base = snapshots.committed(txn, parent) if parent else None
            lineage = [] if base is None else snapshots.lineage(txn, base)
        below = [self._path(snapshot) for snapshot in lineage]
        id_ = self._forest.take_id()
        if kind is Kind.ACTIVE or base is None:
            self._make_tree(id_, base, lambda path: self._trees.make(path, below, kind))
        self._record(Snapshot(id_, Info(key, parent, kind, kept), Usage(0, 0)), base)
        return self._trees.mounts(self._forest.path(id_), below, kind)

    def _make_tree(self, id_: int, base: Snapshot | None, make: Callable[[Path], None]) -> None:
        try:
            self._forest.grow(id_, make)
        except OSError as error:
            if base is not None:
                with self._records.view() as txn:
                    snapshots.require_same(txn, base)
                if not self._trees.top(self._path(base)).exists():
                    raise DataLoss(
                        f"the tree of snapshot {base.info.name!r} is gone"
                    ) from error
            raise

    def _record(self, snapshot: Snapshot, base: Snapshot | None) -> None:
        """Write the record, or discard the tree if it is certain that none was written.

        After a failure of the device it is not: the record may turn up at the next open. So
        the tree stays, and its id busy, where `cleanup` spares it.
        """
        try:
            with self._records.update() as txn:
                snapshots.require_free(txn, snapshot.info.name)
                if base is not None:
                    snapshots.require_same(txn, base)
                now = self._ticker.now()
                info = replace(snapshot.info, created=now, updated=now)
                snapshots.put(txn, replace(snapshot, info=info))
        except BlobMapError:
            self._forest.discard(snapshot.id)
            raise
        self._forest.release(snapshot.id)

    def _trim(self, snapshot: Snapshot) -> None:
        """Remove what the snapshot needed until it was committed, unless it goes itself."""
        path = self._path(snapshot)
        try:
            if self._trees.leftovers(path):
                with self._locks.hold(locks.snapshot(snapshot.info.name)):
                    self._forest.prune(snapshot.id, self._trees.leftovers(path))
        except OSError as error:
            # It was removed meanwhile, and no other tree ever has its path.
            _LOG.debug("snapshot %r was not trimmed: %s", snapshot.info.name, error)

    def _ids(self) -> set[int]:
        with self._records.view() as txn:
            return {snapshot.id for snapshot in snapshots.every(txn)}

    def _walk(self, names: list[str], matches: filter_language.Matcher) -> Iterator[Info]:
        for name in names:
            try:
                info = self.stat(name)
            except NotFound:
                continue
            if matches(filter_language.snapshot(info)):
                yield info

    def _below(self, txn: Transaction, snapshot: Snapshot) -> list[Path]:
        return [self._path(parent) for parent in snapshots.lineage(txn, snapshot)[1:]]

    def _path(self, snapshot: Snapshot) -> Path:
        return self._forest.path(snapshot.id)


def _require_name(name: str) -> None:
    if not name:
        raise InvalidArgument("a snapshot needs a name that is not empty")
