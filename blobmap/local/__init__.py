"""The embedded default: content in a directory, snapshots as copied trees, records in blobkv.

Nothing here needs privileges, a daemon, or a mount; with privileges, owners and devices are
kept too.
"""

from __future__ import annotations

from blobmap.local.content import LocalContent
from blobmap.local.native import NativeSnapshotter

__all__ = ["LocalContent", "NativeSnapshotter"]
