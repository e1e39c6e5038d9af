r"""The command `blobmap`: import images, see what holds what, and remove it again.

What is printed, and how, is in `blobmap.output`; with `--json`, one object a line.

Commands that only look never make a directory. Exit status: 0 done; 1 it failed, or
`reconcile` found what it did not repair; 2 the call is wrong; 130 interrupted. An error is one
line on standard error that says what to do. Warnings and the progress bar go there as well.
"""

from __future__ import annotations

import functools
import logging
import re
import sys
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn
from rich.progress import Progress as Bar

import blobmap
from blobkv import BlobKVError
from blobmap import oci
from blobmap.errors import BlobMapError, NotFound
from blobmap.output import Column, printable, shorten, show, show_json

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from blobmap import BlobSnapshotter, Image, Info
    from blobmap.output import Record

INTERRUPTED: Final = 130

_SHORT_DIGEST: Final = re.compile(r"[0-9a-f]{12,64}")

_IMAGE_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("MANIFEST", "digest"),
    Column("LAYERS", "layers"),
    Column("CREATED", "created"),
)
_SNAPSHOT_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("PARENT", "parent"),
    Column("BLOB", "blob.digest"),
    Column("BLOB SIZE", "blob.size", is_size=True),
)
_BLOB_COLUMNS: Final = (
    Column("DIGEST", "digest"),
    Column("SIZE", "size", is_size=True),
    Column("HELD BY", "holders"),
    Column("MEDIA TYPE", "media_type"),
)
_USAGE_COLUMNS: Final = (
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("BLOB", "blob"),
    Column("EXCLUSIVE", "exclusive", is_size=True),
    Column("SHARED", "shared", is_size=True),
)


def run() -> int:
    """Run the command with this process's arguments; return the exit status."""
    logging.getLogger("blobmap").addHandler(_Warnings())
    try:
        status = cli.main(prog_name="blobmap", standalone_mode=False)
    except click.UsageError as error:
        command = error.ctx.command_path if error.ctx is not None else "blobmap"
        return _fail(f"{error.format_message()} See: {command} --help", error.exit_code)
    except click.ClickException as error:
        return _fail(error.format_message(), error.exit_code)
    except click.Abort:
        return INTERRUPTED
    return status if isinstance(status, int) else 0


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--root",
    type=click.Path(path_type=Path),
    envvar="BLOBMAP_ROOT",
    show_envvar=True,
    metavar="DIR",
    help="Where everything is kept.",
)
@click.version_option(package_name="blobkv")
@click.pass_context
def cli(context: click.Context, root: Path | None) -> None:
    """Keep images as snapshots and blobs, and know what holds what.

    \b
    For example:
      skopeo copy docker://debian:12 oci:debian:12
      blobmap --root store import debian
      blobmap --root store ls
    """  # noqa: D301 - click takes the character, and keeps the lines as they are.
    context.obj = root


@dataclass(frozen=True, slots=True)
class Call:
    """What all commands share: where things are, and how to print."""

    root: Path
    as_json: bool

    def open(self, *, create: bool = False) -> BlobSnapshotter:
        """Open what is under the root; make it only if asked to."""
        if not create and not (self.root / "map").is_dir():
            raise NotFound(
                f"{self.root}: nothing was imported here; see: blobmap import --help"
            )
        return blobmap.open(self.root)

    def show(self, records: Iterable[Record], columns: tuple[Column, ...]) -> None:
        """Print records."""
        show(records, columns, as_json=self.as_json)


def command(name: str) -> Callable[[Callable[..., None]], click.Command]:
    """Make a command of a function that takes a `Call` and its own parameters."""

    def decorate(function: Callable[..., None]) -> click.Command:
        @click.option("--json", "as_json", is_flag=True, help="Print JSON, one object a line.")
        @functools.wraps(function)
        @click.pass_context
        def run_command(context: click.Context, /, *, as_json: bool, **own: Any) -> None:
            if context.obj is None:
                raise click.UsageError("Say where with --root DIR or BLOBMAP_ROOT.", context)
            with _failures():
                function(Call(context.obj, as_json), **own)

        return cli.command(name=name)(run_command)

    return decorate


@command("import")
@click.argument("layout", type=click.Path(path_type=Path))
@click.option("--ref", metavar="NAME", help="Only the image of this name.")
def import_(call: Call, layout: Path, ref: str | None) -> None:
    """Import the images of LAYOUT, and print them.

    LAYOUT is an OCI image layout: a directory, or a tar of one, plain, gzip, or zstd. An image
    of the same name is replaced. A layer that is there already is not stored twice.
    """
    with call.open(create=True) as target, _bar() as progress:
        imported = oci.import_layout(target, layout, progress=progress, ref=ref)
    call.show(map(_image_record, imported), _IMAGE_COLUMNS)


@command("images")
def images(call: Call) -> None:
    """Print the images."""
    with call.open() as target:
        call.show(map(_image_record, target.images()), _IMAGE_COLUMNS)


@command("ls")
@click.argument("filters", metavar="[FILTER]...", nargs=-1)
def ls(call: Call, filters: tuple[str, ...]) -> None:
    """Print the snapshots, each with the blob it stands for.

    With FILTERs, those that some filter matches. A filter is in containerd's language:

    \b
      kind==committed               of a kind
      parent~=^sha256:              a pattern
      labels.mine==yes,blob         several conditions; has a blob
    """  # noqa: D301 - as above.
    with call.open() as target:
        call.show(map(_snapshot_record, target.walk(*filters)), _SNAPSHOT_COLUMNS)


@command("blobs")
def blobs(call: Call) -> None:
    """Print the blobs that snapshots and images hold."""
    with call.open() as target:
        call.show(_blob_records(target), _BLOB_COLUMNS)


@command("usage")
def usage(call: Call) -> None:
    """Print what each snapshot costs in bytes, and last the total.

    EXCLUSIVE goes when the snapshot goes. SHARED is its blob, if something else holds that
    too; the total counts it once.
    """
    with call.open() as target:
        rows = target.disk_usage()
    shared = sum(rows.shared.values())
    total: Record = {"exclusive": rows.size - shared, "shared": shared}
    if call.as_json:
        call.show(map(_usage_record, rows), _USAGE_COLUMNS)
        show_json({"total": {**total, "size": rows.size}})
    else:
        call.show([*map(_usage_record, rows), {"name": "total", **total}], _USAGE_COLUMNS)


@command("explain")
@click.argument("digest")
def explain(call: Call, digest: str) -> None:
    """Print who holds the blob DIGEST, and who holds those, as a tree.

    The first digits of the digest will do, if no other blob's starts so.
    """
    with call.open() as target:
        known = {info.digest for info in target.content.walk()}
        known |= {blob.digest for blob in target.blobs()}
        explanation = target.explain(_resolve(digest, known))
    if call.as_json:
        show_json(asdict(explanation))
    else:
        click.echo("\n".join(printable(line) for line in str(explanation).split("\n")))


@command("rm")
@click.argument("name", metavar="IMAGE|SNAPSHOT")
def rm(call: Call, name: str) -> None:
    """Remove an image with its snapshots, or one snapshot; and their blobs.

    What another image or snapshot needs stays. Of a name that both have, it is the image.
    """
    with call.open() as target:
        kind = _remove(target, name)
    if call.as_json:
        show_json({"removed": kind, "name": name})


@command("reconcile")
@click.option("--dry-run", is_flag=True, help="Only look.")
@click.option("--force", is_flag=True, help="Repair even if much would be dropped.")
def reconcile(call: Call, *, dry_run: bool, force: bool) -> None:
    """Compare the map with the snapshots and the content, and repair it.

    Exit status 1 if something was found that is not repaired.
    """
    with call.open() as target:
        report = target.reconcile(dry_run=dry_run, force=force)
    if call.as_json:
        show_json(_report_record(report))
    else:
        click.echo("\n".join(printable(line) for line in str(report).split("\n")))
    if not report.ok:
        raise click.exceptions.Exit(1)


def _image_record(image: Image) -> Record:
    return {
        "name": image.name,
        "digest": image.digest,
        "blobs": list(image.blobs),
        "snapshots": list(image.snapshots),
        "layers": len(image.snapshots),
        "created": image.created.isoformat(timespec="seconds"),
    }


def _snapshot_record(info: Info) -> Record:
    return {
        "name": info.name,
        "parent": info.parent,
        "kind": info.kind.value,
        "labels": dict(info.labels),
        "created": None if info.created is None else info.created.isoformat(),
        "updated": None if info.updated is None else info.updated.isoformat(),
        "blob": None if info.blob is None else asdict(info.blob),
    }


def _blob_records(target: BlobSnapshotter) -> Iterator[Record]:
    for blob in target.blobs():
        yield {**asdict(blob), "holders": target.references(blob.digest)}


def _usage_record(row: blobmap.UsageRow) -> Record:
    return {
        "name": row.name,
        "kind": row.kind.value,
        "blob": None if row.blob is None else row.blob.digest,
        "exclusive": row.exclusive,
        "shared": row.shared,
        "missing": row.missing,
    }


def _report_record(report: blobmap.Report) -> Record:
    return {
        "ok": report.ok,
        "dry_run": report.dry_run,
        "edge_count": report.edge_count,
        "snapshot_count": report.snapshot_count,
        "blob_count": report.blob_count,
        "content_count": report.content_count,
        "unowned_count": report.unowned_count,
        "counts": dict(report.counts),
        "repaired": report.repaired,
        "findings": [asdict(finding) for finding in report.findings],
    }


def _remove(target: BlobSnapshotter, name: str) -> str:
    """Remove what has the name; return what it was."""
    try:
        target.remove_image(name)
    except NotFound:
        target.remove(_snapshot_named(target, name))
        return "snapshot"
    return "image"


def _snapshot_named(target: BlobSnapshotter, name: str) -> str:
    """Return the snapshot of that name, or the one whose digest a table shows so."""
    with suppress(NotFound):
        return target.stat(name).name
    names: list[str] = []
    if _SHORT_DIGEST.fullmatch(name):
        names = [info.name for info in target.walk(f"name~=^sha256:{name}")]
    if len(names) > 1:
        raise click.UsageError(f"{name} could be {len(names)} snapshots: give more digits.")
    if not names:
        raise NotFound(f"{name}: no image and no snapshot; see: images, ls")
    return names[0]


def _resolve(digest: str, known: Iterable[str]) -> str:
    """Return the one known digest that starts so."""
    start = digest if ":" in digest else f"sha256:{digest}"
    found = sorted(name for name in known if name.startswith(start))
    if len(found) > 1:
        raise click.UsageError(f"{digest} could be {len(found)} blobs: give more digits.")
    if not found:
        raise NotFound(f"{digest}: no blob's digest starts so; see: blobs")
    return found[0]


@contextmanager
def _bar() -> Iterator[Callable[[oci.Progress], None] | None]:
    """Show a progress bar on standard error if that is a terminal."""
    if not sys.stderr.isatty():
        yield None
        return
    columns = TextColumn("{task.description}"), BarColumn(), DownloadColumn()
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("open", total=None)

        def update(event: oci.Progress) -> None:
            what = f"{event.stage.value} {shorten(event.digest)}"
            bar.update(task, description=what, completed=event.done, total=event.total)

        yield update


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
    except BrokenPipeError:
        # Whoever read the output has seen enough; click knows how to leave.
        raise
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        raise click.ClickException(f"{where}{error.strerror or error}") from error


def _fail(message: str, status: int) -> int:
    click.echo(f"blobmap: {printable(message)}", err=True)
    return status
