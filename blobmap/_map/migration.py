"""From the schema of an older blobmap to this one's.

A migration goes a page a transaction, so that its memory is bounded, and each page leaves rows
that tell by their shape whether they were brought over yet: one that was broken off goes on at
the next open. The version is written last; until then no older blobmap can tell that anything
has begun, and none may open the map in between.

    version  what changed
    -------  ---------------------------------------------------------------------------------
          2  an edge has a role, a policy, and annotations, and so has its row of holder the
             role; a row of queue says since when, and why; tables of notes, leases, mentions,
             and events
"""

from __future__ import annotations

import json
from itertools import islice
from typing import TYPE_CHECKING, Final

import blobkv
from blobmap._map import schema
from blobmap._map.schema import Holder, Queued, Scope
from blobmap.contracts import LAYER
from blobmap.errors import DataLoss

if TYPE_CHECKING:
    from datetime import datetime

_PAGE_COUNT: Final = 1000
# Parts of a row of edge: the scope, the snapshot, and since version 2 the role.
_EDGE_PARTS_1: Final = 3


def settle(store: blobkv.Store, now: datetime) -> None:
    """Bring the map to this version's schema; a new store becomes a map.

    Raises:
        FailedPrecondition: A newer blobmap wrote the map, or blobmap never did.
        DataLoss: What is recorded does not read.

    Cost: O(1) for a map of this version; for one of version 1 every edge is written anew.
    """
    with store.update() as txn:
        version = schema.settle_version(txn)
    if version < schema.VERSION:
        after = b""
        while (following := _bring_edges(store, after)) is not None:
            after = following
        with store.update() as txn:
            _bring_queue(txn, now)
            schema.set_version(txn, schema.VERSION)


def _bring_edges(store: blobkv.Store, after: bytes) -> bytes | None:
    """Bring a page of edges over; return where to go on, or None at the end."""
    with store.update() as txn:
        table = txn.bucket(schema.EDGE)
        page = list(islice(table.items(start=after), _PAGE_COUNT))
        for key, raw in page:
            parts = schema.text_parts(key)
            if len(parts) == _EDGE_PARTS_1:
                table.delete(key)
                _bring_edge(txn, *parts, raw=raw)
    return page[-1][0] + b"\x00" if len(page) == _PAGE_COUNT else None


def _bring_edge(
    txn: blobkv.Transaction, namespace: str, snapshotter: str, snapshot: str, *, raw: bytes
) -> None:
    holder = Holder(schema.BY_SNAPSHOT, Scope(namespace, snapshotter), snapshot, LAYER)
    try:
        fields = json.loads(raw) | {"retains": True, "annotations": {}}
    except (ValueError, TypeError, RecursionError) as cause:
        reason = f"the edge of snapshot {snapshot!r} does not read: restore a backup of the map"
        raise DataLoss(reason) from cause
    edge = schema.decode_edge(json.dumps(fields).encode(), snapshot, LAYER)
    row = holder.scope.key(snapshot, LAYER)
    txn.bucket(schema.EDGE).put(row, schema.encode_edge(edge))
    digest = edge.blob.digest
    holders = txn.bucket(schema.HOLDER)
    holders.delete(blobkv.pack(digest, schema.BY_SNAPSHOT) + holder.scope.key(snapshot))
    holders.put(holder.key(digest), b"")


def _bring_queue(txn: blobkv.Transaction, now: datetime) -> None:
    queue = txn.bucket(schema.QUEUE)
    for key in [key for key, raw in queue.items() if not raw]:
        cause = "queued before causes were recorded"
        queue.put(key, schema.encode_queued(Queued(now, cause, None)))
