"""A store written at once from entries in key order: a backup, or what was salvaged.

It is a store as any other. Nothing in it depends on a clock or on chance: equal contents at the
same commit make equal files, whatever the history.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from blobkv._engine.compaction import write_tables
from blobkv._engine.manifest import Manifest
from blobkv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobkv._engine.files import FileSystem
    from blobkv._engine.memtable import Chunk

# Whoever verifies the copy reads a table at a time into memory.
_TABLE_SIZE_MAX: Final = 256 << 20


def write_store(fs: FileSystem, directory: str, chunks: Iterator[Chunk], sequence: int) -> None:
    """Write entries as a new store in `directory`, durably.

    Args:
        fs: Where to.
        directory: Made if it is not there; empty if it is.
        chunks: The entries in key order, without tombstones.
        sequence: The commit that they are the state after.

    Raises:
        UsageError: The directory is not empty.
        OSError: The device refused.
        What reading the entries raises.

    After an error what was written is removed again, but for the directory.

    Cost: writes every entry once.
    """
    fs.make_directory(directory)
    if fs.names(directory):
        raise UsageError(f"{directory}: not empty; give a new directory")
    try:
        files = write_tables(fs, directory, 1, chunks, _TABLE_SIZE_MAX)
        digests = "".join(file.sha256 for file in files)
        manifest = Manifest(
            sha256(digests.encode()).digest()[:16],
            sequence=sequence,
            next_number=len(files) + 1,
            tables=tuple(files),
        )
        manifest.write(fs, directory)
        # The directory itself may be new, made by whoever gave it to us.
        fs.sync_directory(directory.rpartition("/")[0] or "/")
    except BaseException:
        # So that it can be tried again; it is no store, or not known to be one.
        for name in fs.names(directory):
            with suppress(OSError):
                fs.remove(f"{directory}/{name}")
        raise
