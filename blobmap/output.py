"""What the command prints: JSON, plain columns, or a table, from the same records.

    --json          one JSON object a line, every field, sizes in bytes, times in ISO 8601
    a terminal      a table with headings, sizes for people, and digests cut to their first
                    twelve digits, more than `explain` and `rm` need to find them by
    anything else   the same headings and columns with tabs between, nothing shortened;
                    "-" for nothing

Names come from images and callers, so what cannot be printed is escaped: no name can move a
terminal's cursor or forge a line. A reader that goes away before the end has seen enough:
what else would be printed is not, and that is no failure.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from blobmap import Explanation, Holding, Report

Record = dict[str, object]

_SHORT_SIZE: Final = 12
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Attributes:
        title: Its heading.
        field: The record's field it shows; "a.b" is field b of the record in field a.
        is_size: Whether that is a size in bytes.
    """

    title: str
    field: str
    is_size: bool = False

    def value(self, record: Mapping[str, object]) -> object:
        """Return what the record has there; None if any step of the way is None."""
        found: object = record
        for name in self.field.split("."):
            found = found.get(name) if isinstance(found, dict) else None
        return found


def complete_streams() -> None:
    """Have the standard streams that the caller closed lead nowhere.

    Otherwise the next file opened would have a stream's number.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            # The lowest free number is the stream's own: those before it are open.
            setattr(sys, name, os.fdopen(os.open(os.devnull, os.O_RDWR), mode))


def show(records: Iterable[Record], columns: Sequence[Column], *, as_json: bool) -> None:
    """Print the records, each as a line or a row."""
    with _reader_may_leave():
        if as_json:
            for record in records:
                click.echo(_json(record))
        elif sys.stdout.isatty():
            _show_table(records, columns)
        else:
            click.echo("\t".join(column.title for column in columns))
            for record in records:
                click.echo("\t".join(_plain(column.value(record)) for column in columns))


def show_json(record: Record) -> None:
    """Print one JSON object on a line of its own."""
    with _reader_may_leave():
        click.echo(_json(record))


def show_text(*lines: str) -> None:
    """Print lines, each with what cannot be printed escaped."""
    with _reader_may_leave():
        for line in lines:
            click.echo(printable(line))


def printable(text: str) -> str:
    """Return the text with what cannot be printed escaped, and backslashes too if any is."""
    return text if text.isprintable() else text.encode("unicode_escape").decode("ascii")


def with_printable_names(explanation: Explanation) -> Explanation:
    """Return the explanation with names escaped: a newline would forge a holder."""
    # A chain of snapshots can be deeper than Python may recurse. The list grows meanwhile.
    order = list(explanation.holders)
    for holding in order:
        order += holding.holders
    escaped: dict[int, Holding] = {}
    for holding in reversed(order):
        holders = tuple(escaped[id(inner)] for inner in holding.holders)
        escaped[id(holding)] = replace(holding, name=printable(holding.name), holders=holders)
    return replace(
        explanation, holders=tuple(escaped[id(holding)] for holding in explanation.holders)
    )


def with_printable_findings(report: Report) -> Report:
    """Return the report with each finding escaped, as in an explanation."""
    findings = [
        replace(item, subject=printable(item.subject), detail=printable(item.detail))
        for item in report.findings
    ]
    return replace(report, findings=findings)


def shorten(digest: str) -> str:
    """Return a digest as people tell it from others: its first twelve digits."""
    algorithm, _, digits = digest.partition(":")
    return digits[:_SHORT_SIZE] if algorithm == "sha256" else digest


def humanize(size: int) -> str:
    """Return a size in bytes with three digits and a unit.

    >>> [humanize(size) for size in (0, 999, 1000, 12_345_678)]
    ['0 B', '999 B', '1.00 kB', '12.3 MB']
    """
    amount, unit = float(size), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    digits = 0 if unit == 0 or amount >= 99.95 else 1 if amount >= 9.995 else 2
    return f"{amount:.{digits}f} {_UNITS[unit]}"


@contextmanager
def _reader_may_leave() -> Iterator[None]:
    """End quietly when nobody reads standard output any more, and print no more there."""
    try:
        yield
    except BrokenPipeError:
        # Python flushes once more at its end, and must have where to.
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def _json(record: Record) -> str:
    return json.dumps(record, separators=(", ", ": "))


def _plain(value: object) -> str:
    return "-" if value in {None, ""} else printable(str(value))


def _show_table(records: Iterable[Record], columns: Sequence[Column]) -> None:
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        justify: Literal["left", "right"] = "right" if column.is_size else "left"
        table.add_column(column.title, justify=justify, overflow="fold")
    for record in records:
        # Text, and not str: rich reads markup in str, and names are not ours.
        table.add_row(*(Text(_for_people(column, record)) for column in columns))
    Console().print(table)


def _for_people(column: Column, record: Record) -> str:
    value = column.value(record)
    if column.is_size and isinstance(value, int):
        return humanize(value)
    return shorten(_plain(value))
