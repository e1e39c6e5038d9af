"""The snapshots most tests start from: every kind, at every depth from none to two.

Source: the basis of containerd's metadata suite (core/snapshots/storage).
"""

from __future__ import annotations

from blobmap.contracts import Kind, Snapshotter

BASIS = {
    "committed-1": (Kind.COMMITTED, ""),
    "committed-2": (Kind.COMMITTED, "committed-1"),
    "active-1": (Kind.ACTIVE, ""),
    "active-2": (Kind.ACTIVE, "committed-1"),
    "active-3": (Kind.ACTIVE, "committed-2"),
    "view-1": (Kind.VIEW, ""),
    "view-2": (Kind.VIEW, "committed-2"),
}
KEYS = sorted(BASIS)


def build(snapshotter: Snapshotter) -> None:
    """Make the basis; each snapshot has its own name as its label "name"."""
    for key, (kind, parent) in BASIS.items():
        if kind is Kind.COMMITTED:
            snapshotter.prepare("making", parent, labels={"active": "1"})
            snapshotter.commit(key, "making", labels={"name": key})
        elif kind is Kind.ACTIVE:
            snapshotter.prepare(key, parent, labels={"name": key})
        else:
            snapshotter.view(key, parent, labels={"name": key})


def names(snapshotter: Snapshotter, *filters: str) -> list[str]:
    return [info.name for info in snapshotter.walk(*filters)]
