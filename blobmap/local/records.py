"""The records beside the files: one store a root, its failures told in blobmap's words.

    key              value
    ---------------  ----------------------------------------------------------------
    pack("format")   the version of all other records, in decimal

What else there is belongs to who opens it. Other values are spelled as `blobmap.fields` says;
times in them are ISO 8601 in UTC, to the microsecond.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import blobkv
from blobkv.errors import ClosedError, LimitError
from blobmap.errors import FailedPrecondition, InvalidArgument
from blobmap.local.durable import make_directory

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from blobkv import Transaction

FORMAT: Final = b"1"

_FORMAT_KEY: Final = blobkv.pack("format")


class Records:
    """A blobkv store of JSON records, opened for writing. Safe to call from many threads.

    Args:
        path: The store's directory; made if it does not exist.
        lock_timeout: How long to wait for another who has it open, in seconds.

    Raises:
        FailedPrecondition: Another version of blobmap made the records.
        blobkv.LockedError: They are open elsewhere.
    """

    def __init__(self, path: Path, *, lock_timeout: float = 0.0) -> None:
        make_directory(path.parent)
        self._path = path
        self._store = blobkv.open(path, lock_timeout=lock_timeout)
        try:
            self._check_format()
        except BaseException:
            self._store.close()
            raise

    @contextmanager
    def view(self) -> Iterator[Transaction]:
        """Read one consistent state in a with-block.

        Raises:
            FailedPrecondition: The records are closed.
        """
        with self._told(), self._store.view() as txn:
            yield txn

    @contextmanager
    def update(self, *, durable: bool = True) -> Iterator[Transaction]:
        """Change records in a with-block; if it raises, nothing changes.

        Args:
            durable: Whether to wait until the change survives a power cut. A crash of the
                process it survives either way.

        Raises:
            FailedPrecondition: The records are closed.
            InvalidArgument: A key or value is larger than the store can hold.
        """
        with self._told(), self._store.update(durable=durable) as txn:
            yield txn

    def close(self) -> None:
        """Close the store. Idempotent."""
        self._store.close()

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except ClosedError as error:
            raise FailedPrecondition(f"{self._path.parent}: closed; open it again") from error
        except LimitError as error:
            raise InvalidArgument(f"{self._path.parent}: {error}") from error

    def _check_format(self) -> None:
        with self._store.view() as txn:
            found = txn.get(_FORMAT_KEY)
        if found is None:
            with self._store.update() as txn:
                txn.put(_FORMAT_KEY, FORMAT)
        elif found != FORMAT:
            other = found.decode("ascii", "backslashreplace")
            raise FailedPrecondition(
                f"{self._path}: records of format {other}, and this blobmap reads "
                f"{FORMAT.decode()}; use the blobmap that made them"
            )
