"""One sync for all who wait: whoever comes first makes durable what the others wrote, too.

The first who finds no round that it can join opens one, waits for its turn, and syncs. Who
comes before that sync begins joins the round and waits for its end; who comes later opens the
next. So at any time one thread syncs and one waits to be next, and who is woken is served:
nobody queues for a turn only to find that it is not needed.

Joining takes no lock. Two who open a round at once both sync, one after the other; one that
joins too late finds itself not served and goes round again, as do those whose leader failed
or was interrupted: then one of them leads.

Source: the leader who syncs for all follows LevelDB's writer queue and Pebble's commit
pipeline, without the thread that Pebble keeps for syncs.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from blobkv._engine.log import Log


class SharedSync:
    """Makes logs durable for many threads.

    Args:
        sync: Syncs a log; called by one thread at a time.
    """

    def __init__(self, sync: Callable[[Log], None]) -> None:
        self._sync = sync
        self._turn = Lock()
        # The round that can be joined: a lock that is held until the round ends.
        self._joining: Lock | None = None

    def through(self, log: Log, end: int) -> None:
        """Return when the log is durable up to `end`.

        Raises:
            What `sync` raises, when this thread comes to call it.

        Cost: mostly the rest of the sync under way, and one more; a third where two opened a
        round at once.
        """
        while log.synced < end:
            ended = self._joining
            if ended is None:
                self._lead(log, end)
            else:
                # Each who is woken wakes the next.
                with ended:
                    pass

    def _lead(self, log: Log, end: int) -> None:
        ended = Lock()
        ended.acquire()
        # No call from here to the `try`, and none before the release: an interrupt could come
        # there, and nobody else would tell those who wait.
        self._joining = ended
        try:
            with self._turn:
                # What is written from here on, the sync may miss.
                self._joining = None
                if log.synced < end:
                    self._sync(log)
        finally:
            if self._joining is ended:
                self._joining = None
            ended.release()
