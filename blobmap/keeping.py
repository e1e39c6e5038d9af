"""The commands that tell what is kept, for how long, what is to go, and what went and why."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Final

import click

from blobmap import listings, short_names
from blobmap.calls import command
from blobmap.output import show_json

if TYPE_CHECKING:
    from blobmap.calls import Call

_HOUR: Final = 3600.0


@command("refs")
@click.argument("name", metavar="SNAPSHOT")
def refs(call: Call, name: str) -> None:
    """Print which blobs a snapshot refers to, each by its role.

    Columns: ROLE, BLOB, BLOB SIZE, POLICY (retain: it keeps the blob; know: it does not),
    MEDIA TYPE.
    """
    with call.open() as target:
        key = short_names.snapshot(target, name)
        references = target.references_of(key)
        metadata = target.metadata(key)
    if call.as_json:
        rows = list(map(listings.reference, references))
        show_json({"snapshot": key, "references": rows, "metadata": metadata})
    else:
        call.show(map(listings.reference, references), listings.REFERENCES)


@command("pending")
def pending(call: Call) -> None:
    """Print the blobs that are to be deleted and could not be yet.

    Columns: DIGEST, SIZE, SINCE, CAUSE (what let go of it last), FAILURE.

    To open the store tries each of them again, so what is printed failed just now.
    """
    with call.open() as target:
        call.show(map(listings.pending, target.pending()), listings.PENDING)


@command("events")
@click.option(
    "--after",
    type=click.IntRange(min=0),
    default=0,
    metavar="POSITION",
    help="Only what came later.",
)
@click.option("--digest", metavar="DIGEST", help="Only what happened to this blob.")
def events(call: Call, after: int, digest: str | None) -> None:
    """Print what happened to blobs, in order, and why.

    Columns: POSITION, TIME, EVENT (link, unlink, or delete), DIGEST, HOLDER, CAUSE.
    """
    with call.open() as target:
        found = target.events(after=after)
        call.show(
            (listings.event(each) for each in found if digest in {None, each.digest}),
            listings.EVENTS,
        )


@command("leases")
def leases(call: Call) -> None:
    """Print the leases, which keep blobs until a time.

    Columns: NAME, EXPIRES, BLOBS (how many), CREATED.
    """
    with call.open() as target:
        rows = [listings.lease(target, info) for info in target.leases()]
        call.show(rows, listings.LEASES)


@command("lease")
@click.argument("name")
@click.argument("digests", metavar="DIGEST...", nargs=-1, required=True)
@click.option(
    "--hours",
    type=click.FloatRange(min=0, min_open=True),
    default=24.0,
    show_default=True,
    help="How long to keep them.",
)
def lease(call: Call, name: str, digests: tuple[str, ...], hours: float) -> None:
    """Keep blobs, there or not yet, under the lease NAME, for some hours."""
    with call.open() as target:
        made = target.lease(name, lifetime=timedelta(seconds=hours * _HOUR))
        for digest in digests:
            made.hold(digest)
        if call.as_json:
            show_json(listings.lease(target, made.info))


@command("release")
@click.argument("name")
def release(call: Call, name: str) -> None:
    """End the lease NAME; blobs that nothing else holds are deleted."""
    with call.open() as target:
        target.open_lease(name).release()
