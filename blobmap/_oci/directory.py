"""A snapshot's mounts as the directory that they would show, without mounting anything."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from blobmap.errors import NotImplementedHere

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from blobmap.contracts import Mount


@contextmanager
def held(mounts: Sequence[Mount]) -> Iterator[str]:
    """Have the directory that a snapshot's mounts would show, for the length of a with-block.

    Raises:
        NotImplementedHere: They are not one bind mount.
    """
    if len(mounts) != 1 or mounts[0].type != "bind":
        types = ", ".join(mount.type for mount in mounts)
        raise NotImplementedHere(
            f"layers go in and out through one bind mount; the snapshotter gives: {types}"
        )
    yield mounts[0].source
