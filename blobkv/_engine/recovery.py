"""Opening: the manifest, its tables, and a replay of its logs.

What each kind of end leaves, and what opening makes of it:

* Closed: the last log is sealed. Its commits are replayed; new ones go to a new log.
* Killed, or power lost: the last log is not sealed. Its valid frames are replayed up to a
  torn tail. What was replayed may be in the kernel's cache only, so it is written anew, as a
  table, and the manifest is switched to it, before anybody sees it.
* Killed while the store was made: there is no manifest and no other file; it is made anew.

A reader beside a live writer opens the same way, but writes nothing; it reads the manifest
again whenever a file that the manifest names is gone, since then a newer one exists.
"""

from __future__ import annotations

import re
import secrets
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from blobkv._engine.ballast import is_full
from blobkv._engine.compaction import write_table
from blobkv._engine.format import LOG_HEADER_SIZE, NewerFormatError, decode_log_header
from blobkv._engine.log import LogReader
from blobkv._engine.manifest import MANIFEST_NAME, Manifest
from blobkv._engine.memtable import Memtable
from blobkv._engine.table import Table
from blobkv._engine.table_format import TABLE_HEADER_SIZE, check_table_header
from blobkv.errors import CorruptionError, UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping
    from threading import Lock

    from blobkv._engine.files import FileSystem
    from blobkv._engine.format import Frame
    from blobkv._engine.table import TableFile

DATA_NAME: Final = re.compile(r"([0-9]{6,18})\.(log|tbl)")
_NONE_HERE: Final = "no store here; open it for writing, with create=True, to make one"
_HEADERS: Final[dict[str, tuple[int, Callable[[bytes, str], object]]]] = {
    "log": (LOG_HEADER_SIZE, decode_log_header),
    "tbl": (TABLE_HEADER_SIZE, check_table_header),
}
NO_TABLES: Final[dict[TableFile, Table]] = {}
_READ_ATTEMPTS: Final = 100
# A store that is opened, written, and closed over and over gathers a small log each time.
_LOGS_MAX: Final = 8
_READ_SIZE: Final = 1 << 20


class Recovered(NamedTuple):
    """A store as opening found it.

    `tail` reads the last log, for a reader to follow; it is None where there is no log.
    `replayed` is what the logs held, in bytes.
    """

    manifest: Manifest
    tables: tuple[Table, ...]
    memtable: Memtable
    sequence: int
    replayed: int
    tail: LogReader | None

    @property
    def clean(self) -> bool:
        """Whether the store was closed, not killed."""
        return self.tail is None or self.tail.sealed


def create(fs: FileSystem, directory: str) -> None:
    """Make an empty store in the directory unless one is there.

    Raises:
        CorruptionError: The directory holds files of a store, but no manifest.
    """
    names = fs.names(directory)
    if MANIFEST_NAME in names:
        return
    _check_not_orphaned(names)
    Manifest(secrets.token_bytes(16)).write(fs, directory)


def check_present(fs: FileSystem, directory: str) -> None:
    """Find the store in the directory.

    Raises:
        UsageError: There is none.
        CorruptionError: The directory holds files of a store, but no manifest.
    """
    try:
        if MANIFEST_NAME in (names := fs.names(directory)):
            return
    except FileNotFoundError as cause:
        raise UsageError(f"{directory}: {_NONE_HERE}") from cause
    except NotADirectoryError as cause:
        raise UsageError(f"{directory}: not a directory; a store is one") from cause
    _check_not_orphaned(names)
    raise UsageError(f"{directory}: {_NONE_HERE}")


def check_remains(fs: FileSystem, directory: str) -> None:
    """Raise UsageError if the directory holds no file of a store, whatever its state."""
    try:
        names = fs.names(directory)
    except (FileNotFoundError, NotADirectoryError) as cause:
        raise UsageError(f"{directory}: no store here") from cause
    if not any(name == MANIFEST_NAME or DATA_NAME.fullmatch(name) for name in names):
        raise UsageError(f"{directory}: no store here")


def check_format(fs: FileSystem, directory: str) -> None:
    """Refuse a store of which some file is of a newer format; other damage is not looked at.

    Raises:
        CorruptionError: The manifest, or a log or a table that is in force, as far as that is
            known, says that it is of a newer format.
    """
    names = set(fs.names(directory))
    with _refusing_newer():
        names = Manifest.read(fs, directory).names
    for name in sorted(names):
        match = DATA_NAME.fullmatch(name)
        if match is not None:
            size, check = _HEADERS[match[2]]
            with _refusing_newer(), closing(fs.open(f"{directory}/{name}")) as file:
                check(file.read(0, size), name)


@contextmanager
def _refusing_newer() -> Generator[None]:
    try:
        yield
    except NewerFormatError:
        raise
    except (CorruptionError, OSError):
        # Whoever reads more of the file will find that, too.
        pass


def _check_not_orphaned(names: Iterable[str]) -> None:
    for name in names:
        if DATA_NAME.fullmatch(name):
            reason = (
                f"missing, though {name} is there: restore it, or the whole directory; if this "
                "is another program's directory, use another"
            )
            raise CorruptionError(MANIFEST_NAME, 0, reason)


def recover(
    fs: FileSystem, directory: str, lock: Lock, known: Mapping[TableFile, Table] = NO_TABLES
) -> Recovered:
    """Read the store in the directory. Writes nothing.

    Args:
        fs: Where the store is.
        directory: Its directory.
        lock: What the memtable orders its keys under.
        known: Tables that are open already, to be used again.

    Raises:
        CorruptionError: What was written is not what is there.

    Cost: O(tables) and a replay of the logs; no key of a table is read.
    """
    for _ in range(_READ_ATTEMPTS):
        manifest = Manifest.read(fs, directory)
        try:
            return _read(fs, directory, manifest, lock, known)
        except FileNotFoundError as cause:
            if Manifest.read(fs, directory).epoch == manifest.epoch:
                name = str(cause.filename).rpartition("/")[2]
                reason = "the file is missing, though the manifest names it"
                raise CorruptionError(name, 0, reason) from cause
    raise CorruptionError(MANIFEST_NAME, 0, "it names missing files, again and again")


def settle(
    fs: FileSystem, directory: str, found: Recovered, *, memtable_size: int, lock: Lock
) -> Recovered:
    """Make what was recovered durable, and the directory tidy, before the first commit.

    Cost: after a crash, or after many opens without a flush, one small table and a manifest;
    otherwise a look at the directory.
    """
    manifest, tables, memtable, sequence, replayed, tail = found
    if tail is not None:
        tail.close()
    if manifest.epoch == 0:
        # The directory itself may be new, too, made by whoever gave it to us, or by an open
        # that did not come so far. Any later epoch comes after this.
        fs.sync_directory(directory.rpartition("/")[0] or "/")
    names = fs.names(directory)
    check_unnamed_logs(fs, directory, names, manifest)
    if not found.clean or len(manifest.logs) > _LOGS_MAX or replayed >= memtable_size:
        try:
            manifest, tables = _with_replayed(fs, directory, names, found)
            memtable = Memtable(lock)
        except OSError as error:
            # What sealed logs hold is durable where it is, and needs no room.
            if not found.clean or not is_full(error):
                raise
    live = manifest.names
    dead = [name for name in names if DATA_NAME.fullmatch(name) and name not in live]
    if dead or manifest is not found.manifest:
        # Also when nothing else changed: the manifest that was read may be in the kernel's
        # cache only, and what an older one names must not go before a newer one is durable.
        manifest = replace(manifest, epoch=manifest.epoch + 1)
        manifest.write(fs, directory)
        for name in dead:
            # What is no file of ours, or cannot be removed, is no reason not to open.
            with suppress(OSError):
                fs.remove(f"{directory}/{name}")
    return Recovered(manifest, tables, memtable, sequence, 0, None)


def _with_replayed(
    fs: FileSystem, directory: str, names: Iterable[str], found: Recovered
) -> tuple[Manifest, tuple[Table, ...]]:
    """Write what was replayed as a table; return what names it instead of the logs."""
    manifest, tables, memtable, sequence, _, _ = found
    # An attempt that failed may have left a file whose number the manifest does not know.
    used = (int(match[1]) for name in names if (match := DATA_NAME.fullmatch(name)))
    number = max(manifest.next_number, *used, 0) + 1
    chunks, ranges = memtable.chunks(b"", None, sequence), memtable.ranges(sequence)
    file = write_table(fs, directory, number, chunks, ranges, bottom=not tables)
    if file is not None:
        tables = (Table.open(fs, directory, file), *tables)
    manifest = replace(
        manifest,
        sequence=sequence,
        next_number=number + 1,
        tables=tuple(table.file for table in tables),
        logs=(),
    )
    return manifest, tables


def replay(memtable: Memtable, frames: Iterable[Frame]) -> None:
    """Apply frames in order. For a memtable that nobody reads yet."""
    for frame in frames:
        entries = dict(zip(frame.keys, frame.values, strict=True))
        memtable.apply(frame.sequence, entries, frame.ranges)


def _read(
    fs: FileSystem,
    directory: str,
    manifest: Manifest,
    lock: Lock,
    known: Mapping[TableFile, Table],
) -> Recovered:
    tables = tuple(
        known.get(file) or Table.open(fs, directory, file) for file in manifest.tables
    )
    memtable = Memtable(lock)
    end = manifest.end
    replayed = 0
    tail: LogReader | None = None
    try:
        for file in manifest.logs:
            if tail is not None:
                tail.close()
            tail = LogReader.open_after(fs, directory, file, manifest.store_id, end)
            replay(memtable, tail.frames())
            tail.check_end()
            end = tail.end
            replayed += tail.end.offset
    except BaseException:
        if tail is not None:
            tail.close()
        raise
    return Recovered(manifest, tables, memtable, end.sequence, replayed, tail)


def check_unnamed_logs(
    fs: FileSystem, directory: str, names: Iterable[str], manifest: Manifest
) -> None:
    """Refuse a log that is newer than the manifest and has commits, which would be lost."""
    for name in unnamed_logs(fs, directory, names, manifest):
        reason = f"older than {name}, which it does not name: put the newer manifest back"
        raise CorruptionError(MANIFEST_NAME, 0, reason)


def unnamed_logs(
    fs: FileSystem, directory: str, names: Iterable[str], manifest: Manifest
) -> list[str]:
    """Return the logs that are newer than the manifest and have commits, the oldest first.

    A log is named in the manifest before its first frame is written, so the manifest that
    named these was replaced by an older one.
    """
    found = []
    for match in filter(None, map(DATA_NAME.fullmatch, names)):
        number, name = int(match[1]), match[0]
        if match[2] != "log" or number < manifest.next_number or name in manifest.names:
            continue
        if _has_frames(fs, f"{directory}/{name}"):
            found.append((number, name))
    return [name for _, name in sorted(found)]


def _has_frames(fs: FileSystem, path: str) -> bool:
    """Return whether anything but room ahead follows the header."""
    try:
        file = fs.open(path)
    except (OSError, CorruptionError):
        # No file, whatever it is called: it holds no commits.
        return False
    try:
        at = LOG_HEADER_SIZE
        while piece := file.read(at, _READ_SIZE):
            if any(piece):
                return True
            at += len(piece)
        return False
    finally:
        file.close()
