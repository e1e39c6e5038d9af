"""A process that does a fixed run of calls on a store, and tells what became of each.

    python -m support.history_script STORE SEED

It goes on after every error, as a program would. It prints a line for each:

    17                  change 17 was acknowledged as durable
    shown 17            a view holds exactly what the history says of change 17
    wrong 17            it does not
    failed CALL EIO     the call raised an OSError with that number
    refused CALL        the call raised PoisonedError
    reopened            the store was closed and opened again

After the first failure it tries a commit, and looks at what is shown.
"""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from support import buckets, history

import blobkv
from blobkv import Store
from blobkv.errors import PoisonedError


class Run:
    """The calls on one store, which is opened twice.

    Attributes:
        failed: Whether any call has failed.
    """

    def __init__(self, path: Path, seed: int) -> None:
        self.failed = False
        self._path = path
        self._seed = seed

    def whole(self) -> None:
        store = self._open()
        if store is not None:
            self._fill(store)
            # A store that cannot be sealed is closed all the same.
            self._try("close", store.close)
        store = self._open()
        if store is not None:
            print("reopened", flush=True)
            self._try("commit", partial(self._commit, store))
            self._show(store)
            self._try("close", store.close)

    def _open(self) -> Store | None:
        stores: list[Store] = []
        self._try("open", lambda: stores.append(blobkv.open(self._path)))
        return stores[0] if stores else None

    def _fill(self, store: Store) -> None:
        commit = partial(self._commit, store)
        calls: list[tuple[str, Callable[[], object]]] = [
            *[("commit", commit)] * 4,
            ("flush", store.flush),
            *[("commit", commit)] * 12,
            *[("quick", partial(commit, durable=False))] * 2,
            ("sync", store.sync),
            ("flush", store.flush),
            *[("commit", commit)] * 2,
            ("compact", store.compact),
            ("backup", partial(store.backup, self._path.with_name("backup"))),
            *[("commit", commit)] * 2,
        ]
        for name, call in calls:
            failed = self.failed
            self._try(name, call)
            if self.failed and not failed:
                self._try("probe", commit)
                self._show(store)

    def _try(self, name: str, call: Callable[[], object]) -> None:
        try:
            call()
        except OSError as error:
            self.failed = True
            print(f"failed {name} {errno.errorcode[error.errno]}", flush=True)
        except PoisonedError:
            self.failed = True
            print(f"refused {name}", flush=True)

    def _commit(self, store: Store, *, durable: bool = True) -> None:
        with store.update(durable=durable) as txn:
            number = history.advance(txn, self._seed)
        if durable:
            print(number, flush=True)

    def _show(self, store: Store) -> None:
        with store.view() as txn:
            contents = buckets.dump(txn)
        number = history.number_of(contents)
        right = contents == history.replayed({}, self._seed, number)
        print("shown" if right else "wrong", number, flush=True)


if __name__ == "__main__":
    with suppress(BrokenPipeError):
        Run(Path(sys.argv[1]), int(sys.argv[2])).whole()
