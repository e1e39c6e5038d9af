"""What can still be proven of a damaged store, as a new store; and what cannot, apart from it.

The new store is the state after one commit, the last before the first damage to a log, without
the keys about which something is not known. A key is known if the newest source that says
anything about it can be read, and no newer one may have said something that cannot be read:

* A gap in a table hides, in all older sources, the keys that the gap may have held.
* A table that is missing, or whose range tombstones cannot be read, hides all that is older.
* Of a table without its footer, or whose blocks' checksums are not the footer's, nothing is
  known: its blocks may be another table's. Where a block's own checksum is lost, that is so.
* Behind damage to a log commits are missing, so what is further on is not what was committed.
* Without a manifest nobody knows which files were in force, and in which order.

What is hidden so is *doubtful*: most of it may be right, some may be values that were
overwritten or deleted long ago. On demand it is written to a second store.

Source: LevelDB's repairer, which does not tell the two apart, and so brings deleted keys back.
"""

from __future__ import annotations

from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from blobkv._engine.backup import Counted, check_empty, empty, write_store
from blobkv._engine.format import COMMIT, LOG_HEADER_SIZE, SEQUENCE_MAX, decode_log_header
from blobkv._engine.log import End, LogFile, LogReader
from blobkv._engine.manifest import MANIFEST_ASIDE, MANIFEST_NAME, Manifest
from blobkv._engine.memtable import Memtable
from blobkv._engine.merge import merged, without_tombstones
from blobkv._engine.ranges import Ranges
from blobkv._engine.recovery import DATA_NAME, check_unnamed_logs, replay, unnamed_logs
from blobkv._engine.report import EVERYTHING, Noting, Problem
from blobkv._engine.sequential import Forward
from blobkv._engine.state import MemtableSource
from blobkv._engine.survey import Remains, Survey
from blobkv.errors import UsageError
from blobkv.spelling import counted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from threading import Lock

    from blobkv._engine.files import FileSystem
    from blobkv._engine.memtable import Chunk
    from blobkv._engine.merge import Source

_NOWHERE: Final = End(MANIFEST_NAME, 0, 0)


@dataclass(slots=True)
class Salvage:
    """What `salvage` wrote, and what was wrong.

    Attributes:
        sequence: The commit that the new store is the state after, as far as it is known.
        entries: How many entries it has.
        doubtful: How many others there are that may be right.
        problems: What is wrong with the store that was read.
    """

    sequence: int = 0
    entries: int = 0
    doubtful: int = 0
    problems: list[Problem] = field(default_factory=list)

    def __str__(self) -> str:
        entries = counted(self.entries, "entry", "entries")
        doubt = f"{self.doubtful} doubtful" if self.problems else "nothing was wrong"
        written = f"salvaged {entries} of commit {self.sequence}; {doubt}"
        return "\n".join([written, *map(str, self.problems)])


def salvage_files(
    fs: FileSystem,
    directory: str,
    target: str,
    doubtful: str | None,
    *,
    lock: Lock,
    progress: Callable[[int, int], None] | None,
) -> Salvage:
    """Write what can be proven to a new store in `target`, and the rest in `doubtful`.

    Args:
        fs: Where all of them are.
        directory: The damaged store's; nothing in it is changed.
        target: A new directory, or an empty one.
        doubtful: Likewise; None to count those entries only.
        lock: What memtables order their keys under.
        progress: As of `Counted`.

    Raises:
        UsageError: A target is not empty, or somebody writes to the store.
        OSError: A target's device refused.

    Cost: reads everything up to four times, and writes it once; memory as for opening.
    """
    for each in filter(None, (target, doubtful)):
        inner, outer = sorted((each, directory), key=len, reverse=True)
        if f"{inner}/".startswith(outer.rstrip("/") + "/"):
            raise UsageError(f"{each}: not beside {directory}; give a directory of its own")
        check_empty(fs, each)
    if target == doubtful:
        raise UsageError(f"{target}: for both; give another directory for what is doubtful")
    with ExitStack() as stack:
        found = _Remainder(fs, directory, lock, stack)
        proven = Counted(found.proven(), found.entries, progress)
        write_store(fs, target, proven.chunks(), found.sequence)
        others = Counted(found.doubtful() if found.problems else iter(()))
        if doubtful is None:
            for _ in others.chunks():
                pass
        else:
            write_store(fs, doubtful, others.chunks(), found.last_sequence)
        try:
            found.check_unchanged()
        except UsageError:
            for each in filter(None, (target, doubtful)):
                empty(fs, each)
            raise
    return Salvage(found.sequence, proven.count, others.count, found.problems)


class _Named(NamedTuple):
    """Which files there are to read.

    Attributes:
        tables: Their names, the newest first, each with the checksum of its footer.
        logs: The oldest first.
        strays: Newer ones, which the manifest does not name.
        end: Where the tables end and the logs go on.
        store_id: What the logs repeat.
        manifest: Whence this is known; None where it is a guess.
    """

    tables: Sequence[tuple[str, int | None]]
    logs: Sequence[LogFile]
    strays: Sequence[LogFile]
    end: End
    store_id: bytes
    manifest: Manifest | None


class _Remainder:
    """What is left of a store.

    Attributes:
        problems: What is wrong.
        sequence: The last commit that is known as a whole, with all before it.
        last_sequence: The last commit of which anything is known.
    """

    def __init__(
        self,
        fs: FileSystem,
        directory: str,
        lock: Lock,
        stack: ExitStack,
    ) -> None:
        self.problems: list[Problem] = []
        self._fs = fs
        self._directory = directory
        self._named = _manifest_or_guess(fs, directory, self.problems)
        self.sequence = self.last_sequence = self._named.end.sequence
        self._kept, self._later = Memtable(lock), Memtable(lock)
        self._read_logs()
        # None for a table of which there is nothing.
        self._tables = [self._survey(name, crc, stack) for name, crc in self._named.tables]

    @property
    def entries(self) -> int:
        """How many entries can be read in all, shadowed ones and tombstones included."""
        tables = sum(survey.entries for survey in self._tables if survey is not None)
        return tables + len(self._kept)

    def proven(self) -> Iterator[Chunk]:
        """Yield the entries that are known, in key order."""
        if self._named.manifest is None:
            return iter(())
        sources = [_source(self._kept)]
        for survey in self._tables:
            if survey is None or not survey.trusted:
                sources.append(_Nothing())
            else:
                sources.append(Remains(survey, survey.lost))
        return _alive(sources)

    def doubtful(self) -> Iterator[Chunk]:
        """Yield what there would be if nothing had been lost, but for what is known."""
        tables = [Remains(survey, Ranges()) for survey in self._tables if survey is not None]
        known = Forward(self.proven())
        for keys, values in _alive([_source(self._later), _source(self._kept), *tables]):
            taken: dict[bytes, bytes | None] = {}
            for chunk in known.chunks(b"", keys[-1] + b"\x00"):
                taken.update(zip(*chunk, strict=True))
            there = [i for i, key in enumerate(keys) if taken.get(key) != values[i]]
            if there:
                yield [keys[i] for i in there], [values[i] for i in there]

    def check_unchanged(self) -> None:
        """Raise UsageError if somebody has written to the store since."""
        before = self._named.manifest
        if before is not None:
            now = _manifest_or_guess(self._fs, self._directory, []).manifest
            if now != before:
                raise UsageError(f"{self._directory}: changed meanwhile; end its writer first")

    def _read_logs(self) -> None:
        end = self._named.end
        broken = self._named.manifest is None
        for file in self._named.logs:
            with Noting(self.problems, file.name):
                if not broken:
                    broken = True
                    end = self._replay(file, end)
                    broken = False
                    continue
            if broken:
                self._collect_from(file)
        for file in self._named.strays:
            self._collect_from(file)

    def _collect_from(self, file: LogFile) -> None:
        # Also of a log whose beginning is damaged.
        with Noting([], file.name):
            self._collect(LogReader(self._fs, self._directory, file, None))

    def _replay(self, file: LogFile, older: End) -> End:
        store_id = self._named.store_id
        with closing(
            LogReader.open_after(self._fs, self._directory, file, store_id, older)
        ) as reader:
            try:
                replay(self._kept, reader.frames())
                reader.check_end()
            finally:
                self.sequence = self.last_sequence = reader.sequence
            return reader.end

    def _collect(self, damaged: LogReader) -> None:
        with closing(damaged) as reader:
            for frame in reader.frames_beyond():
                if frame.kind == COMMIT and frame.sequence > self.last_sequence:
                    replay(self._later, [frame])
                    self.last_sequence = frame.sequence

    def _survey(self, name: str, crc: int | None, stack: ExitStack) -> Survey | None:
        with Noting(self.problems, name, EVERYTHING):
            file = self._fs.open(f"{self._directory}/{name}")
            stack.callback(file.close)
            survey = Survey(file, name, crc)
            self.problems += survey.problems
            return survey
        return None


class _Nothing(Forward):
    """A table of which nothing is left: any key may have been in it."""

    def __init__(self) -> None:
        super().__init__(iter(()))
        self.ranges = Ranges([EVERYTHING])


def _source(memtable: Memtable) -> Source:
    return MemtableSource(memtable, SEQUENCE_MAX, memtable.ranges(SEQUENCE_MAX))


def _alive(sources: Sequence[Source]) -> Iterator[Chunk]:
    chunks = map(without_tombstones, merged(sources, b"", None))
    return (chunk for chunk in chunks if chunk[0])


def _manifest_or_guess(fs: FileSystem, directory: str, problems: list[Problem]) -> _Named:
    names = fs.names(directory)
    with Noting(problems, MANIFEST_NAME, EVERYTHING):
        manifest = Manifest.read(fs, directory)
        strays = unnamed_logs(fs, directory, names, manifest)
        with Noting(problems, MANIFEST_NAME):
            check_unnamed_logs(fs, directory, strays, manifest)
        return _named(manifest, _guess_logs(fs, directory, strays))
    with Noting([], MANIFEST_ASIDE):
        # The one that was about to replace it, or a moment ago was not needed: it says the
        # same of what was committed, as long as all is there that it names.
        manifest = Manifest.read(fs, directory, MANIFEST_ASIDE)
        if manifest.names <= set(names):
            return _named(manifest, ())
    found = sorted((int(m[1]), m[0], m[2]) for m in map(DATA_NAME.fullmatch, names) if m)
    # Flushes and merges take turns with numbers, so that this is no more than likely.
    tables = [(name, None) for _, name, kind in reversed(found) if kind == "tbl"]
    logs = [name for _, name, kind in found if kind == "log"]
    return _Named(tables, list(_guess_logs(fs, directory, logs)), (), _NOWHERE, b"", None)


def _named(manifest: Manifest, strays: Iterable[LogFile]) -> _Named:
    tables = [(table.name, table.crc) for table in manifest.tables]
    logs, end = manifest.logs, manifest.end
    return _Named(tables, logs, list(strays), end, manifest.store_id, manifest)


def _guess_logs(fs: FileSystem, directory: str, names: Iterable[str]) -> Iterator[LogFile]:
    for name in names:
        # Without its header nothing vouches for its frames.
        with Noting([], name), closing(fs.open(f"{directory}/{name}")) as file:
            header = decode_log_header(file.read(0, LOG_HEADER_SIZE), name)
            yield LogFile(header.number, header.log_id)
