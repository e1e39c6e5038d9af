"""What every operation of the map works with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blobmap._map.attempts import Attempts
from blobmap.errors import InvalidArgument
from blobmap.locks import Locks

if TYPE_CHECKING:
    from blobmap._map.background import Background
    from blobmap.contracts import ContentStore, Snapshotter
    from blobmap.refs import Refs

# What is called on them. `cleanup` is optional in containerd, and missed only when called.
_INNER_METHODS: Final = (
    "stat",
    "update",
    "usage",
    "mounts",
    "prepare",
    "view",
    "commit",
    "remove",
    "walk",
    "close",
)
_CONTENT_METHODS: Final = ("info", "walk", "delete")


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one wrapper, shared by its operations.

    The rules for calls to `inner` and `content`: never inside a transaction of `refs`, and
    under no lock but those of the very image, snapshots, and blobs that are concerned.

    Attributes:
        background: Where what may wait is done; None if the calling threads do it.
    """

    refs: Refs
    inner: Snapshotter
    content: ContentStore
    locks: Locks = field(default_factory=Locks)
    attempts: Attempts = field(default_factory=Attempts)
    background: Background | None = None


def check_methods(inner: Snapshotter, content: ContentStore) -> None:
    """Refuse what is no snapshotter or no content store, before anything is opened.

    Raises:
        InvalidArgument: A method is missing; the message names it.
    """
    for what, thing, methods in (
        ("inner", inner, _INNER_METHODS),
        ("content", content, _CONTENT_METHODS),
    ):
        missing = [name for name in methods if not callable(getattr(thing, name, None))]
        if missing:
            kind = type(thing).__name__
            raise InvalidArgument(f"{what} is a {kind}, which has no {', no '.join(missing)}")
