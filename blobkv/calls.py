"""What the commands share: where the store is, how bytes are spelled, what is shown."""

from __future__ import annotations

import functools
import json
import shlex
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from blobkv import open as open_store
from blobkv import spelling
from blobkv.errors import BlobKVError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from blobkv import Bucket, Store, Transaction

_SETTINGS: Final = {"help_option_names": ["-h", "--help"]}


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
        print_line(json.dumps(record) if self.as_json else text)

    def show_bytes(self, **fields: bytes) -> None:
        """Print one result that is bytes: with `--json` by name, else with tabs between."""
        if self.as_json:
            print_line(json.dumps({name: self.json(raw) for name, raw in fields.items()}))
        else:
            texts = [spelling.encode(raw, as_hex=self.as_hex) for raw in fields.values()]
            print_line("\t".join(texts))

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


def show_progress(done: int, total: int) -> None:
    """Say on a terminal how much of a long work is done."""
    if sys.stderr.isatty() and total:
        click.echo(f"{100 * done // total} %\r", err=True, nl=False)


def print_line(line: str) -> None:
    """Print one line; a failure to is one to report."""
    with printing():
        sys.stdout.write(line + "\n")


@contextmanager
def printing() -> Iterator[None]:
    """Report what is raised when standard output cannot be written."""
    try:
        yield
    except OSError as error:
        # What cannot be written must not be tried again at exit.
        sys.stdout = sys.stderr
        raise click.ClickException(f"standard output: {error.strerror}") from error
