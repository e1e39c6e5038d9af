r"""The command `blobkv`: look into a store, change it, check it, and back it up.

Keys, values, and bucket names are spelled as `blobkv.spelling` says. With `--json` every
command prints JSON, one object a line.

Commands that read open the store read-only: they run beside a live writer, wait for nobody,
and never make a store. `put` and `load` make one.

Exit status: 0 done; 1 it failed, or the key does not exist; 2 the call is wrong; 130
interrupted. An error is one line on standard error that says what to do.
"""

from __future__ import annotations

import functools
import json
import shlex
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from blobkv import Problem, Report, spelling
from blobkv import open as open_store
from blobkv.errors import BlobKVError, CorruptionError, UsageError
from blobkv.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from blobkv import Bucket, Store, Transaction

INTERRUPTED: Final = 130

_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}
_LOAD_BATCH_COUNT: Final = 1000
# What is true of the store, whoever has it open.
_TABLE_FIGURES: Final = "table_count", "table_size", "table_entries", "runs"
_FIGURES: Final = "sequence", *_TABLE_FIGURES, "memtable_count"


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments, or this process's; return the exit status."""
    try:
        status = blobkv.main(arguments, prog_name="blobkv", standalone_mode=False)
        with _printing():
            sys.stdout.flush()
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "blobkv"
        return _fail(f"{error.format_message()} (see: {command} --help)", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


class _PathFirst(click.Group):
    """A group whose commands show their help also where PATH is left out."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if len(args) == 2 and args[0] in self.commands and args[1] in ctx.help_option_names:
            args = ["PATH", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_PathFirst, context_settings=_SETTINGS, no_args_is_help=False)
@click.argument("path", type=click.Path())
@click.version_option(package_name="blobkv")
@click.pass_context
def blobkv(context: click.Context, path: str) -> None:
    r"""Look into, change, and check the store in the directory PATH, which comes first.

    Keys and values are text, in which \xNN is one byte and \\ a backslash; or see --hex. One
    that starts with a dash goes after "--", with which options end.

    Exit status: 0 done; 1 it failed, or the key does not exist; 2 the call is wrong.
    """
    if not path:
        raise click.UsageError('PATH is empty; "." is this directory')
    context.obj = Path(path)


@dataclass(frozen=True, slots=True)
class Call:
    """What commands share: where the store is, and how bytes are spelled."""

    path: Path
    as_json: bool
    as_hex: bool = False
    names: tuple[str, ...] = ()

    def decode(self, text: str) -> bytes:
        """Return the bytes that an argument spells; a wrong spelling is a wrong call."""
        try:
            return spelling.decode(text, as_hex=self.as_hex)
        except UsageError as error:
            raise click.UsageError(str(error)) from error

    def json(self, raw: bytes) -> str | dict[str, str]:
        """Return bytes as a JSON value to print."""
        return spelling.as_json(raw, as_hex=self.as_hex)

    def show(self, record: Mapping[str, object], text: str) -> None:
        """Print one result: `record` with `--json`, else `text`."""
        _print(json.dumps(record) if self.as_json else text)

    def show_bytes(self, **fields: bytes) -> None:
        """Print one result that is bytes: with `--json` by name, else with tabs between."""
        if self.as_json:
            _print(json.dumps({name: self.json(raw) for name, raw in fields.items()}))
        else:
            texts = [spelling.encode(raw, as_hex=self.as_hex) for raw in fields.values()]
            _print("\t".join(texts))

    def entries(self, txn: Transaction, *inner: bytes) -> Transaction | Bucket:
        """Return the bucket that `--bucket` names, and `inner` in it, or the transaction."""
        names = (*map(self.decode, self.names), *inner)
        return txn.bucket(*names) if names else txn

    @property
    def where(self) -> str:
        """The store and the bucket, for messages."""
        return "/".join([str(self.path), *self.names])

    def reading(self) -> Store:
        """Open the store beside any writer."""
        return self._open(create=False, read_only=True)

    def writing(self, wait: float, *, create: bool) -> Store:
        """Open the store for writing, alone."""
        return self._open(create=create, lock_timeout=wait)

    def _open(self, *, create: bool, **options: Any) -> Store:
        try:
            return open_store(self.path, create=create, **options)
        except UsageError as error:
            if create or isinstance(error.__cause__, NotADirectoryError):
                raise
            remedy = f"`blobkv {shlex.quote(str(self.path))} put KEY VALUE` makes one"
            raise click.ClickException(f"{self.path}: no store here; {remedy}") from error


def command(function: Callable[..., None]) -> click.Command:
    """Make a command of a function that takes a `Call` and its own parameters."""

    @click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
    @functools.wraps(function)
    @click.pass_obj
    def run_command(path: Path, /, **given: Any) -> None:
        shared = {name: given.pop(name) for name in Call.__slots__ if name in given}
        try:
            function(Call(path, **shared), **given)
        except (BlobKVError, OSError) as error:
            raise click.ClickException(spelling.explain(error, str(path))) from error

    return blobkv.command(name=function.__name__)(run_command)


def entry_command(function: Callable[..., None]) -> click.Command:
    """Make a command, as above, that is about entries: of which bucket, and how spelled."""
    return bucket_option(hex_option(command(function)))


hex_option = click.option("--hex", "as_hex", is_flag=True, help="Spell bytes in hexadecimal.")
bucket_option = click.option(
    "--bucket", "names", multiple=True, metavar="NAME", help="Enter a bucket; again: one in it."
)
seconds = click.FloatRange(min=0)
wait_option = click.option(
    "--wait", type=seconds, default=0.0, metavar="SECONDS", help="Wait for another writer."
)
prefix_option = click.option("--prefix", default="", metavar="KEY", help="Keys that start so.")
key_argument = click.argument("key")


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
        with _printing():
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
            _print(line)


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
            report = store.verify()
    except CorruptionError as error:
        # Too damaged to be opened, which is what to report, as any other problem.
        report = Report(problems=[Problem(error.path, error.offset, error.reason)])
    text = "\n".join(map(spelling.printable, str(report).splitlines()))
    call.show({"ok": report.ok, **asdict(report)}, text)
    if not report.ok:
        raise click.exceptions.Exit(1)


@command
@click.argument("target", metavar="DEST", type=click.Path(path_type=Path))
def backup(call: Call, target: Path) -> None:
    """Copy the store as it is now into the new directory DEST."""
    with call.reading() as store:
        store.backup(target)
    # Not the store's, which another process may have moved on.
    with open_store(target, read_only=True) as copy:
        sequence = copy.sequence
    text = f"backed up commit {sequence} to {spelling.printable(str(target))}"
    call.show({"path": str(target), "sequence": sequence}, text)


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


def _print(line: str) -> None:
    with _printing():
        sys.stdout.write(line + "\n")


@contextmanager
def _printing() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        # What cannot be written must not be tried again at exit.
        sys.stdout = sys.stderr
        raise click.ClickException(f"standard output: {error.strerror}") from error


def _fail(message: str, status: int) -> int:
    click.echo(f"blobkv: {spelling.printable(message)}", err=True)
    return status
