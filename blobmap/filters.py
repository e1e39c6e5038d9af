r"""The filter language of `walk` and `list_statuses`: text in, a predicate out.

    filter    = [selector *("," selector)]          all selectors must match; empty matches all
    selector  = path [operator value]               a path alone: the field is present
    path      = field *("." field)
    field     = 1*(letter | digit | "_") | quoted
    operator  = "==" | "!=" | "~="                  equal, not equal, a regexp found anywhere
    value     = 1*(any but space and ",") | quoted  not starting with one of " / | . = ! ~
    quoted    = '"' text '"'                        also /text/ and |text| after "~="
    text      = any but newline; escapes as in Go: \\ \n \t \xff \377 \u00e9 \" and the like

Of several filters any one that matches is enough; none at all match everything. Space is
skipped before a field, an operator, and a value.

What surprises people, and is so on purpose:

* "!=" holds for an absent field, which counts as empty; so does "~=" if its regexp finds
  itself in "".
* The fields after the first are joined by dots, so `labels.a.b` is the label "a.b"; a
  label's key that holds "/" or "-" must be quoted: `labels."containerd.io/gc.root"`.
* A backslash of a quoted regexp is written twice, /\\d+/, for the quotes take one away.
* An empty value is spelled "": `parent!=""`.

Regexps are Python's `re`, where containerd has Go's RE2. Both agree on everyday regexps;
RE2 alone has \pL, \z, and \Q..\E, Python alone has lookaround and backreferences, and "$"
in Python also matches before a final newline. Python's can take exponential time, so do not
pass on a filter from someone you do not trust. A regexp that does not compile is refused
when the filter is parsed.

Source: containerd's pkg/filters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

    from blobmap.contracts import ContentInfo, Info, IngestStatus

Lookup = Callable[[tuple[str, ...]], str | None]
"""A thing's fields by path: the field's value, or None if the thing has no such field."""

Matcher = Callable[[Lookup], bool]
"""Whether the thing behind a `Lookup` matches."""

_SPACE: Final = re.compile(r"\s*")
_FIELD: Final = re.compile(r"[A-Za-z0-9_]+")
_OPERATOR: Final = re.compile(r"[=!~]+")
_VALUE: Final = re.compile(r'[^\s,."/|=!~][^\s,]*')
_QUOTED: Final = {
    quote: re.compile(rf"{re.escape(quote)}((?:[^\\\n{quote}]|\\[^\n])*){re.escape(quote)}")
    for quote in '"/|'
}
_ESCAPE: Final = re.compile(
    r"\\(?:x([0-9A-Fa-f]{2})|u([0-9A-Fa-f]{4})|U([0-9A-Fa-f]{8})|([0-7]{3})|(.))"
)
_ESCAPED: Final = dict(zip("abfnrtv\\", "\a\b\f\n\r\t\v\\", strict=True))
_POSIX_CLASS: Final = re.compile(r"\[\[?\^?:[a-z]+:\]")


def parse(*filters: str) -> Matcher:
    """Return the predicate that holds where any of `filters` does, or where none is given.

    Raises:
        InvalidArgument: A filter does not parse; the message has the filter and the position.

    Cost: O(size of the filters); each call of the predicate, O(number of selectors) lookups.

    >>> matches = parse("kind==active,labels.owner", "name~=^base")
    >>> matches({("name",): "base-1"}.get)
    True
    >>> matches({("kind",): "active"}.get)
    False
    """
    alternatives = [_Parser(text).selectors() for text in filters]
    if not all(alternatives):
        return lambda _: True
    return lambda lookup: (
        not alternatives
        or any(all(selector(lookup) for selector in selectors) for selectors in alternatives)
    )


def snapshot(info: Info) -> Lookup:
    """Return the fields of a snapshot: `name`, `parent`, `kind`, and `labels.<key>`.

    `parent` is present even where it is empty; `kind` is in lower case.
    """
    fields = {"name": info.name, "parent": info.parent, "kind": info.kind.value}
    return _lookup(fields, info.labels)


def content(info: ContentInfo) -> Lookup:
    """Return the fields of a committed blob: `digest` and `labels.<key>`."""
    return _lookup({"digest": info.digest}, info.labels)


def ingest(status: IngestStatus) -> Lookup:
    """Return the one field of an unfinished ingest: `ref`."""
    return _lookup({"ref": status.ref}, {})


def _lookup(fields: Mapping[str, str], labels: Mapping[str, str]) -> Lookup:
    def lookup(path: tuple[str, ...]) -> str | None:
        if path[0] == "labels":
            return labels.get(".".join(path[1:]))
        return fields.get(path[0])

    return lookup


class _Parser:
    """One pass over one filter; `_at` is where the rest of it starts."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def selectors(self) -> list[Matcher]:
        if not self._text:
            return []
        selectors = [self._selector()]
        while self._at < len(self._text):
            if not self._skip(","):
                raise self._error("expected a comma or the end")
            selectors.append(self._selector())
        return selectors

    def _selector(self) -> Matcher:
        path = self._path()
        if self._at == len(self._text) or self._text[self._at] == ",":
            return lambda lookup: lookup(path) is not None
        self._take(_SPACE)
        start = self._at
        operator = self._take(_OPERATOR)
        if operator == "~=":
            found = self._regexp()
            return lambda lookup: found(lookup(path) or "") is not None
        if operator == "==":
            value = self._value('"')
            return lambda lookup: lookup(path) == value
        if operator == "!=":
            value = self._value('"')
            return lambda lookup: (lookup(path) or "") != value
        raise self._error('expected one of "==", "!=", and "~="', start)

    def _path(self) -> tuple[str, ...]:
        fields = [self._field()]
        while self._skip("."):
            fields.append(self._field())
        return tuple(fields)

    def _field(self) -> str:
        self._take(_SPACE)
        field = self._take(_FIELD) or self._quoted('"')
        if field is None:
            raise self._error("expected a field; quote what is not letters, digits, or _")
        return field

    def _value(self, quotes: str) -> str:
        self._take(_SPACE)
        value = self._take(_VALUE) or self._quoted(quotes)
        if value is None:
            raise self._error(
                'expected a value; quote it with " if it is empty or starts oddly'
            )
        return value

    def _regexp(self) -> Callable[[str], re.Match[str] | None]:
        start = self._at
        pattern = self._value('"/|')
        if _POSIX_CLASS.search(pattern):
            raise self._error("[[:name:]] is not known here; spell the class out", start)
        try:
            return re.compile(pattern).search
        except (re.error, OverflowError, RecursionError) as error:
            raise self._error(f"the regexp does not compile: {error}", start) from error

    def _quoted(self, quotes: str) -> str | None:
        quote = self._text[self._at : self._at + 1]
        if not quote or quote not in quotes:
            return None
        start = self._at
        match = _QUOTED[quote].match(self._text, start)
        if match is None:
            raise self._error("the quote is not closed", start)
        self._at = match.end()
        return self._unescape(match[1], start + 1, quote)

    def _unescape(self, text: str, start: int, quote: str) -> str:
        r"""Undo escapes; neighbors together, because \xNN and \NNN stand for bytes of UTF-8."""
        parts: list[str] = []
        run = b""
        at = 0
        while (backslash := text.find("\\", at)) >= 0:
            if backslash > at:
                parts += [_text(run), text[at:backslash]]
                run = b""
            escape = _ESCAPE.match(text, backslash)
            decoded = None if escape is None else _decode(escape, quote)
            if escape is None or decoded is None:
                raise self._error(
                    "unknown escape; a backslash is written \\\\", start + backslash
                )
            run += decoded
            at = escape.end()
        return "".join([*parts, _text(run), text[at:]])

    def _skip(self, token: str) -> bool:
        if not self._text.startswith(token, self._at):
            return False
        self._at += len(token)
        return True

    def _take(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[0]

    def _error(self, reason: str, at: int | None = None) -> InvalidArgument:
        position = self._at if at is None else at
        return InvalidArgument(f"filter {self._text!r}, position {position}: {reason}")


def _text(run: bytes) -> str:
    return run.decode("utf-8", "surrogateescape")


def _decode(escape: re.Match[str], quote: str) -> bytes | None:
    byte, short, long, octal, letter = escape.groups()
    if letter is not None:
        return quote.encode() if letter == quote else _ESCAPED.get(letter, "").encode() or None
    number = int(octal, 8) if octal else int(byte or short or long, 16)
    if byte or octal:
        return bytes((number,)) if number <= 0xFF else None
    return chr(number).encode("utf-8", "surrogatepass") if number <= 0x10FFFF else None
