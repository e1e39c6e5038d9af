"""Who holds a blob, and what holds those: the answer to "why is this still here?".

A blob is held by snapshots, images, leases, and work in flight. A snapshot in turn is held by
the images that list it and by the snapshots that have it as their parent.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blobmap._map import schema
from blobmap.contracts import LAYER
from blobmap.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap._map.catalog import Catalog
    from blobmap._map.parts import Parts
    from blobmap._map.schema import Holder, Scope
    from blobmap.contracts import Snapshotter


@dataclass(frozen=True, slots=True)
class Holding:
    """One thing that holds what stands above it in the tree.

    Attributes:
        kind: "snapshot", "image", "lease", or "work".
        name: Its name; with its namespace and snapshotter before it if they are others.
        holders: What holds it in turn: images first, then snapshots, each by name.
    """

    kind: str
    name: str
    holders: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a blob is there, or is not. `str` draws the tree.

    Attributes:
        digest: The blob.
        size: Its size in bytes, or None if it is not in the content store.
        queued: Whether it is to be deleted: nothing holds it, but its deletion failed so far.
        holders: What holds it: images, leases, snapshots, then works, each by name.
        known_by: The snapshots that know it and do not keep it.
    """

    digest: str
    size: int | None
    queued: bool
    holders: tuple[Holding, ...]
    known_by: tuple[Holding, ...] = ()

    def __str__(self) -> str:
        known = (f"known by {holding.kind} {holding.name}" for holding in self.known_by)
        return "\n".join((*self._lines(), *known))

    def _lines(self) -> Iterator[str]:
        state = "not in the content store" if self.size is None else f"{self.size} bytes"
        if self.queued:
            state += ", to be deleted"
        elif not self.holders:
            state += ", held by nothing that the map knows"
        yield f"{self.digest}  {state}"
        # A chain of snapshots can be deeper than Python may recurse.
        stack = [(holding, "") for holding in reversed(self.holders)]
        last = {id(self.holders[-1])} if self.holders else set()
        while stack:
            holding, indent = stack.pop()
            ends = id(holding) in last
            yield f"{indent}{'└── ' if ends else '├── '}{holding.kind} {holding.name}"
            if holding.holders:
                last.add(id(holding.holders[-1]))
                deeper = indent + ("    " if ends else "│   ")
                stack += [(inner, deeper) for inner in reversed(holding.holders)]


def explain(digest: str, parts: Parts, catalog: Catalog) -> Explanation:
    """See `BlobSnapshotter.explain`."""
    refs = parts.refs
    try:
        size = parts.content.info(digest).size
    except NotFound:
        size = None
    holders = list(refs.holders(digest))
    queued = refs.queued(digest)
    known_by = [Holding(h.kind, _name(h, refs.scope)) for h in refs.mentions(digest)]
    if size is None and not holders and not queued and not known_by:
        raise NotFound(f"blob {digest} is neither in the content store nor in the map")
    ours = {h.name for h in holders if _is_snapshot_of(h, refs.scope)}
    trees = _trees(ours, catalog, parts.inner) if ours else {}
    holdings = [
        trees.get(holder.name, Holding(holder.kind, holder.name))
        if _is_snapshot_of(holder, refs.scope)
        else Holding(holder.kind, _name(holder, refs.scope))
        for holder in holders
    ]
    return Explanation(digest, size, queued, tuple(holdings), tuple(known_by))


def _name(holder: Holder, scope: Scope) -> str:
    role = f" as {holder.role}" if holder.role not in {"", LAYER} else ""
    if holder.scope == scope:
        return f"{holder.name}{role}"
    return f"{holder.scope.namespace}/{holder.scope.snapshotter}: {holder.name}{role}"


def _is_snapshot_of(holder: Holder, scope: Scope) -> bool:
    return holder.kind == schema.BY_SNAPSHOT and holder.scope == scope


def _trees(snapshots: set[str], catalog: Catalog, inner: Snapshotter) -> dict[str, Holding]:
    """Return a tree for each of the snapshots: what lists it, and what is made on it."""
    children: dict[str, list[str]] = defaultdict(list)
    for info in inner.walk():
        children[info.parent].append(info.name)
    wanted = set(snapshots)
    # The list grows while it is read, parents before their children.
    order = [*children[""]]
    for key in order:
        order += children[key]
        if key in wanted:
            wanted.update(children[key])
    trees: dict[str, Holding] = {}
    for key in reversed(order):
        if key in wanted:
            images = [Holding(schema.BY_IMAGE, image) for image in catalog.listing(key)]
            above = [trees[child] for child in children[key]]
            trees[key] = Holding(schema.BY_SNAPSHOT, key, (*images, *above))
    return trees
