r"""The command `blobmap`: import images, see what holds what, and remove it again.

What is printed, and how, is in `blobmap.output` and `blobmap.listings`; what a name on the
command line means, in `blobmap.short_names`.

Commands that only look never make a directory. Exit status: 0 done; 1 it failed, or
`reconcile` or `verify` found what is not repaired; 2 the call is wrong; 130 interrupted. An
error is one line on standard error that says what to do. Warnings and the progress bar go
there as well.
"""

from __future__ import annotations

import functools
import logging
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

import blobmap
from blobkv import BlobKVError, LockedError
from blobmap import filters as filter_language
from blobmap import listings, oci, short_names, verification
from blobmap.errors import BlobMapError, FailedPrecondition, InvalidArgument, NotFound
from blobmap.local.choice import AUTO, SNAPSHOTTERS
from blobmap.output import (
    Column,
    complete_streams,
    printable,
    progress_bar,
    show,
    show_json,
    show_text,
    with_printable_findings,
    with_printable_names,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blobmap import BlobSnapshotter
    from blobmap.output import Record

INTERRUPTED: Final = 130

# The options that all commands share, which click takes before the command's name only.
_SHARED: Final = frozenset({"--root", "--wait"})

_WAIT_SECONDS: Final = 5.0

# What stands in every root from the first open on; something else may be there as well.
_PARTS: Final = ("content", *SNAPSHOTTERS, "map")


def run() -> int:
    """Run the command with this process's arguments; return the exit status."""
    complete_streams()
    logging.getLogger("blobmap").addHandler(_Warnings())
    try:
        status = cli.main(prog_name="blobmap", standalone_mode=False)
    except click.UsageError as error:
        place = "blobmap" if error.ctx is None else error.ctx.command_path
        message = error.format_message()
        if isinstance(error, click.NoSuchOption) and error.option_name in _SHARED:
            name = place.removeprefix("blobmap ")
            message = f"Say it first: blobmap {error.option_name} ... {name}."
        return _fail(f"{message} See: {place} --help", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return INTERRUPTED
    except OSError as error:
        # Only what click prints itself, such as help, is printed out here.
        return _fail(_said(error), 1)
    return status if isinstance(status, int) else 0


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


@command("import")
@click.argument("layout")
@click.option("--ref", metavar="NAME", help="Only the image of this name.")
@click.option(
    "--snapshotter",
    type=click.Choice([AUTO, *SNAPSHOTTERS]),
    help="How a new DIR keeps trees: native (copies, the default), overlay (mounts), or auto "
    "(overlay where it can be mounted).",
)
def import_(call: Call, layout: str, ref: str | None, snapshotter: str | None) -> None:
    """Import the images of LAYOUT, and print them.

    LAYOUT is an OCI image layout: a directory, or a tar of one, plain, gzip, or zstd. An image
    of the same name is replaced. A layer that is there already is not stored twice.

    Columns: NAME, MANIFEST, LAYERS, CREATED.
    """
    if not call.is_root:
        oci.probe_layout(layout, ref=ref)
    with call.open(create=True, kind=snapshotter) as target, progress_bar() as show_progress:

        def progress(event: oci.Progress) -> None:
            show_progress(event.stage.value, event.digest, event.done, event.total)

        imported = oci.import_layout(target, layout, progress=progress, ref=ref)
    call.show(map(listings.image, imported), listings.IMAGES)


@command("images")
def images(call: Call) -> None:
    """Print the images.

    Columns: NAME, MANIFEST, LAYERS, CREATED.
    """
    with call.open() as target:
        call.show(map(listings.image, target.images()), listings.IMAGES)


@command("ls")
@click.argument("filters", metavar="[FILTER]...", nargs=-1)
def ls(call: Call, filters: tuple[str, ...]) -> None:
    """Print the snapshots, each with the blob it stands for.

    Columns: NAME, KIND, PARENT, BLOB, BLOB SIZE.

    With FILTERs, those that some filter matches. A filter is in containerd's language:

    \b
      kind==committed               of a kind
      parent~=^sha256:              a pattern
      labels.mine==yes,blob         several conditions; has a blob

    Fields are name, parent, kind, labels.KEY, blob, blob.digest, blob.diff_id, and
    blob.media_type. Any other is absent, and equal to nothing but "".
    """  # noqa: D301  # As above.
    try:
        filter_language.parse(*filters)
    except InvalidArgument as error:
        raise click.UsageError(f"{error}.", click.get_current_context()) from error
    with call.open() as target:
        call.show(map(listings.snapshot, target.walk(*filters)), listings.SNAPSHOTS)


@command("blobs")
def blobs(call: Call) -> None:
    """Print the blobs that snapshots and images hold.

    Columns: DIGEST, SIZE, HELD BY (how many do), MEDIA TYPE (where a snapshot stands for it).
    """
    with call.open() as target:
        call.show(listings.blobs(target), listings.BLOBS)


@command("usage")
def usage(call: Call) -> None:
    """Print what each snapshot costs in bytes, and last the total.

    Columns: NAME, KIND, BLOB, EXCLUSIVE, SHARED. EXCLUSIVE goes when the snapshot goes. SHARED
    is its blob, if something else holds that too; the total counts it once.
    """
    with call.open() as target:
        rows = target.disk_usage()
    shared = sum(rows.shared.values())
    total: Record = {"exclusive": rows.size - shared, "shared": shared}
    if call.as_json:
        call.show(map(listings.usage, rows), listings.USAGE)
        show_json({"total": {**total, "size": rows.size}})
    else:
        call.show([*map(listings.usage, rows), {"name": "total", **total}], listings.USAGE)


@command("explain")
@click.argument("name", metavar="DIGEST|SNAPSHOT")
def explain(call: Call, name: str) -> None:
    """Print who holds a blob, and who holds those, as a tree.

    Of a SNAPSHOT, the blob it stands for. Of a digest, or of a snapshot's name that is one,
    the first digits will do, at least four, with or without "sha256:", if no other starts so.
    """
    with call.open() as target:
        digest, snapshot = short_names.blob_of(target, name)
        explanation = target.explain(digest)
    if call.as_json:
        show_json({"snapshot": snapshot, **asdict(explanation)})
        return
    if snapshot is not None:
        show_text(f"snapshot {snapshot} stands for")
    show_text(*str(with_printable_names(explanation)).split("\n"))


@command("rm")
@click.argument("name", metavar="IMAGE|SNAPSHOT")
def rm(call: Call, name: str) -> None:
    """Remove an image or a snapshot, and their blobs.

    An image goes with its snapshots; what another image or snapshot needs stays. A snapshot
    that an image lists is not removed alone. Of a name that both have, it is the image.

    Of a snapshot's name that is a digest, the first digits will do, at least four, with or
    without "sha256:", if no other starts so.
    """
    with call.open() as target:
        kind, removed = short_names.remove(target, name)
    if call.as_json:
        show_json({"removed": kind, "name": removed})


@command("reconcile")
@click.option("--dry-run", is_flag=True, help="Only look.")
@click.option("--force", is_flag=True, help="Repair even if much would be dropped.")
def reconcile(call: Call, *, dry_run: bool, force: bool) -> None:
    """Compare map, snapshots, and content; repair the map.

    Names and sizes are compared; for the bytes, see verify. Exit status 1 if something was
    found that is not repaired.
    """
    refused = None
    with call.open() as target:
        try:
            report = target.reconcile(dry_run=dry_run, force=force)
        except FailedPrecondition as error:
            refused = f"{error} with --force"
            report = target.reconcile(dry_run=True)
    if call.as_json:
        show_json(listings.report(report, refused=refused))
    else:
        show_text(*str(with_printable_findings(report)).split("\n"))
    if refused is not None:
        raise click.ClickException(refused)
    if not report.ok:
        raise click.exceptions.Exit(1)


@command("verify")
def verify(call: Call) -> None:
    """Read every blob, and compare its bytes with its digest.

    Exit status 1 if one is damaged, or missing.
    """
    with call.open() as target, progress_bar() as show_progress:
        progress = functools.partial(show_progress, "verify")
        result = verification.verify(target, progress=progress)
    if call.as_json:
        show_json(listings.verification(result))
    else:
        show_text(*str(result).split("\n"))
    if not result.ok:
        raise click.exceptions.Exit(1)


class _Warnings(logging.Handler):
    """Prints what the library logs, a line each."""

    def emit(self, record: logging.LogRecord) -> None:
        click.echo(f"blobmap: warning: {printable(record.getMessage())}", err=True)


@contextmanager
def _failures() -> Iterator[None]:
    """Turn what is raised on purpose, or by the disk, into one line and exit status 1."""
    try:
        yield
    except (BlobMapError, BlobKVError) as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        raise click.ClickException(_said(error)) from error


def _said(error: OSError) -> str:
    where = f"{error.filename}: " if error.filename else ""
    return f"{where}{error.strerror or error}"


def _fail(message: str, status: int) -> int:
    click.echo(f"blobmap: {printable(message)}", err=True)
    return status
