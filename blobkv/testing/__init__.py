"""A simulated disk for your own tests: it loses power, tears, fails, fills up, and lies.

`SimulatedDisk` keeps files in memory and knows, byte by byte and name by name, what a power
cut would leave. Hand it to `blobkv.open` in place of the real file system, cut the power
where you like, and look at what the survivors hold:

    >>> import random
    >>> import blobkv
    >>> from blobkv.testing import SimulatedDisk
    >>> disk = SimulatedDisk()
    >>> with blobkv.open("/db", fs=disk) as store, store.update() as txn:
    ...     txn.put(b"color", b"green")
    >>> with blobkv.open("/db", fs=disk.crash(random.Random(7))) as store, store.view() as txn:
    ...     txn.get(b"color")
    b'green'

To try every moment at once, count the operations of one whole run (`disk.operations`), then
run again once for each of them with `disk.cut_at` set to it. `PowerCut` ends the run there;
`disk.crash(rng)` is the disk as the next boot finds it.

What is assumed of a disk, and so simulated:

* Bytes are durable once `sync` returns, names once `sync_directory` returns. A new file
  needs both: syncing the file alone does not keep its name.
* Until then each sector of 512 bytes may be new, old (zeroes where there was nothing), or
  torn between the two at any byte; the size may be ahead of the data, or behind it.
* Until then each change of a name may be kept or lost, later ones without earlier ones. A
  rename is atomic: its target names the old file or the new one, never neither.
* A synced byte is never damaged by writing beside it ("powersafe overwrite").
* After a failed sync the dirty bytes read well and are gone: each other handle of the file
  that was open then fails its next sync, too; any later sync succeeds without making them
  durable. So it is on Linux.

Source: CrashClone of Pebble's strict in-memory file system; the sectors follow SQLite's
crash tests.
"""

from __future__ import annotations

from blobkv._engine.files import FileSystem
from blobkv.testing.disk import Keep, SimulatedDisk
from blobkv.testing.volume import Operation, PowerCut

__all__ = ["FileSystem", "Keep", "Operation", "PowerCut", "SimulatedDisk"]
