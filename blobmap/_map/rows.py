"""The store under a map: opened, read a page at a time, and changed for a cause."""

from __future__ import annotations

from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Final

import blobkv
from blobmap._map import migration, schema
from blobmap._map.events import RETENTION, Change, Retention
from blobmap._map.schema import Holder, Scope
from blobmap.clock import Clock, utc_now
from blobmap.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

    from blobkv.testing import FileSystem

# A scan reads this many rows a view, so that no view stays open while a caller works.
PAGE_COUNT: Final = 256
# How many parts a key has, the scope's two included.
_PART_COUNTS: Final = {
    schema.EDGE: 4,
    schema.NOTE: 4,
    schema.IMAGE: 3,
    schema.LISTING: 4,
    schema.CLAIM: 5,
    schema.LEASE: 3,
    schema.LEASED: 4,
    schema.INTENT: 3,
    schema.LEFTOVER: 4,
}


class Rows:
    """The rows of a map, as one scope sees them. Safe to call from many threads.

    Lifetime: from `open` to `close`; a call after that raises `FailedPrecondition`.
    """

    def __init__(
        self,
        store: blobkv.Store,
        scope: Scope,
        *,
        clock: Clock = utc_now,
        retention: Retention = RETENTION,
    ) -> None:
        self._store = store
        self.scope: Final = scope
        self.clock: Final = clock
        self._retention = retention

    @classmethod
    def open(
        cls,
        root: str | Path,
        scope: Scope,
        *,
        lock_timeout: float = 0.0,
        clock: Clock = utc_now,
        retention: Retention = RETENTION,
        fs: FileSystem | None = None,
    ) -> Self:
        """Open the map in the directory `root`, and make it if it does not exist.

        One that an older blobmap wrote is brought to this version's schema.

        Raises:
            blobkv.LockedError: It is open already, here or in another process, and still is
                after `lock_timeout` seconds.
            FailedPrecondition: The directory holds a newer map, or another kind of store.
        """
        store = blobkv.open(root, lock_timeout=lock_timeout, fs=fs)
        try:
            with store.view() as txn:
                settled = schema.version_is_settled(txn)
            if not settled:
                migration.settle(store, clock())
        except BaseException:
            store.close()
            raise
        return cls(store, scope, clock=clock, retention=retention)

    def close(self) -> None:
        """Close the store. Idempotent."""
        self._store.close()

    @contextmanager
    def view(self) -> Iterator[blobkv.Transaction]:
        """Read one state of the whole map in a with-block.

        Raises:
            FailedPrecondition: The map is closed.
        """
        with _told(), self._store.view() as txn:
            yield txn

    @contextmanager
    def update(self, cause: str) -> Iterator[Change]:
        """Change the whole map in a with-block; if it raises, nothing changes.

        Args:
            cause: Why, for the feed.

        Raises:
            FailedPrecondition: The map is closed.
        """
        with _told(), self._store.update() as txn:
            yield Change(txn, cause, self.clock(), self._retention)

    def require_open(self) -> None:
        """Raise FailedPrecondition if the map is closed."""
        with self.view():
            pass

    def holder(self, kind: str, name: str) -> Holder:
        """Return the holder of that name in this scope."""
        return Holder(kind, self.scope, name)

    def scan(self, table: str, *parts: str) -> Iterator[tuple[tuple[str, ...], bytes]]:
        """Yield the rows of this scope under `parts`: the parts past the scope, the value."""
        for key, raw in self._rows(table, self.scope.key(*parts)):
            yield schema.text_parts(key, _PART_COUNTS[table])[2:], raw

    def scan_all(self, table: str) -> Iterator[tuple[Scope, tuple[str, ...], bytes]]:
        """Yield the rows of every scope: the scope, the parts past it, the value."""
        for key, raw in self._rows(table, b""):
            namespace, snapshotter, *parts = schema.text_parts(key, _PART_COUNTS[table])
            yield Scope(namespace, snapshotter), tuple(parts), raw

    def _rows(self, table: str, prefix: bytes) -> Iterator[tuple[bytes, bytes]]:
        start = prefix
        while True:
            with self.view() as txn:
                rows = txn.bucket(table).items(prefix=prefix, start=start)
                page = list(islice(rows, PAGE_COUNT))
            yield from page
            if len(page) < PAGE_COUNT:
                return
            start = page[-1][0] + b"\x00"


@contextmanager
def _told() -> Iterator[None]:
    """Say in blobmap's words that the store is closed."""
    try:
        yield
    except blobkv.ClosedError as error:
        raise FailedPrecondition("the map is closed: open it again") from error
