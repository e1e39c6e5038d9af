"""What the command's lists show: for each, its columns, and a record of each thing in it."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Final

from blobmap.output import Column

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap import (
        BlobSnapshotter,
        Event,
        Image,
        Info,
        LeaseInfo,
        Pending,
        Reference,
        RemovalPlan,
        Report,
        UsageRow,
    )
    from blobmap.output import Record
    from blobmap.verification import Verification

IMAGES: Final = (
    Column("NAME", "name"),
    Column("MANIFEST", "digest"),
    Column("LAYERS", "layers"),
    Column("CREATED", "created"),
)
EXPORTED: Final = (
    Column("NAME", "name"),
    Column("MANIFEST", "digest"),
    Column("LAYERS", "layer_count"),
    Column("SIZE", "size", is_size=True),
)
SNAPSHOTS: Final = (
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("PARENT", "parent"),
    Column("BLOB", "blob.digest"),
    Column("BLOB SIZE", "blob.size", is_size=True),
)
BLOBS: Final = (
    Column("DIGEST", "digest"),
    Column("SIZE", "size", is_size=True),
    Column("HELD BY", "holders"),
    Column("MEDIA TYPE", "media_type"),
)
USAGE: Final = (
    Column("NAME", "name"),
    Column("KIND", "kind"),
    Column("BLOB", "blob"),
    Column("EXCLUSIVE", "exclusive", is_size=True),
    Column("SHARED", "shared", is_size=True),
)


PENDING: Final = (
    Column("DIGEST", "digest"),
    Column("SIZE", "size", is_size=True),
    Column("SINCE", "since"),
    Column("CAUSE", "cause"),
    Column("FAILURE", "failure"),
)
LEASES: Final = (
    Column("NAME", "name"),
    Column("EXPIRES", "expires"),
    Column("BLOBS", "blob_count"),
    Column("CREATED", "created"),
)
EVENTS: Final = (
    Column("POSITION", "position"),
    Column("TIME", "time"),
    Column("EVENT", "kind"),
    Column("DIGEST", "digest"),
    Column("HOLDER", "holder"),
    Column("CAUSE", "cause"),
)
REFERENCES: Final = (
    Column("ROLE", "role"),
    Column("BLOB", "blob.digest"),
    Column("BLOB SIZE", "blob.size", is_size=True),
    Column("POLICY", "policy"),
    Column("MEDIA TYPE", "blob.media_type"),
)


def image(image: Image) -> Record:
    """Return the record of an image."""
    return {
        "name": image.name,
        "digest": image.digest,
        "blobs": list(image.blobs),
        "snapshots": list(image.snapshots),
        "layers": len(image.snapshots),
        "created": image.created.isoformat(timespec="seconds"),
    }


def snapshot(info: Info) -> Record:
    """Return the record of a snapshot."""
    return {
        "name": info.name,
        "parent": info.parent,
        "kind": info.kind.value,
        "labels": dict(info.labels),
        "created": None if info.created is None else info.created.isoformat(),
        "updated": None if info.updated is None else info.updated.isoformat(),
        "blob": None if info.blob is None else asdict(info.blob),
    }


def blobs(target: BlobSnapshotter) -> Iterator[Record]:
    """Yield the record of each blob that is held."""
    for blob in target.blobs():
        yield {**asdict(blob), "holders": target.references(blob.digest)}


def usage(row: UsageRow) -> Record:
    """Return the record of what a snapshot costs."""
    return {
        "name": row.name,
        "kind": row.kind.value,
        "blob": None if row.blob is None else row.blob.digest,
        "exclusive": row.exclusive,
        "shared": row.shared,
        "missing": row.missing,
    }


def reference(reference: Reference) -> Record:
    """Return the record of what a snapshot refers to."""
    return {
        "role": reference.role,
        "blob": asdict(reference.blob),
        "policy": reference.policy.value,
        "annotations": dict(reference.annotations),
    }


def pending(pending: Pending) -> Record:
    """Return the record of a blob that is to be deleted."""
    return {**asdict(pending), "since": pending.since.isoformat(timespec="seconds")}


def lease(target: BlobSnapshotter, info: LeaseInfo) -> Record:
    """Return the record of a lease."""
    return {
        "name": info.name,
        "created": info.created.isoformat(timespec="seconds"),
        "expires": info.expires.isoformat(timespec="seconds"),
        "labels": dict(info.labels),
        "blob_count": sum(1 for _ in target.open_lease(info.name).digests()),
    }


def event(event: Event) -> Record:
    """Return the record of something that happened to a blob."""
    return {
        "position": event.position,
        "time": event.time.isoformat(timespec="seconds"),
        "kind": event.kind.value,
        "digest": event.digest,
        "holder": None if event.holder is None else str(event.holder),
        "retains": event.retains,
        "cause": event.cause,
    }


def plan(plan: RemovalPlan) -> Record:
    """Return the record of what would go."""
    return {
        "snapshots": list(plan.snapshots),
        "blobs": [asdict(blob) for blob in plan.blobs],
        "snapshot_size": plan.snapshot_size,
        "blob_size": plan.blob_size,
        "size": plan.size,
    }


def report(report: Report, *, refused: str | None) -> Record:
    """Return the record of a reconciliation, and why its repair was refused, if it was."""
    return {
        "ok": report.ok,
        "dry_run": report.dry_run,
        "refused": refused,
        "edge_count": report.edge_count,
        "snapshot_count": report.snapshot_count,
        "blob_count": report.blob_count,
        "content_count": report.content_count,
        "unowned_count": report.unowned_count,
        "counts": dict(report.counts),
        "repaired": report.repaired,
        "findings": [
            asdict(finding) | {"evidence": finding.evidence.value}
            for finding in report.findings
        ],
    }


def verification(verification: Verification) -> Record:
    """Return the record of a verification."""
    return {"ok": verification.ok, **asdict(verification)}
