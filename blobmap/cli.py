r"""The command `blobmap`: images in and out, see what holds what, and remove it again.

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
import sys
from dataclasses import asdict
from typing import TYPE_CHECKING, Final

import click

from blobmap import filters as filter_language
from blobmap import (
    keeping,  # noqa: F401  # Its commands are found in the group.
    listings,
    oci,
    short_names,
    verification,
)
from blobmap.calls import bar, cli, command, said
from blobmap.errors import FailedPrecondition, InvalidArgument
from blobmap.local.choice import AUTO, SNAPSHOTTERS
from blobmap.output import (
    complete_streams,
    printable,
    show_json,
    show_text,
    with_printable_findings,
    with_printable_names,
)

if TYPE_CHECKING:
    from blobmap.calls import Call
    from blobmap.output import Record

INTERRUPTED: Final = 130

# The options that all commands share, which click takes before the command's name only.
_SHARED: Final = frozenset({"--root", "--wait"})


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
        return _fail(said(error), 1)
    return status if isinstance(status, int) else 0


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
    with call.open(create=True, kind=snapshotter) as target, bar() as show_progress:

        def progress(event: oci.Progress) -> None:
            show_progress(event.stage.value, event.digest, event.done, event.total)

        imported = oci.import_layout(target, layout, progress=progress, ref=ref)
    call.show(map(listings.image, imported), listings.IMAGES)


@command("export")
@click.argument("name", metavar="IMAGE|SNAPSHOT")
@click.option("--output", "-o", required=True, metavar="LAYOUT", help="Where to.")
@click.option("--ref", metavar="NAME", help="The image's name there.")
@click.option(
    "--compression",
    type=click.Choice(oci.COMPRESSIONS),
    default=oci.COMPRESSIONS[0],
    show_default=True,
    help="Of layers that a snapshot has none of yet.",
)
@click.option("--level", type=int, metavar="N", help="How hard to compress those.")
@click.option("--clamp-mtime", type=int, metavar="SECONDS", help="Their latest time of a file.")
@click.option("--rewrite", is_flag=True, help="Write a new manifest if need be; see above.")
def export(
    call: Call,
    name: str,
    output: str,
    ref: str | None,
    compression: str,
    level: int | None,
    clamp_mtime: int | None,
    *,
    rewrite: bool,
) -> None:
    """Write an image, or a snapshot and all below it, to LAYOUT.

    LAYOUT is an OCI image layout: one that is there gets one image more, of the same name
    replaces it; else a new directory, or a tar if it ends in .tar; "-" is a tar on standard
    output, and prints nothing else there.

    An image keeps its digests. If a layer is here under another compression only, that is
    refused, or the image gets a new manifest with --rewrite. A snapshot that stands for no
    blob stands for its layer afterwards. Of a name that both have, it is the image.

    Columns: NAME, MANIFEST, LAYERS, SIZE.
    """
    to: str | oci.Sink = output
    if output == "-":
        if sys.stdout.isatty():
            raise click.UsageError("A terminal takes no tar.", click.get_current_context())
        to = sys.stdout.buffer
    with call.open() as target, bar() as show_progress:

        def progress(event: oci.Progress) -> None:
            show_progress(event.stage.value, event.digest, event.done, event.total)

        kind, found = short_names.image_or_snapshot(target, name)
        if kind == "image":
            exported = oci.export_layout(
                target, found, to, ref=ref, rewrite=rewrite, progress=progress
            )
        else:
            exported = oci.export_snapshot(
                target,
                found,
                to,
                name=ref or found,
                compression=compression,
                level=level,
                clamp_mtime=clamp_mtime,
                progress=progress,
            )
    if output == "-":
        sys.stdout.buffer.flush()
    else:
        call.show([asdict(exported)], listings.EXPORTED)


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
@click.option("--dry-run", is_flag=True, help="Only print what would go, and how many bytes.")
def rm(call: Call, name: str, *, dry_run: bool) -> None:
    """Remove an image or a snapshot, and their blobs.

    An image goes with its snapshots; what another image or snapshot needs stays. A snapshot
    that an image lists is not removed alone. Of a name that both have, it is the image.

    Of a snapshot's name that is a digest, the first digits will do, at least four, with or
    without "sha256:", if no other starts so.
    """
    if dry_run:
        with call.open() as target:
            kind, found = short_names.image_or_snapshot(target, name)
            planned = target.plan_image_removal if kind == "image" else target.plan_removal
            plan = planned(found)
        if call.as_json:
            show_json({"would_remove": kind, "name": found, **listings.plan(plan)})
        else:
            show_text(*(f"snapshot {key}" for key in map(printable, plan.snapshots)))
            show_text(*(f"blob {blob.digest} {blob.size}" for blob in plan.blobs))
            show_text(f"{plan.size} bytes would come free")
        return
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
    with call.open() as target, bar() as show_progress:
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


def _fail(message: str, status: int) -> int:
    click.echo(f"blobmap: {printable(message)}", err=True)
    return status
