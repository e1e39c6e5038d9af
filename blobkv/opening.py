"""Opening a store: its directory, and the claim of the one writer.

What is read then, and what a crash left to mend, is told in `_engine/recovery.py`.
"""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blobkv._engine import recovery
from blobkv._engine.fs import OSFileSystem
from blobkv._engine.salvage import Salvage, salvage_files
from blobkv.errors import UsageError
from blobkv.store import Store

if TYPE_CHECKING:
    import os
    from collections.abc import Callable

    from blobkv._engine.files import FileSystem

_LOCK_NAME: Final = "LOCK"


def open(  # noqa: A001  # As in `dbm.open`.
    path: str | os.PathLike[str],
    *,
    read_only: bool = False,
    create: bool = True,
    lock_timeout: float = 0.0,
    memtable_size: int = 16 << 20,
    fs: FileSystem | None = None,
) -> Store:
    """Open the store in the directory `path`.

    Args:
        path: The store's directory, used by nothing else.
        read_only: Read beside a writer, or from a medium that cannot be written. Takes no
            lock, writes nothing, and sees the newest commit on disk at each `view`.
        create: Make the store if there is none.
        lock_timeout: How long to wait for another writer to close the store, in seconds; one
            more if that writer has died just now.
        memtable_size: How much is kept in memory before it is written as a table, in bytes
            of log. Up to two and a quarter times that, in memory and to replay after a crash,
            while flushes wait; a small store whose values are replaced keeps less.
        fs: The file system; the real one unless a test wants another.

    Raises:
        LockedError: Another process, or this one, has the store open for writing.
        CorruptionError: What was written is not what is there.
        UsageError: There is no store and none is to be made, or an option makes no sense.
        OSError: The device refused.

    Cost: a replay of the logs; where there are several tables, one pass over the block index of
    each.
    """
    if memtable_size <= 0:
        raise UsageError(f"memtable_size is {memtable_size}, must be positive")
    if lock_timeout < 0:
        raise UsageError(f"lock_timeout is {lock_timeout}, must not be negative")
    if path == "":
        # It would stand for the directory that the program happens to run in.
        raise UsageError('the path is empty; "." is this directory')
    directory = Path(path).absolute()
    fs = OSFileSystem() if fs is None else fs
    if read_only:
        return Store(fs, directory, None, memtable_size)
    if create:
        _make_directory(fs, directory)
    else:
        # Before the lock, which would leave its file in a directory that is no store.
        recovery.check_present(fs, str(directory))
    lock = fs.lock(f"{directory}/{_LOCK_NAME}", lock_timeout)
    try:
        if create:
            recovery.create(fs, str(directory))
        return Store(fs, directory, lock, memtable_size)
    except BaseException:
        lock.release()
        raise


def salvage(
    path: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    doubtful: str | os.PathLike[str] | None = None,
    progress: Callable[[int, int], None] | None = None,
    fs: FileSystem | None = None,
) -> Salvage:
    """Write what can still be proven of a damaged store to a new one; change nothing in it.

    The new store is the state after one commit, without the keys of which something is not
    known: whether the value that is left of them is the newest. Those entries are doubtful.

    Args:
        path: The damaged store's directory. Nobody has it open for writing.
        target: The new store's directory, which is made, or is empty.
        doubtful: Where to write the doubtful entries, as a store of their own, so that they can
            be looked through; likewise.
        progress: Called now and then with the entries read and about how many there are.
        fs: The file system; the real one unless a test wants another.

    Raises:
        UsageError: There is no store at `path`; a target is not empty; or the store was written
            to meanwhile.
        CorruptionError: The store is of a newer format, of which this blobkv can tell nothing.
        OSError: A device refused to take the new store.

    After an error what was written to the target at hand is removed again.

    Cost: reads everything up to four times and writes it once.
    """
    fs = OSFileSystem() if fs is None else fs
    directory = str(Path(path).absolute())
    recovery.check_remains(fs, directory)
    recovery.check_format(fs, directory)
    return salvage_files(
        fs,
        directory,
        str(Path(target).absolute()),
        None if doubtful is None else str(Path(doubtful).absolute()),
        lock=threading.Lock(),
        progress=progress,
    )


def _make_directory(fs: FileSystem, directory: Path) -> None:
    try:
        fs.make_directory(str(directory))
    except (FileExistsError, NotADirectoryError) as cause:
        raise UsageError(f"{directory}: not a directory; a store is one") from cause
