"""The fields of one record: spelled as JSON, and checked as they are taken.

A record is a JSON object, for whoever looks into a store to read it. What comes out of a store
is not taken on trust: a field that is not what was written is `DataLoss` that names the
record, and never an error of whatever happens to stumble over it later.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING, TypeVar

from blobmap import digest as digests
from blobmap.errors import DataLoss, InvalidArgument

if TYPE_CHECKING:
    from enum import Enum

E = TypeVar("E", bound="Enum")


def encode(**fields: object) -> bytes:
    """Return the record of these fields as it is stored: any texts, each read as it was."""
    # Escaped, two halves of a surrogate pair would be read as the one character they spell.
    text = json.dumps(fields, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


class Fields:
    """One decoded record. Each method takes the field `name`, and checks that it is such.

    Args:
        raw: The record as `encode` made it.
        what: What to call it in errors.

    Raises:
        DataLoss: It is no record; and from each method: the field is not what it should be.
    """

    def __init__(self, raw: bytes, what: str) -> None:
        self._what = what
        try:
            fields = json.loads(raw)
        except (ValueError, RecursionError) as cause:
            raise self.damage("is not JSON") from cause
        if not isinstance(fields, dict):
            raise self.damage("is not a JSON object")
        self._fields: dict[str, object] = fields

    def value(self, name: str) -> object:
        """Return whatever JSON spells there."""
        if name not in self._fields:
            raise self._wrong(name, "something")
        return self._fields[name]

    def text(self, name: str) -> str:
        """Return a text."""
        value = self._fields.get(name)
        if not isinstance(value, str):
            raise self._wrong(name, "a text")
        return value

    def text_or_none(self, name: str) -> str | None:
        """Return a text, or None if there is none."""
        return None if self._fields.get(name) is None else self.text(name)

    def texts(self, name: str) -> tuple[str, ...]:
        """Return a list of texts."""
        value = self._fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise self._wrong(name, "a list of texts")
        return tuple(value)

    def labels(self, name: str) -> dict[str, str]:
        """Return texts by texts."""
        value = self._fields.get(name)
        # The keys of a JSON object are texts.
        if not isinstance(value, dict) or not all(
            isinstance(item, str) for item in value.values()
        ):
            raise self._wrong(name, "labels")
        return value

    def number(self, name: str) -> int:
        """Return a number, 0 or more."""
        value = self._fields.get(name)
        if not isinstance(value, int) or not _is_number(value):
            raise self._wrong(name, "a number")
        return value

    def number_or_none(self, name: str) -> int | None:
        """Return a number, or None if there is none."""
        return None if self._fields.get(name) is None else self.number(name)

    def numbers(self, name: str) -> tuple[int, ...]:
        """Return a list of numbers, 0 or more."""
        value = self._fields.get(name)
        if not isinstance(value, list) or not all(map(_is_number, value)):
            raise self._wrong(name, "a list of numbers")
        return tuple(value)

    def flag(self, name: str) -> bool:
        """Return a truth value."""
        value = self._fields.get(name)
        if not isinstance(value, bool):
            raise self._wrong(name, "a truth value")
        return value

    def digest(self, name: str) -> str:
        """Return a digest."""
        return self._valid(self.text(name))

    def digest_or_none(self, name: str) -> str | None:
        """Return a digest, or None if there is none."""
        return None if self._fields.get(name) is None else self.digest(name)

    def digests(self, name: str) -> tuple[str, ...]:
        """Return a list of digests."""
        return tuple(map(self._valid, self.texts(name)))

    def time(self, name: str) -> datetime:
        """Return a time, written in ISO 8601, with its zone."""
        try:
            time = datetime.fromisoformat(self.text(name))
        except ValueError as cause:
            raise self._wrong(name, "a time") from cause
        if time.tzinfo is None:
            raise self._wrong(name, "a time with its zone")
        return time

    def choice(self, name: str, choices: type[E]) -> E:
        """Return the one of the choices whose value is written there."""
        try:
            return choices(self.text(name))
        except ValueError as cause:
            raise self._wrong(name, f"a {choices.__name__.lower()}") from cause

    def damage(self, problem: str) -> DataLoss:
        """Return the error that names the record, the problem, and what to do."""
        return DataLoss(f"{self._what} {problem}: restore the store it is in from a backup")

    def _valid(self, digest: str) -> str:
        # A digest becomes a path in the content store, so it is never taken on trust.
        try:
            return digests.validate(digest)
        except InvalidArgument as cause:
            raise self.damage(f"names the impossible digest {digest!r}") from cause

    def _wrong(self, name: str, expected: str) -> DataLoss:
        found = self._fields.get(name)
        return self.damage(f"has {name} = {found!r} where {expected} should be")


def _is_number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0
