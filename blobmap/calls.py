"""What the commands share: where everything is, how to open it, print, and fail."""

from __future__ import annotations

import functools
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as Bar

import blobmap
from blobkv import BlobKVError, LockedError
from blobmap.errors import BlobMapError, FailedPrecondition, InvalidArgument, NotFound
from blobmap.local.choice import SNAPSHOTTERS
from blobmap.output import Column, shorten, show

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blobmap import BlobSnapshotter
    from blobmap.output import Record

_WAIT_SECONDS: Final = 5.0

# What stands in every root from the first open on; something else may be there as well.
_PARTS: Final = ("content", *SNAPSHOTTERS, "map")


@click.group(
    context_settings={"help_option_names": ["-h", "--help"]}, invoke_without_command=True
)
@click.option(
    "--root",
    envvar="BLOBMAP_ROOT",
    show_envvar=True,
    metavar="DIR",
    help="Where everything is kept.",
)
@click.option(
    "--wait",
    type=click.FloatRange(min=0),
    default=_WAIT_SECONDS,
    show_default=True,
    metavar="SECONDS",
    help="How long to wait for another who is using DIR.",
)
@click.version_option(package_name="blobkv")
@click.pass_context
def cli(context: click.Context, root: str | None, wait: float) -> None:
    """Keep images as snapshots and blobs, and know what holds what.

    \b
    For example:
      skopeo copy docker://debian:12 oci:debian:12
      blobmap --root store import debian
      blobmap --root store ls
      blobmap --root store export debian -o debian.tar

    Lists have a line of headings, and tabs between columns unless on a terminal; scripts
    should use --json. Exit status: 0 done, 1 failed or something found, 2 a wrong call.
    """  # noqa: D301  # Click takes the character, and keeps the lines as they are.
    if context.invoked_subcommand is None:
        click.echo(context.get_help(), err=True)
        context.exit(2)
    context.obj = (root, wait)


@dataclass(frozen=True, slots=True)
class Call:
    """What all commands share: where things are, how long to wait, and how to print."""

    root: Path
    wait: float
    as_json: bool

    @property
    def is_root(self) -> bool:
        """Whether something was imported here."""
        return (self.root / "map").is_dir()

    def open(self, *, create: bool = False, kind: str | None = None) -> BlobSnapshotter:
        """Open what is under the root; make it only if asked to."""
        if self.root.exists() and not self.root.is_dir():
            raise InvalidArgument(f"{self.root}: not a directory; give another --root")
        if create:
            self._refuse_foreign()
        elif not self.is_root:
            raise NotFound(
                f"{self.root}: nothing was imported here; see: blobmap import --help"
            )
        try:
            return blobmap.open(self.root, lock_timeout=self.wait, snapshotter=kind)
        except LockedError as error:
            holder = "another process" if error.pid is None else f"process {error.pid}"
            raise click.ClickException(
                f"{self.root}: {holder} is using it, still after {self.wait:g} s; "
                "try again later, or wait longer with --wait SECONDS"
            ) from error

    def show(self, records: Iterable[Record], columns: tuple[Column, ...]) -> None:
        """Print records."""
        show(records, columns, as_json=self.as_json)

    def _refuse_foreign(self) -> None:
        """Refuse to make a root of a directory in which there are other things."""
        if not self.root.is_dir() or any((self.root / part).is_dir() for part in _PARTS):
            return
        # A file system of one's own has a directory for what a check of it finds.
        if any(child.name != "lost+found" for child in self.root.iterdir()):
            raise FailedPrecondition(
                f"{self.root}: not empty, and nothing was imported here; "
                "give an empty or a new directory as --root"
            )


def command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes a `Call` and its own parameters."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
        @functools.wraps(function)
        @click.pass_context
        def run_command(context: click.Context, /, *, as_json: bool, **own: Any) -> None:
            root, wait = context.obj
            if not root:
                raise click.UsageError("Say where with --root DIR or BLOBMAP_ROOT.", context)
            if "" in own.values():
                raise click.UsageError("A name is empty.", context)
            with _failures():
                function(Call(Path(root), wait, as_json), **own)

        return cli.command(name=name)(run_command)

    return decorate


@contextmanager
def bar() -> Iterator[Callable[[str, str, int, int], None]]:
    """Show a progress bar on standard error, if that is a terminal.

    Yields what to call with what is done, the digest, its bytes done, and all its bytes.
    """
    if not sys.stderr.isatty():
        yield lambda _what, _digest, _done, _total: None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as shown:
        task = shown.add_task("open", total=None)

        def update(what: str, digest: str, done: int, total: int) -> None:
            about = f"{what} {shorten(digest)}"
            shown.update(task, description=about, completed=done, total=total)

        yield update


def said(error: OSError) -> str:
    """Return what the system says, and of which file."""
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what is raised on purpose, or by the disk, into one line and exit status 1."""
    try:
        yield
    except (BlobMapError, BlobKVError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(said(error)) from error
