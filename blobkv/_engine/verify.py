"""Whole-store invariants as code: every byte of every live file is read and judged.

What is checked, in this order: each table as `survey.py` does, block by block, so that what is
wrong in one place hides nothing behind it; if that finds nothing, that the hash index finds
every key in its place, that the block index reaches every entry, and last the table's digest.
Then each log, frame by frame, to a clean end or, of the last one, to a tail that nothing
promised. Files are read, not mapped, so that a bad disk is a finding.
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Final

from blobkv._engine.hash_index import PROBE_MAX, is_too_full
from blobkv._engine.log import LogReader
from blobkv._engine.manifest import MANIFEST_NAME, Manifest
from blobkv._engine.recovery import check_unnamed_logs
from blobkv._engine.report import EVERYTHING, MISSING, Noting, Problem, Report
from blobkv._engine.survey import Survey
from blobkv._engine.table import Table
from blobkv._engine.tables import Tables
from blobkv.errors import CorruptionError

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobkv._engine.files import FileSystem
    from blobkv._engine.log import End, LogFile
    from blobkv._engine.table import TableFile

_ATTEMPTS: Final = 20


def verify_files(
    fs: FileSystem, directory: str, epoch: int, progress: Callable[[int, int], None] | None
) -> Report:
    """Check the manifest, and every file that it names.

    Args:
        fs: Where the store is.
        directory: Its directory.
        epoch: The manifest on disk is this one or a newer one.
        progress: Called with the bytes read and those to be read, after each table, if at all.

    Cost: reads everything once, a table at a time into memory; again, if a file is missing
    because the manifest was replaced meanwhile, up to a bound.
    """
    for _ in range(_ATTEMPTS):
        report, manifest = Report(), None
        with Noting(report.problems, MANIFEST_NAME, EVERYTHING):
            manifest = Manifest.read(fs, directory)
            _check_epoch(manifest, epoch)
            check_unnamed_logs(fs, directory, fs.names(directory), manifest)
        if manifest is not None:
            _verify_all(fs, directory, manifest, report, progress)
        if not _may_pass(report) or not _was_replaced(fs, directory, manifest):
            break
    return report


def _may_pass(report: Report) -> bool:
    """Return whether some problem may only be that the manifest was read too early."""
    return any(
        problem.reason == MISSING or problem.path == MANIFEST_NAME
        for problem in report.problems
    )


def _check_epoch(manifest: Manifest, epoch: int) -> None:
    if manifest.epoch < epoch:
        reason = f"epoch {manifest.epoch} is on disk, but epoch {epoch} was in force already"
        raise CorruptionError(MANIFEST_NAME, 0, reason)


def _verify_all(
    fs: FileSystem,
    directory: str,
    manifest: Manifest,
    report: Report,
    progress: Callable[[int, int], None] | None,
) -> None:
    total = sum(file.size for file in manifest.tables)
    done = 0
    for file in manifest.tables:
        with Noting(report.problems, file.name, EVERYTHING):
            _verify_table(fs, directory, file, report)
        done += file.size
        if progress is not None:
            progress(done, total)
    _verify_logs(fs, directory, manifest, report)


def _was_replaced(fs: FileSystem, directory: str, manifest: Manifest | None) -> bool:
    try:
        return manifest is not None and Manifest.read(fs, directory) != manifest
    except (CorruptionError, OSError):
        return False


def _verify_table(fs: FileSystem, directory: str, file: TableFile, report: Report) -> None:
    report.tables += 1
    handle = fs.open(f"{directory}/{file.name}")
    try:
        report.size += handle.size
        if handle.size != file.size:
            reason = f"{handle.size} bytes long, expected {file.size}"
            report.problems.append(Problem(file.name, 0, reason))
        survey = Survey(handle, file.name, file.crc)
        report.entries += survey.entries
        report.problems += survey.problems
        if not survey.problems and handle.size == file.size:
            with Noting(report.problems, file.name):
                _verify_indexes(handle.read(0, handle.size), file, survey)
    finally:
        handle.close()


def _verify_indexes(data: bytes, file: TableFile, survey: Survey) -> None:
    table = Table(data, file)
    if is_too_full(table.hash_index.tags):
        # Else each search that follows might go through all of it.
        reason = f"more than {PROBE_MAX} slots of the hash index in a row are full"
        raise CorruptionError(file.name, table.footer.hash_offset, reason)
    find = Tables([table]).get
    for keys, values in survey.chunks():
        for key, value in zip(keys, values, strict=True):
            if find(key) != value:
                reason = f"the hash index does not find key {key!r}"
                raise CorruptionError(file.name, table.footer.hash_offset, reason)
    if sum(len(keys) for keys, _ in table.chunks(b"", None)) != survey.entries:
        reason = "the block index does not reach every entry"
        raise CorruptionError(file.name, table.footer.index_offset, reason)
    digest = sha256(data).hexdigest()
    if digest != file.sha256:
        reason = f"sha256 is {digest}, the manifest says {file.sha256}"
        raise CorruptionError(file.name, 0, reason)


def _verify_logs(fs: FileSystem, directory: str, manifest: Manifest, report: Report) -> None:
    end = manifest.end
    for file in manifest.logs:
        before = len(report.problems)
        with Noting(report.problems, file.name):
            end = _verify_log(fs, directory, manifest.store_id, file, end, report)
        if len(report.problems) > before:
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
