"""Metadata: values by name that a snapshot carries, whatever the caller makes of them.

A value is what JSON can spell, so that it comes back as the type it had: text, a number, a
truth value, None in a list, lists, and mappings by text. Like a reference it belongs to one
life of the snapshot's key, and goes with the snapshot.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from blobmap import locks
from blobmap._map import schema
from blobmap.errors import InvalidArgument
from blobmap.fields import encode

if TYPE_CHECKING:
    from blobmap._map.parts import Parts


_NAME_SIZE_MAX: Final = 1024
VALUE_SIZE_MAX: Final = 1 << 20


class Notes:
    """The metadata of one scope. Safe to call from many threads."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    def all_of(self, key: str) -> dict[str, object]:
        """See `BlobSnapshotter.metadata`."""
        # Before the snapshot is looked at, for the same reason as in `Mappings.stat`.
        notes = self._parts.refs.notes(key)
        life = schema.incarnation(self._parts.inner.stat(key))
        return {name: note.value for name, note in notes if note.incarnation == life}

    def lives(self, key: str) -> set[str]:
        """Return of which lives of the key there is metadata."""
        return {note.incarnation for _, note in self._parts.refs.notes(key)}

    def drop(self, key: str, lives: set[str]) -> None:
        """Drop the metadata of lives of the key that are over."""
        if lives:
            self._parts.refs.drop_notes(key, lives)

    def set(self, key: str, name: str, value: object) -> None:
        """See `BlobSnapshotter.set_metadata`."""
        schema.check_name("snapshot", key, schema.SNAPSHOT_SIZE_MAX)
        schema.check_name("metadata", name, _NAME_SIZE_MAX)
        _check(name, value)
        with self._parts.locks.hold(locks.snapshot(key)):
            life = schema.incarnation(self._parts.inner.stat(key))
            with self._parts.refs.update("set_metadata") as change:
                notes = change.txn.bucket(schema.NOTE)
                row = self._parts.refs.scope.key(key, name)
                if value is None:
                    notes.delete(row)
                else:
                    notes.put(row, encode(value=value, incarnation=life))


def _check(name: str, value: object) -> None:
    """Refuse a value that would not come back as it is; InvalidArgument says why."""
    try:
        spelled = json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as cause:
        raise InvalidArgument(
            f"metadata {name!r} is nothing that JSON spells: {cause}"
        ) from cause
    if len(spelled) > VALUE_SIZE_MAX:
        raise InvalidArgument(
            f"metadata {name!r} is {len(spelled)} bytes, limit {VALUE_SIZE_MAX}: keep it as a "
            "blob, and refer to that"
        )
    if json.loads(spelled) != value:
        raise InvalidArgument(
            f"metadata {name!r} would not come back as it is: keys of mappings are texts, and "
            "there are no tuples"
        )
