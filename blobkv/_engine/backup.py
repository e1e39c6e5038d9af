"""A store written at once: from entries in key order, or beside another as its links.

It is a store as any other. Written from entries, nothing in it depends on a clock or on chance:
equal contents at the same commit make equal files, whatever the history. Linked, it shares
the tables of the store that it was made from, which neither of the two ever changes.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import sha256
from typing import TYPE_CHECKING, Final

from blobkv._engine.compaction import write_table, write_tables
from blobkv._engine.manifest import Manifest
from blobkv.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from blobkv._engine.files import FileSystem
    from blobkv._engine.memtable import Chunk
    from blobkv._engine.state import State
    from blobkv._engine.table import Table, TableFile

# Whoever verifies the copy reads a table at a time into memory.
_TABLE_SIZE_MAX: Final = 256 << 20
_PART_SIZE: Final = 1 << 20


def write_store(fs: FileSystem, directory: str, chunks: Iterator[Chunk], sequence: int) -> None:
    """Write entries as a new store in `directory`, durably.

    Args:
        fs: Where to.
        directory: Made if it is not there; empty if it is.
        chunks: The entries in key order.
        sequence: The commit that they are the state after.

    Raises:
        UsageError: The directory is not empty.
        OSError: The device refused.
        What reading the entries raises.

    After an error what was written is removed again, but for the directory.

    Cost: writes every entry once.
    """
    _make(
        fs, directory, sequence, lambda: write_tables(fs, directory, 1, chunks, _TABLE_SIZE_MAX)
    )


class Counted:
    """Chunks that are counted as they are read.

    Args:
        of: The chunks.
        total: About how many entries they have.
        progress: Called with how many were read, and how many there are, if at all.

    Attributes:
        count: How many entries were read so far.
    """

    def __init__(
        self,
        of: Iterator[Chunk],
        total: int = 0,
        progress: Callable[[int, int], None] | None = None,
    ) -> None:
        self.count = 0
        self._of = of
        self._total = total
        self._progress = progress

    def chunks(self) -> Iterator[Chunk]:
        """Yield the chunks."""
        for chunk in self._of:
            self.count += len(chunk[0])
            if self._progress is not None:
                self._progress(self.count, max(self.count, self._total))
            yield chunk


def copy_store(
    fs: FileSystem,
    directory: str,
    state: State,
    progress: Callable[[int, int], None] | None,
) -> None:
    """Write what `state` shows as a new store. Args, errors, cost: as `write_store`."""
    read = Counted(state.chunks(b"", None), state.entries, progress)
    write_store(fs, directory, read.chunks(), state.sequence)


def link_store(fs: FileSystem, source: str, directory: str, state: State) -> None:
    """Make what `state` shows a new store in `directory`, of links to its tables.

    Args:
        fs: Where both are.
        source: The directory of the store that the state is of.
        directory: As of `write_store`.
        state: Stays open meanwhile.

    Raises: as `write_store`.

    Cost: writes what is in memory; and the tables that cannot be linked: where they are on
    another file system, or where that has no links.
    """

    def make() -> list[TableFile]:
        chunks, ranges, tables = state.parts()
        number = max((table.file.number for table in tables), default=0) + 1
        newest = write_table(fs, directory, number, chunks, ranges, bottom=not tables)
        for table in tables:
            _link_or_copy(fs, source, directory, table)
        fs.sync_directory(directory)
        files = [table.file for table in tables]
        return files if newest is None else [newest, *files]

    _make(fs, directory, state.sequence, make)


def _make(
    fs: FileSystem, directory: str, sequence: int, make: Callable[[], Sequence[TableFile]]
) -> None:
    check_empty(fs, directory)
    fs.make_directory(directory)
    try:
        files = make()
        digests = "".join(file.sha256 for file in files)
        manifest = Manifest(
            sha256(digests.encode()).digest()[:16],
            sequence=sequence,
            next_number=1 + max((file.number for file in files), default=0),
            tables=tuple(files),
        )
        manifest.write(fs, directory)
        # The directory itself may be new, made by whoever gave it to us.
        fs.sync_directory(directory.rpartition("/")[0] or "/")
    except BaseException:
        # So that it can be tried again; it is no store, or not known to be one.
        empty(fs, directory)
        raise


def check_empty(fs: FileSystem, directory: str) -> None:
    """Raise UsageError if the directory is there and not empty, or is a file."""
    try:
        names = fs.names(directory)
    except FileNotFoundError:
        return
    except NotADirectoryError as cause:
        raise UsageError(f"{directory}: not a directory") from cause
    if names:
        raise UsageError(f"{directory}: not empty; give a new directory")


def empty(fs: FileSystem, directory: str) -> None:
    """Remove the files of a store that is not to stay."""
    for name in fs.names(directory):
        with suppress(OSError):
            fs.remove(f"{directory}/{name}")


def _link_or_copy(fs: FileSystem, source: str, directory: str, table: Table) -> None:
    target = f"{directory}/{table.name}"
    # Also where it was merged away meanwhile: then the open table has the only copy.
    with suppress(OSError):
        fs.link(f"{source}/{table.name}", target)
        return
    file = fs.create(target)
    try:
        for at in range(0, table.size, _PART_SIZE):
            file.append(table.data[at : at + _PART_SIZE])
        file.sync()
    finally:
        file.close()
