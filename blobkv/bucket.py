r"""Entries in key order as a mapping, and buckets: named, nested sub-ranges of the key space.

A bucket needs no creation, costs nothing, and ceases to exist with its last key.

    stored key = ( 0x01 escape(bucket name) )*  0x00 key

Each level starts with a tag, 0x00 for an entry or 0x01 for a child bucket, and names are
escaped (see `keys.py`), so that the entries of a bucket, those of its parent, and those of
its children never mix, whatever bytes names and keys hold.

Source: bolt's Bucket, as a mapping; the tags follow FoundationDB's subspaces.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterator, KeysView, MutableMapping, ValuesView
from typing import TYPE_CHECKING, Final, TypeVar, overload

from blobkv._engine.format import KEY_SIZE_MAX as STORED_KEY_SIZE_MAX
from blobkv._engine.format import VALUE_SIZE_MAX
from blobkv.cursor import Cursor, as_bytes, as_key
from blobkv.errors import LimitError, ReadOnlyError, UsageError
from blobkv.keys import escape, prefix_end, unescape
from blobkv.spans import Items, Keys, Values

if TYPE_CHECKING:
    from blobkv._engine.overlay import Overlay
    from blobkv.cursor import Pair
    from blobkv.scope import Scope

T = TypeVar("T")
KEY_SIZE_MAX: Final = 2**16
BUCKET_SIZE_MAX: Final = STORED_KEY_SIZE_MAX - KEY_SIZE_MAX - 1

ENTRY: Final = b"\x00"
_BUCKET: Final = b"\x01"
# Between the entries and the child buckets of a level no stored key has room.
ENTRIES_END: Final = _BUCKET


class Entries(MutableMapping[bytes, bytes]):
    """A mapping of keys to values, in key order: the common face of transactions and buckets.

    In a view every write raises `ReadOnlyError`. `len` counts the keys: one number a block in
    a view of one run of tables without tombstones, else it reads the keys. What `keys`,
    `values`, and `items` return is read lazily and, in an update, follows its changes.

    Whatever reads or writes raises `ClosedError` once the transaction has ended, `UsageError`
    for a key or a value that is not bytes, and `CorruptionError` where it meets bytes nobody
    wrote.
    """

    __slots__ = ("_scope",)

    # How the stored keys of its buckets start, those of its own entries, and what comes next.
    _path: bytes
    _prefix: bytes
    _end: bytes

    def __init__(self, scope: Scope) -> None:
        self._scope = scope

    @overload
    def get(self, key: bytes, /) -> bytes | None: ...
    @overload
    def get(self, key: bytes, /, default: bytes) -> bytes: ...
    @overload
    def get(self, key: bytes, /, default: T) -> bytes | T: ...
    def get(self, key: bytes, /, default: object = None) -> object:
        """Return the key's value, or `default`.

        Cost: O(1): a dict lookup a memtable, then one probe a run of tables.
        """
        try:
            value = self._scope.get(self._prefix + key)
        except TypeError:
            value = self._scope.get(self._prefix + as_bytes(key, "key"))
        return default if value is None else value

    def put(self, key: bytes, value: bytes) -> None:
        """Set the key's value. O(1).

        Raises:
            ReadOnlyError: The transaction is a view.
            LimitError: The key is over 64 KiB or the value over 1 GiB.
        """
        changes = self._changes()
        if type(key) is not bytes or type(value) is not bytes:
            key, value = as_bytes(key, "key"), as_bytes(value, "value")
        if len(key) > KEY_SIZE_MAX:
            raise LimitError(f"key is {len(key)} bytes, limit {KEY_SIZE_MAX}")
        if len(value) > VALUE_SIZE_MAX:
            raise LimitError(f"value is {len(value)} bytes, limit {VALUE_SIZE_MAX}")
        changes.put(self._prefix + key, value)

    def delete(self, key: bytes) -> None:
        """Delete the key; one that does not exist is no error. O(1).

        Raises:
            ReadOnlyError: The transaction is a view.
        """
        changes = self._changes()
        key = as_bytes(key, "key")
        if len(key) <= KEY_SIZE_MAX:
            changes.put(self._prefix + key, None)

    def clear(self, prefix: bytes = b"") -> int:  # type: ignore[override]  # Says how many.
        """Delete the keys that start with `prefix`; child buckets stay.

        Returns:
            How many keys that were.

        Raises:
            ReadOnlyError: The transaction is a view.

        Cost: one range tombstone in the store however many keys; O(keys) to count them.
        """
        stored = self._prefix + as_bytes(prefix, "prefix")
        return self._changes().clear(stored, prefix_end(stored))

    def keys(
        self,
        *,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
    ) -> KeysView[bytes]:
        """Return the keys in [start, stop) that start with `prefix`, in key order."""
        return Keys(self, prefix, start, stop, reverse=reverse)

    def values(
        self,
        *,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
    ) -> ValuesView[bytes]:
        """Return the values of those keys, in the order of `keys`."""
        return Values(self, prefix, start, stop, reverse=reverse)

    def items(
        self,
        *,
        prefix: bytes = b"",
        start: bytes | None = None,
        stop: bytes | None = None,
        reverse: bool = False,
    ) -> ItemsView[bytes, bytes]:
        """Return `(key, value)` pairs, in the order of `keys`."""
        return Items(self, prefix, start, stop, reverse=reverse)

    def cursor(
        self, *, prefix: bytes = b"", start: bytes | None = None, stop: bytes | None = None
    ) -> Cursor:
        """Return a cursor, on no key yet, over the keys in [start, stop) with `prefix`."""
        return Cursor(self, prefix, start, stop)

    def bucket(self, *names: bytes | str) -> Bucket:
        """Return the bucket of that name, nested once a name; it need not exist. O(1).

        Args:
            *names: At least one name, any bytes; text stands for its UTF-8.

        Raises:
            LimitError: The names together are over 64 KiB.
        """
        return Bucket(self._scope, self._child(names))

    def buckets(self) -> list[bytes]:
        """Return the names of the child buckets that hold anything, in order.

        Cost: O(log n) a name; what a bucket holds is skipped.
        """
        found: list[bytes] = []
        scope = self._scope
        position = self._path + _BUCKET
        end = prefix_end(position)
        while True:
            pair = next(scope.reader.items(position, end, owner=scope), None)
            if pair is None:
                return found
            name, after = unescape(pair[0], len(self._path) + 1)
            found.append(name)
            following = prefix_end(pair[0][:after])
            # An escaped name ends in 0x00, so its prefix always has an end.
            assert following is not None
            position = following

    def delete_bucket(self, *names: bytes | str) -> int:
        """Delete everything in the bucket of that name and in the buckets nested in it.

        Returns:
            How many keys that were; 0 if the bucket did not exist.

        Raises:
            ReadOnlyError: The transaction is a view.

        Cost: as `clear`.
        """
        path = self._child(names)
        return self._changes().clear(path, prefix_end(path))

    def __getitem__(self, key: bytes) -> bytes:
        value = self.get(key)
        if value is None:
            raise KeyError(key)
        return value

    def __setitem__(self, key: bytes, value: bytes) -> None:
        self.put(key, value)

    def __delitem__(self, key: bytes) -> None:
        self._changes()
        if self.get(key) is None:
            raise KeyError(key)
        self.delete(key)

    def __contains__(self, key: object) -> bool:
        found = as_key(key)
        return found is not None and self.get(found) is not None

    def __iter__(self) -> Iterator[bytes]:
        return iter(self.keys())

    def __reversed__(self) -> Iterator[bytes]:
        return iter(self.keys(reverse=True))

    def __len__(self) -> int:
        return self._count(b"", None)

    def __bool__(self) -> bool:
        return next(iter(self), None) is not None

    def _pairs(self, start: bytes, stop: bytes | None, *, reverse: bool) -> Iterator[Pair]:
        scope, prefix = self._scope, self._prefix
        low, high = prefix + start, self._end if stop is None else prefix + stop
        if low >= high:
            self._check_open()
            return iter(())
        skip = len(prefix)
        return scope.reader.items(low, high, owner=scope, skip=skip, reverse=reverse)

    def _count(self, start: bytes, stop: bytes | None) -> int:
        self._check_open()
        low, high = self._prefix + start, self._end if stop is None else self._prefix + stop
        return 0 if low >= high else self._scope.reader.count(low, high)

    def _changes(self) -> Overlay:
        changes = self._scope.changes
        if changes is None:
            self._check_open()
            raise ReadOnlyError("this transaction is a view; open an update to write")
        return changes

    def _check_open(self) -> None:
        self._scope.reader.check_open()

    def _child(self, names: tuple[bytes | str, ...]) -> bytes:
        if not names:
            raise UsageError("a bucket needs a name")
        path = self._path
        for name in names:
            path += _BUCKET + escape(_bucket_name(name))
        if len(path) > BUCKET_SIZE_MAX:
            raise LimitError(f"bucket names take {len(path)} bytes, limit {BUCKET_SIZE_MAX}")
        return path


def _bucket_name(name: bytes | str) -> bytes:
    if not isinstance(name, str):
        return as_bytes(name, "bucket name")
    try:
        return name.encode()
    except UnicodeEncodeError as cause:
        raise UsageError(f"bucket name {name!r} is no UTF-8; give it as bytes") from cause


class Bucket(Entries):
    """A named, nested sub-range of the key space; ends with its transaction."""

    __slots__ = ("_end", "_path", "_prefix")

    def __init__(self, scope: Scope, path: bytes) -> None:
        super().__init__(scope)
        self._path = path
        self._prefix = path + ENTRY
        self._end = path + _BUCKET
