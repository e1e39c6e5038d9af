r"""The command `blobkv`: look into a store, change it, check it, and back it up.

Keys, values, and bucket names are spelled as `blobkv.spelling` says. With `--json` every
command prints JSON, one object a line.

Commands that read open the store read-only: they run beside a live writer, wait for nobody,
and never make a store. `put` makes one.

Exit status: 0 done; 1 it failed, or the key does not exist; 2 the call is wrong. An error is
one line on standard error that says what to do.
"""

from __future__ import annotations

import functools
import json
import sys
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from blobkv import open as open_store
from blobkv import spelling
from blobkv.errors import BlobKVError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from blobkv import Bucket, Store, Transaction


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.argument("path", type=click.Path(path_type=Path))
@click.version_option(package_name="blobkv")
@click.pass_context
def blobkv(context: click.Context, path: Path) -> None:
    r"""Look into, change, and check the store in the directory PATH.

    Keys and values are text, in which \xNN is one byte and \\ a backslash; or see --hex.
    """
    context.obj = path


@dataclass(frozen=True, slots=True)
class Call:
    """What all commands share: where the store is, and how bytes are spelled."""

    path: Path
    as_hex: bool
    as_json: bool
    names: tuple[str, ...]

    def decode(self, text: str) -> bytes:
        """Return the bytes that an argument spells; a wrong spelling is a wrong call."""
        try:
            return spelling.decode(text, as_hex=self.as_hex)
        except UsageError as error:
            raise click.UsageError(str(error)) from error

    def encode(self, raw: bytes) -> str:
        """Return bytes as text to print."""
        return spelling.encode(raw, as_hex=self.as_hex)

    def show(self, record: Mapping[str, object], text: str) -> None:
        """Print one result: `record` with `--json`, else `text`."""
        click.echo(json.dumps(record) if self.as_json else text)

    def entries(self, txn: Transaction) -> Transaction | Bucket:
        """Return the bucket that `--bucket` names, or the transaction itself."""
        return txn.bucket(*map(self.decode, self.names)) if self.names else txn

    def reading(self) -> Store:
        """Open the store beside any writer."""
        return self._open(read_only=True)

    def writing(self, wait: float, *, create: bool) -> Store:
        """Open the store for writing, alone."""
        return self._open(create=create, lock_timeout=wait)

    def _open(self, **options: Any) -> Store:
        try:
            return open_store(self.path, **options)
        except UsageError as error:
            remedy = f"`blobkv {self.path} put KEY VALUE` makes one"
            raise click.ClickException(f"{self.path}: no store here; {remedy}") from error


def command(function: Callable[..., None]) -> click.Command:
    """Make a command of a function that takes a `Call` and its own parameters."""

    @click.option(
        "--bucket",
        "names",
        multiple=True,
        metavar="NAME",
        help="Enter a bucket; again: one in it.",
    )
    @click.option("--hex", "as_hex", is_flag=True, help="Bytes are hexadecimal, in and out.")
    @click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
    @functools.wraps(function)
    @click.pass_obj
    def run(
        path: Path, /, names: tuple[str, ...], *, as_hex: bool, as_json: bool, **own: Any
    ) -> None:
        with _failures():
            function(Call(path, as_hex, as_json, names), **own)

    return blobkv.command(name=function.__name__)(run)


wait = click.option("--wait", default=0.0, metavar="SECONDS", help="Wait for another writer.")
key_argument = click.argument("key")


@command
@key_argument
@click.option("--raw", is_flag=True, help="Write the value's bytes as they are, no newline.")
def get(call: Call, key: str, *, raw: bool) -> None:
    """Print the value of KEY."""
    with call.reading() as store, store.view() as txn:
        value = call.entries(txn).get(call.decode(key))
    if value is None:
        raise _absent(call, key)
    if raw:
        sys.stdout.buffer.write(value)
        return
    record = {"key": spelling.as_json(call.decode(key)), "value": spelling.as_json(value)}
    call.show(record, call.encode(value))


@command
@key_argument
@click.argument("value")
@wait
def put(call: Call, key: str, value: str, *, wait: float) -> None:
    """Set KEY to VALUE; "-" reads the value's bytes from standard input."""
    raw = sys.stdin.buffer.read() if value == "-" else call.decode(value)
    name = call.decode(key)
    with call.writing(wait, create=True) as store, store.update() as txn:
        call.entries(txn).put(name, raw)
    if call.as_json:
        call.show({"key": spelling.as_json(name), "size": len(raw)}, "")


@command
@key_argument
@wait
def delete(call: Call, key: str, *, wait: float) -> None:
    """Delete KEY; exit status 1 if it does not exist."""
    name = call.decode(key)
    with call.writing(wait, create=False) as store, store.update() as txn:
        entries = call.entries(txn)
        if name not in entries:
            raise _absent(call, key)
        entries.delete(name)
    if call.as_json:
        call.show({"key": spelling.as_json(name)}, "")


@command
@click.option("--prefix", default="", metavar="KEY", help="Only keys that start so.")
@click.option("--start", metavar="KEY", help="Only keys at or past this one.")
@click.option("--stop", metavar="KEY", help="Only keys before this one.")
@click.option("--reverse", is_flag=True, help="From the last key to the first.")
@click.option("--limit", type=click.IntRange(min=0), help="At most so many.")
@click.option("--keys-only", is_flag=True, help="Leave the values out.")
def scan(
    call: Call,
    prefix: str,
    start: str | None,
    stop: str | None,
    *,
    reverse: bool,
    limit: int | None,
    keys_only: bool,
) -> None:
    """Print keys and values in key order, a tab between them."""
    with call.reading() as store, store.view() as txn:
        pairs = call.entries(txn).items(
            prefix=call.decode(prefix),
            start=None if start is None else call.decode(start),
            stop=None if stop is None else call.decode(stop),
            reverse=reverse,
        )
        for key, value in islice(pairs, limit):
            if keys_only:
                call.show({"key": spelling.as_json(key)}, call.encode(key))
            else:
                record = {"key": spelling.as_json(key), "value": spelling.as_json(value)}
                call.show(record, f"{call.encode(key)}\t{call.encode(value)}")


@command
def dump(call: Call) -> None:
    """Print every entry of every bucket as JSON, one a line, whatever the options."""
    with call.reading() as store, store.view() as txn:
        for names, key, value in _walk(call.entries(txn), ()):
            record = {
                "bucket": [spelling.as_json(name) for name in names],
                "key": spelling.as_json(key),
                "value": spelling.as_json(value),
            }
            click.echo(json.dumps(record))


@command
def stats(call: Call) -> None:
    """Print the store's figures."""
    with call.reading() as store:
        figures = asdict(store.stats())
    call.show(figures, "\n".join(f"{name}\t{figure}" for name, figure in figures.items()))


@command
def verify(call: Call) -> None:
    """Read and check every byte; exit status 1 if anything is wrong."""
    with call.reading() as store:
        report = store.verify()
    call.show({"ok": report.ok, **asdict(report)}, str(report))
    if not report.ok:
        raise click.exceptions.Exit(1)


@command
@click.argument("target", metavar="DEST", type=click.Path(path_type=Path))
def backup(call: Call, target: Path) -> None:
    """Copy the store as it is now into the new directory DEST."""
    with call.reading() as store:
        store.backup(target)
        sequence = store.sequence
    call.show({"path": str(target), "sequence": sequence}, f"{target}: commit {sequence}")


def _walk(
    entries: Transaction | Bucket, names: tuple[bytes, ...]
) -> Iterator[tuple[tuple[bytes, ...], bytes, bytes]]:
    for key, value in entries.items():
        yield names, key, value
    for name in entries.buckets():
        yield from _walk(entries.bucket(name), (*names, name))


def _absent(call: Call, key: str) -> click.ClickException:
    return click.ClickException(
        f"{key}: no such key in {'/'.join([str(call.path), *call.names])}"
    )


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what the store or the disk reports into one line and exit status 1."""
    try:
        yield
    except BlobKVError as error:
        raise click.ClickException(str(error)) from error
    except BrokenPipeError:
        # Whoever read the output has seen enough; click knows how to leave.
        raise
    except OSError as error:
        raise click.ClickException(f"{error.filename or 'disk'}: {error.strerror}") from error
