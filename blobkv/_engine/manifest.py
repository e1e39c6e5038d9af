"""Which files are live: a small text file, replaced as a whole.

    {"format": 1, "store": "<32 hex>", "epoch": 7, "sequence": 41, "next": 12}
    {"table": 9, "size": 18211, "crc": 1439486527, "sha256": "<64 hex>"}
    {"table": 4, "size": 99120, "crc": 3405691582, "sha256": "<64 hex>"}
    {"log": 11, "id": 2864434397}
    {"crc32": "5d84e6e8"}

One JSON object a line, so that a person can read it. The first line describes the store:
`epoch` counts the manifests, `sequence` is the last commit that the tables hold, `next` is
the first unused file number. Then come the tables, from the newest to the oldest, each with
the checksum of its footer as `crc`, then the logs, from the oldest to the newest; what the
logs hold is newer than every table. The last line's checksum covers every byte before it.

A new manifest is written aside, synced, and renamed over the old one, and the directory is
synced: after a crash the old one or the new one is there. A file that no manifest names is
no part of the store.

Source: fjall's and Pebble's manifests, as one readable file instead of a log of edits.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from zlib import crc32

from blobkv._engine.format import FORMAT_VERSION, NewerFormatError
from blobkv._engine.log import End, LogFile
from blobkv._engine.table import TableFile
from blobkv.errors import CorruptionError, LimitError

if TYPE_CHECKING:
    from blobkv._engine.files import FileSystem

MANIFEST_NAME: Final = "MANIFEST"
MANIFEST_ASIDE: Final = "MANIFEST.new"
_NUMBER_MAX: Final = 2**63 - 1
_STORE_ID_SIZE: Final = 16
# A store keeps few tables; this bounds what a hostile manifest can make us read.
MANIFEST_SIZE_MAX: Final = 1 << 24


@dataclass(frozen=True, slots=True)
class Manifest:
    """What a store consists of.

    Attributes:
        store_id: 16 bytes that every log of the store repeats.
        epoch: How many manifests came before this one.
        sequence: The last commit that is in the tables.
        next_number: The first file number not used yet.
        tables: The newest first.
        logs: The oldest first.
    """

    store_id: bytes
    epoch: int = 0
    sequence: int = 0
    next_number: int = 1
    tables: tuple[TableFile, ...] = ()
    logs: tuple[LogFile, ...] = ()

    @property
    def names(self) -> set[str]:
        """The names of all live files but the manifest itself."""
        return {table.name for table in self.tables} | {log.name for log in self.logs}

    @property
    def end(self) -> End:
        """Where the tables end and the logs go on."""
        return End(MANIFEST_NAME, 0, self.sequence)

    def encode(self) -> bytes:
        """Return the manifest's bytes.

        Raises:
            LimitError: Its numbers have grown to what `decode` would refuse.
        """
        if max(self.epoch, self.next_number) > _NUMBER_MAX:
            raise LimitError(f"manifest {self.epoch}, limit {_NUMBER_MAX}; nothing is written")
        lines: list[dict[str, object]] = [
            {
                "format": FORMAT_VERSION,
                "store": self.store_id.hex(),
                "epoch": self.epoch,
                "sequence": self.sequence,
                "next": self.next_number,
            }
        ]
        lines += [
            {
                "table": table.number,
                "size": table.size,
                "crc": table.crc,
                "sha256": table.sha256,
            }
            for table in self.tables
        ]
        lines += [{"log": log.number, "id": log.log_id} for log in self.logs]
        body = "".join(json.dumps(line) + "\n" for line in lines).encode()
        return body + _crc_line(body)

    @classmethod
    def decode(cls, data: bytes) -> Manifest:
        """Read a manifest.

        Raises:
            CorruptionError: It is not one, or of a newer format.
        """
        body, crc_line = _split(data)
        if crc_line != _crc_line(body):
            raise _bad(
                len(body), f"checksum line is {crc_line!r}, expected {_crc_line(body)!r}"
            )
        try:
            head, *lines = map(json.loads, body.splitlines())
            version = _natural(head["format"])
            if version != FORMAT_VERSION:
                reason = (
                    f"the store is of format {version}, this blobkv reads {FORMAT_VERSION}: "
                    "open it with the blobkv that wrote it"
                )
                raise NewerFormatError(MANIFEST_NAME, 0, reason)
            manifest = cls(
                store_id=_store_id(head["store"]),
                epoch=_natural(head["epoch"]),
                sequence=_natural(head["sequence"]),
                next_number=_natural(head["next"]),
                tables=tuple(_table(line) for line in lines if "table" in line),
                logs=tuple(_log(line) for line in lines if "log" in line),
            )
        except (ValueError, KeyError, TypeError, RecursionError) as cause:
            raise _bad(0, f"not a manifest: {cause!r}") from cause
        if len(manifest.names) < len(manifest.tables) + len(manifest.logs):
            # A merge would remove it for one of the two, and miss it for the other.
            raise _bad(0, "a file is named twice")
        numbers = [table.number for table in manifest.tables]
        last = max([*numbers, *(log.number for log in manifest.logs)], default=0)
        if last >= manifest.next_number:
            # A new file would be given the place of one that is there.
            raise _bad(0, f"file {last} is used, though {manifest.next_number} is next")
        return manifest

    def write(self, fs: FileSystem, directory: str) -> None:
        """Make this the store's manifest, durably.

        Raises:
            OSError: The device refused; which manifest is in force now is not known.
        """
        self.write_aside(fs, directory)
        self.replace(fs, directory)

    def write_aside(self, fs: FileSystem, directory: str) -> None:
        """Write the manifest beside the one in force, which stays.

        Raises:
            OSError: The device refused; nothing has changed.
        """
        aside = f"{directory}/{MANIFEST_ASIDE}"
        if MANIFEST_ASIDE in fs.names(directory):
            # Left by a crash; nobody reads it.
            fs.remove(aside)
        file = fs.create(aside)
        try:
            file.append(self.encode())
            file.sync()
        finally:
            file.close()

    @staticmethod
    def replace(fs: FileSystem, directory: str) -> None:
        """Put the manifest that was written aside in force.

        Raises:
            OSError: The device refused. Nobody knows which of the two it kept, so nothing
                that either names may be removed, and nothing more be written.
        """
        fs.rename(f"{directory}/{MANIFEST_ASIDE}", f"{directory}/{MANIFEST_NAME}")
        fs.sync_directory(directory)

    @classmethod
    def read(cls, fs: FileSystem, directory: str, name: str = MANIFEST_NAME) -> Manifest:
        """Read the store's manifest, or the one written aside.

        Raises:
            FileNotFoundError: There is none.
            CorruptionError: It is not what was written.
        """
        file = fs.open(f"{directory}/{name}")
        try:
            return cls.decode(file.read(0, MANIFEST_SIZE_MAX))
        finally:
            file.close()


def _split(data: bytes) -> tuple[bytes, bytes]:
    at = data.rstrip(b"\n").rfind(b"\n") + 1
    return data[:at], data[at:]


def _crc_line(body: bytes) -> bytes:
    return b'{"crc32": "%08x"}\n' % crc32(body)


def _table(line: dict[str, object]) -> TableFile:
    digest = line["sha256"]
    if not isinstance(digest, str):
        raise TypeError(f"a digest is a string, not {digest!r}")
    return TableFile(
        _natural(line["table"]), _natural(line["size"]), _natural(line["crc"]), digest
    )


def _log(line: dict[str, object]) -> LogFile:
    return LogFile(_natural(line["log"]), _natural(line["id"]))


def _store_id(digits: object) -> bytes:
    if not isinstance(digits, str) or len(store_id := bytes.fromhex(digits)) != _STORE_ID_SIZE:
        raise ValueError(f"{digits!r} is no id of a store")
    return store_id


def _natural(number: object) -> int:
    if type(number) is not int or not 0 <= number <= _NUMBER_MAX:
        raise ValueError(f"{number!r} is no number of 63 bits")
    return number


def _bad(offset: int, reason: str) -> CorruptionError:
    return CorruptionError(MANIFEST_NAME, offset, reason)
