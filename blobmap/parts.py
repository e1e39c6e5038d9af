"""What every operation of the map works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blobmap.attempts import Attempts
from blobmap.locks import Locks

if TYPE_CHECKING:
    from blobmap.contracts import ContentStore, Snapshotter
    from blobmap.refs import Refs


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one wrapper, shared by its operations.

    The rules for calls to `inner` and `content`: never inside a transaction of `refs`, and
    under no lock but those of the very image, snapshots, and blobs that are concerned.
    """

    refs: Refs
    inner: Snapshotter
    content: ContentStore
    locks: Locks = field(default_factory=Locks)
    attempts: Attempts = field(default_factory=Attempts)
