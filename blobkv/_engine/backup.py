"""A copy of one state of a store: a store of its own, opened as any other.

All entries go to one table, in key order, and nothing in a backup depends on a clock or on
chance: equal contents at the same commit make equal files, whatever the history.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from blobkv._engine.compaction import write_table
from blobkv._engine.manifest import Manifest
from blobkv._engine.ranges import Ranges
from blobkv.errors import UsageError

if TYPE_CHECKING:
    from blobkv._engine.files import FileSystem
    from blobkv._engine.state import State

_TABLE_NUMBER: Final = 1
_EMPTY_ID: Final = bytes(16)


def write_backup(fs: FileSystem, directory: str, state: State) -> None:
    """Write what `state` shows as a new store in `directory`, durably.

    Raises:
        UsageError: The directory is not empty.
        OSError: The device refused.

    After an error what was written is removed again, but for the directory.

    Cost: reads every entry once and writes it once.
    """
    fs.make_directory(directory)
    if fs.names(directory):
        raise UsageError(f"{directory}: not empty; back up into a new directory")
    chunks = state.chunks(b"", None)
    file = write_table(fs, directory, _TABLE_NUMBER, chunks, Ranges(), bottom=True)
    manifest = Manifest(
        _EMPTY_ID if file is None else bytes.fromhex(file.sha256)[:16],
        sequence=state.sequence,
        next_number=_TABLE_NUMBER + 1,
        tables=() if file is None else (file,),
    )
    try:
        manifest.write(fs, directory)
        # The directory itself may be new, made by whoever gave it to us.
        fs.sync_directory(directory.rpartition("/")[0] or "/")
    except BaseException:
        # So that the backup can be tried again; it is no store, or not known to be one.
        for name in fs.names(directory):
            with suppress(OSError):
                fs.remove(f"{directory}/{name}")
        raise
