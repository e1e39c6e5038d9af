r"""The command `blobkv`: look into a store, change it, check it, and back it up.

Keys, values, and bucket names are spelled as `blobkv.spelling` says. With `--json` every
command prints JSON, one object a line.

Commands that read open the store read-only: they run beside a live writer, wait for nobody,
and never make a store. `put` and `load` make one.

Exit status: 0 done; 1 it failed, or the key does not exist; 2 the call is wrong; 130
interrupted. An error is one line on standard error that says what to do.
"""

from __future__ import annotations

import sys
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click

from blobkv import Problem, Report, Salvage, spelling
from blobkv import open as open_store
from blobkv import salvage as salvage_store
from blobkv.calls import (
    blobkv,
    command,
    entry_command,
    key_argument,
    prefix_option,
    print_line,
    printing,
    show_progress,
    wait_option,
)
from blobkv.errors import CorruptionError, UsageError
from blobkv.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobkv import Bucket, Transaction
    from blobkv.calls import Call

INTERRUPTED: Final = 130

_LOAD_BATCH_COUNT: Final = 1000
# What is true of the store, whoever has it open.
_TABLE_FIGURES: Final = "table_count", "table_size", "table_entries", "runs"
_FIGURES: Final = "sequence", *_TABLE_FIGURES, "memtable_count"


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or this process's; return the exit status."""
    try:
        status = blobkv.main(arguments, prog_name="blobkv", standalone_mode=False)
        with printing():
            sys.stdout.flush()
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "blobkv"
        return _fail(f"{error.format_message()} (see: {command} --help)", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


@entry_command
@key_argument
@click.option("--raw", is_flag=True, help="Write the value's bytes as they are, no newline.")
def get(call: Call, key: str, *, raw: bool) -> None:
    """Print the value of KEY.

    If KEY does not exist, print nothing, say so on standard error, and exit with status 1.
    """
    if raw and call.as_json:
        raise click.UsageError("--raw prints no JSON")
    name = call.decode(key)
    with call.reading() as store, store.view() as txn:
        value = call.entries(txn).get(name)
    if value is None:
        raise _absent(call, key)
    if raw:
        with printing():
            sys.stdout.buffer.write(value)
    elif call.as_json:
        call.show_bytes(key=name, value=value)
    else:
        call.show_bytes(value=value)


@entry_command
@key_argument
@click.argument("value")
@wait_option
def put(call: Call, key: str, value: str, *, wait: float) -> None:
    r"""Set KEY to VALUE, or to what is read for "-".

    That is all of standard input, byte for byte. A value that is one dash is spelled \x2d.
    """
    raw = sys.stdin.buffer.read() if value == "-" else call.decode(value)
    name = call.decode(key)
    with call.writing(wait, create=True) as store, store.update() as txn:
        call.entries(txn).put(name, raw)
    if call.as_json:
        call.show({"key": call.json(name), "size": len(raw)}, "")


@entry_command
@key_argument
@wait_option
def delete(call: Call, key: str, *, wait: float) -> None:
    """Delete KEY; exit status 1 if it does not exist."""
    name = call.decode(key)
    with call.writing(wait, create=False) as store, store.update() as txn:
        entries = call.entries(txn)
        if name not in entries:
            raise _absent(call, key)
        entries.delete(name)
    if call.as_json:
        call.show_bytes(key=name)


@entry_command
@prefix_option
@click.option("--yes", is_flag=True, help="Do not ask, as is done on a terminal.")
@wait_option
def clear(call: Call, prefix: str, *, yes: bool, wait: float) -> None:
    """Delete all keys, or those of a prefix.

    Prints how many. Buckets inside stay as they are.
    """
    start = call.decode(prefix)
    if not yes and sys.stdin.isatty():
        what = f"the keys that start with {prefix}" if prefix else "all keys"
        if not click.confirm(spelling.printable(f"Delete {what} in {call.where}?"), err=True):
            raise click.ClickException("nothing is deleted")
    with call.writing(wait, create=False) as store, store.update() as txn:
        count = call.entries(txn).clear(start)
    call.show({"deleted": count}, f"deleted {counted(count, 'key')}")


@entry_command
@prefix_option
@click.option("--start", metavar="KEY", help="Only keys at or past this one.")
@click.option("--stop", metavar="KEY", help="Only keys before this one.")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
def scan(
    call: Call, limit: int | None, *, reverse: bool, keys_only: bool, **bounds: str | None
) -> None:
    """Print keys and values in key order, a tab between them."""
    given = {name: call.decode(text) for name, text in bounds.items() if text is not None}
    with call.reading() as store, store.view() as txn:
        for key, value in islice(call.entries(txn).items(reverse=reverse, **given), limit):
            if keys_only:
                call.show_bytes(key=key)
            else:
                call.show_bytes(key=key, value=value)


@entry_command
def buckets(call: Call) -> None:
    """Print the names of the buckets, or with --bucket of those in one."""
    with call.reading() as store, store.view() as txn:
        for name in call.entries(txn).buckets():
            call.show_bytes(name=name)


@entry_command
def dump(call: Call) -> None:
    """Print the entries of all buckets as JSON, one a line."""
    with call.reading() as store, store.view() as txn:
        for line in _lines(call, call.entries(txn)):
            print_line(line)


@entry_command
@wait_option
def load(call: Call, *, wait: float) -> None:
    """Put the entries that `dump` printed.

    Reads standard input; with --hex, if `dump` had it. Other entries stay. What is loaded is
    durable at the end. A line that is wrong ends it; the message says what was loaded.
    """
    # A generator ends for good, where a terminal that has ended would be read again.
    lines = (numbered for numbered in enumerate(sys.stdin.buffer, 1))
    count = 0
    with call.writing(wait, create=True) as store:
        while batch := list(islice(lines, _LOAD_BATCH_COUNT)):
            with store.update(durable=False) as txn:
                for number, line in batch:
                    _load_line(call, txn, number, line)
            count += len(batch)
            if sys.stderr.isatty():
                click.echo(f"{count}\r", err=True, nl=False)
        store.sync()
    call.show({"loaded": count}, f"loaded {counted(count, 'entry', 'entries')}")


@command
def stats(call: Call) -> None:
    """Print the store's figures.

    Entries that are shadowed or deleted count until a compaction drops them; those in logs
    that are in no table yet are the memtable's.
    """
    with call.reading() as store:
        figures = asdict(store.stats())
    shown = {name: figures[name] for name in _FIGURES}
    tables = " ".join(str(run["tables"]) for run in shown["runs"]) or "none"
    size = counted(shown["table_size"], "byte")
    rows = {**shown, "table_size": size, "runs": f"{tables} (tables in each)"}.items()
    call.show(shown, "\n".join(f"{name}\t{figure}" for name, figure in rows))


@command
def verify(call: Call) -> None:
    """Read and check every byte; exit status 1 if anything is wrong."""
    try:
        with call.reading() as store:
            report = store.verify(progress=show_progress)
    except CorruptionError as error:
        # Too damaged to be opened, which is what to report, as any other problem.
        report = Report(problems=[Problem(error.path, error.offset, error.reason)])
    call.show({"ok": report.ok, **_record(call, report)}, _lines_of(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


@command
@click.argument("target", metavar="DEST", type=click.Path(path_type=Path))
@click.option("--link", is_flag=True, help="Share tables with the copy: quick, little room.")
def backup(call: Call, target: Path, *, link: bool) -> None:
    """Copy the store as it is now into the new directory DEST.

    With --link, damage to a shared file is damage to both.
    """
    with call.reading() as store:
        store.backup(target, hard_links=link, progress=show_progress)
    # Not the store's, which another process may have moved on.
    with open_store(target, read_only=True) as copy:
        sequence = copy.sequence
    text = f"backed up commit {sequence} to {spelling.printable(str(target))}"
    call.show({"path": str(target), "sequence": sequence}, text)


@command
@click.argument("target", metavar="DEST", type=click.Path(path_type=Path))
@click.option(
    "--doubtful",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Write the doubtful entries there, as a store of their own.",
)
def salvage(call: Call, target: Path, *, doubtful: Path | None) -> None:
    """Write what can still be proven of a damaged store to the new directory DEST.

    An entry is doubtful where what is lost may have replaced or deleted it: without --doubtful
    those are counted only. Nothing in PATH is changed. Exit status 0 if DEST was written.
    """
    found = salvage_store(call.path, target, doubtful=doubtful, progress=show_progress)
    call.show(_record(call, found), _lines_of(found))


def _record(call: Call, found: Report | Salvage) -> dict[str, object]:
    """Return what was found as JSON: keys are spelled there as in any other output."""
    problems = [
        {
            **asdict(problem),
            "lost": problem.lost
            and {
                "start": call.json(problem.lost[0]),
                "stop": None if problem.lost[1] is None else call.json(problem.lost[1]),
            },
        }
        for problem in found.problems
    ]
    return {**asdict(found), "problems": problems}


def _lines_of(found: Report | Salvage) -> str:
    return "\n".join(map(spelling.printable, str(found).splitlines()))


def _lines(call: Call, entries: Transaction | Bucket, *names: bytes) -> Iterator[str]:
    for key, value in entries.items():
        yield spelling.to_line(names, key, value, as_hex=call.as_hex)
    for name in entries.buckets():
        yield from _lines(call, entries.bucket(name), *names, name)


def _load_line(call: Call, txn: Transaction, number: int, line: bytes) -> None:
    try:
        names, key, value = spelling.from_line(line, as_hex=call.as_hex)
        call.entries(txn, *names).put(key, value)
    except UsageError as error:
        loaded = (number - 1) // _LOAD_BATCH_COUNT * _LOAD_BATCH_COUNT
        message = f"line {number}: {error}; {counted(loaded, 'line')} before it loaded"
        raise click.ClickException(message) from error


def _absent(call: Call, key: str) -> click.ClickException:
    return click.ClickException(f"{key}: no such key in {call.where}")


def _fail(message: str, status: int) -> int:
    click.echo(f"blobkv: {spelling.printable(message)}", err=True)
    return status
