"""Calls that may fail without failing the caller.

The map commits first and calls the snapshotter or the content store after, so such a call
may fail when the caller's own work is long done. Then it stays recorded (in the queue, as
leftovers, as a claim, as an intent) and is tried again: by a later operation of the kind, at
`reconcile`, and at open. A failure is logged with its cause, and counted.
"""

from __future__ import annotations

import logging
from threading import Lock
from typing import TYPE_CHECKING, Final

from blobkv import BlobKVError

if TYPE_CHECKING:
    from collections.abc import Callable

_LOG: Final = logging.getLogger("blobmap")


class Attempts:
    """Makes such calls.

    Attributes:
        failure_count: How many failed since the map was opened.
    """

    def __init__(self) -> None:
        self.failure_count = 0
        self._mutex = Lock()

    def succeeds(self, what: str, call: Callable[[], object]) -> bool:
        """Make the call; log and count a failure, and return whether there was none.

        Raises:
            BlobKVError: The map itself failed, so what is recorded is in question.
        """
        return self.failure(what, call) is None

    def failure(self, what: str, call: Callable[[], object]) -> Exception | None:
        """Make the call; log, count, and return what it raised, if anything.

        Raises:
            BlobKVError: The map itself failed, so what is recorded is in question.
        """
        try:
            call()
        except BlobKVError:
            raise
        except Exception as error:  # noqa: BLE001  # Foreign code may raise anything.
            with self._mutex:
                self.failure_count += 1
            _LOG.exception("could not %s; it stays recorded and is tried again", what)
            return error
        return None
