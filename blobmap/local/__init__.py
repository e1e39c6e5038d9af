"""The embedded default: content in a directory, snapshots beside it, records in blobkv.

Snapshots are copied trees, which need no privileges, no daemon, and no mount (with
privileges, owners and devices are kept too); or trees laid one over the other, which take no
copy, and whoever looks into them mounts them.
"""

from __future__ import annotations

from blobmap.local.content import LocalContent
from blobmap.local.mounting import mounted
from blobmap.local.native import NativeSnapshotter
from blobmap.local.overlay import OverlaySnapshotter

__all__ = ["LocalContent", "NativeSnapshotter", "OverlaySnapshotter", "mounted"]
