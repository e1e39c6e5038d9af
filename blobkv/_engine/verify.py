"""Whole-store invariants as code: every byte of every live file is read and judged.

What is checked, in this order: each table's size against the manifest; its header, footer,
and ranges; its blocks, and that keys ascend strictly within and across them; that the hash
index finds every key in its place; its counts; its block index; and last its digest. Then
each log, frame by frame, to a clean end or, of the last one, to a tail that nothing promised.
Files are read, not mapped, so that a bad disk is a finding.
"""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from operator import lt
from struct import error as StructError  # noqa: N812  # It is a class.
from typing import TYPE_CHECKING, Final
from zlib import crc32

from blobkv._engine import table_format as layout
from blobkv._engine.log import LogReader
from blobkv._engine.manifest import MANIFEST_NAME, Manifest
from blobkv._engine.table import Table
from blobkv._engine.tables import Tables
from blobkv.errors import CorruptionError
from blobkv.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobkv._engine.files import FileSystem
    from blobkv._engine.log import End, LogFile
    from blobkv._engine.table import TableFile

_READ_SIZE: Final = 1 << 20


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong: where it is and what it is."""

    path: str
    offset: int
    reason: str

    def __str__(self) -> str:
        return f"{self.path}+{self.offset:#x}: {self.reason}"


@dataclass(slots=True)
class Report:
    """What `verify` found.

    Attributes:
        tables: Tables read.
        logs: Logs read.
        entries: Entries read in both, shadowed ones and tombstones included.
        size: Bytes read.
        problems: What is wrong, in the order found; empty in a sound store.
    """

    tables: int = 0
    logs: int = 0
    entries: int = 0
    size: int = 0
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.problems

    def __str__(self) -> str:
        verdict = "sound" if self.ok else counted(len(self.problems), "problem")
        size = f"{counted(self.entries, 'entry', 'entries')}, {counted(self.size, 'byte')}"
        files = f"{counted(self.tables, 'table')} and {counted(self.logs, 'log')}"
        return "\n".join([f"{verdict}: {size} in {files}", *map(str, self.problems)])


def verify_files(fs: FileSystem, directory: str, epoch: int) -> Report:
    """Check the manifest, and every file that it names.

    Args:
        fs: Where the store is.
        directory: Its directory.
        epoch: The manifest on disk is this one or a newer one.

    Cost: reads everything once, a table at a time into memory; again, if a file is missing
    because the manifest was replaced meanwhile.
    """
    while True:
        report, manifest = Report(), None
        with _noting(report, MANIFEST_NAME):
            manifest = Manifest.read(fs, directory)
            _verify_all(fs, directory, manifest, epoch, report)
        if report.ok or not _was_replaced(fs, directory, manifest):
            return report


def _verify_all(
    fs: FileSystem, directory: str, manifest: Manifest, epoch: int, report: Report
) -> None:
    if manifest.epoch < epoch:
        reason = f"epoch {manifest.epoch} is on disk, but epoch {epoch} was in force already"
        raise CorruptionError(MANIFEST_NAME, 0, reason)
    for file in manifest.tables:
        with _noting(report, file.name):
            _verify_table(fs, directory, file, report)
    _verify_logs(fs, directory, manifest, report)


def _was_replaced(fs: FileSystem, directory: str, manifest: Manifest | None) -> bool:
    try:
        return manifest is not None and Manifest.read(fs, directory) != manifest
    except (CorruptionError, OSError):
        return False


@contextmanager
def _noting(report: Report, name: str) -> Iterator[None]:
    try:
        yield
    except CorruptionError as error:
        report.problems.append(Problem(error.path, error.offset, error.reason))
    except OSError as error:
        report.problems.append(Problem(name, 0, f"cannot be read: {error}"))
    except (IndexError, ValueError, StructError) as error:
        # Checksums are right, what they cover is not: bytes that no blobkv wrote.
        report.problems.append(Problem(name, 0, f"makes no sense: {error}"))


def _verify_table(fs: FileSystem, directory: str, file: TableFile, report: Report) -> None:
    report.tables += 1
    handle = fs.open(f"{directory}/{file.name}")
    try:
        data = handle.read(0, handle.size)
    finally:
        handle.close()
    report.size += len(data)
    table = Table(data, file)
    _verify_blocks(table, data, report)
    digest = sha256(data).hexdigest()
    if digest != file.sha256:
        reason = f"sha256 is {digest}, the manifest says {file.sha256}"
        raise CorruptionError(file.name, 0, reason)


def _verify_blocks(table: Table, data: bytes, report: Report) -> None:
    footer, name = table.footer, table.file.name
    at = layout.TABLE_HEADER_SIZE
    find = Tables([table]).get
    last: bytes | None = None
    entries = tombstones = blocks = blocks_crc = 0
    while at < footer.hash_offset:
        size = layout.check_block(memoryview(data), at, name)
        keys, values = layout.decode_block(data, at)
        if not all(map(lt, keys, keys[1:])) or (last is not None and last >= keys[0]):
            raise CorruptionError(name, at, "keys are not in order")
        for key, value in zip(keys, values, strict=True):
            if find(key) != value:
                raise CorruptionError(name, at, f"the hash index does not find key {key!r}")
        last = keys[-1]
        entries += len(keys)
        tombstones += values.count(None)
        blocks += 1
        blocks_crc = crc32(data[at : at + 4], blocks_crc)
        at += size
    counted = footer._replace(
        hash_offset=at,
        entries=entries,
        tombstones=tombstones,
        blocks=blocks,
        blocks_crc=blocks_crc,
    )
    if counted != footer:
        raise CorruptionError(name, at, f"counted {counted}, the footer says {footer}")
    if sum(len(keys) for keys, _ in table.chunks(b"", None)) != entries:
        raise CorruptionError(name, at, "the block index does not reach every entry")
    report.entries += entries


def _verify_logs(fs: FileSystem, directory: str, manifest: Manifest, report: Report) -> None:
    end = manifest.end
    for file in manifest.logs:
        with _noting(report, file.name):
            end = _verify_log(fs, directory, manifest.store_id, file, end, report)
        if not report.ok:
            # What follows a log that ends too early starts too late: no news.
            return


def _verify_log(
    fs: FileSystem,
    directory: str,
    store_id: bytes,
    file: LogFile,
    older: End,
    report: Report,
) -> End:
    reader = LogReader.open_after(fs, directory, file, store_id, older)
    try:
        for frame in reader.frames():
            report.entries += len(frame.keys) + len(frame.ranges)
        reader.check_end()
    finally:
        reader.close()
    report.size += reader.end.offset
    report.logs += 1
    return reader.end
