"""Histories of calls on a map, and whether they could have been made one after another.

A model is a set of *families*: names and blobs that no call of another family concerns, so
that each family's calls are judged by themselves. `linearizes` looks for an order of the
calls in which each has the outcome it had, and no call stands before one that had ended when
it began.

A blob in the model is *absent*; *free*: there, and never held since; *held*, which is what the
mappings say; or *doomed*: let go, and gone at any time from then on, for deletions are done
later. So a call may have several outcomes, and the search follows all of them.

Source: Wing and Gong's search, with the memory that Lowe added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound

ABSENT, FREE, HELD, DOOMED = "absent", "free", "held", "doomed"
ACTIVE, COMMITTED, VIEW = "active", "committed", "view"

EXPECTED = (AlreadyExists, FailedPrecondition, InvalidArgument, NotFound)

Args = tuple[str, ...]


@dataclass(frozen=True)
class Call:
    """One call: when it began and ended, what it was, and what came of it.

    Attributes:
        began: On a clock that all calls share.
        ended: Likewise.
        name: The method.
        args: Its arguments.
        outcome: What it returned, or the name of the error that it raised.
    """

    began: int
    ended: int
    name: str
    args: Args
    outcome: str


@dataclass
class Family:
    """Some snapshots, by name with kind, parent, and blob, and some blobs with their fate.

    Its methods are the calls. Each returns its outcome.
    """

    snapshots: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    blobs: dict[str, str] = field(default_factory=dict)

    def key(self) -> tuple[frozenset[object], frozenset[object]]:
        """Return what is equal for equal families."""
        return frozenset(self.snapshots.items()), frozenset(self.blobs.items())

    def prepare(self, key: str, parent: str, kind: str = ACTIVE) -> str:
        if key in self.snapshots:
            raise AlreadyExists
        if parent and self._find(parent)[0] != COMMITTED:
            raise InvalidArgument
        self.snapshots[key] = kind, parent, ""
        return ""

    def view(self, key: str, parent: str) -> str:
        return self.prepare(key, parent, VIEW)

    def commit(self, name: str, key: str) -> str:
        if name in self.snapshots:
            raise AlreadyExists
        kind, parent, _ = self._find(key)
        if kind != ACTIVE:
            raise FailedPrecondition
        del self.snapshots[key]
        self.snapshots[name] = COMMITTED, parent, ""
        return ""

    def remove(self, key: str) -> str:
        self._find(key)
        if any(parent == key for _, parent, _ in self.snapshots.values()):
            raise FailedPrecondition
        self._let_go(self.snapshots.pop(key)[2])
        return ""

    def set_blob(self, key: str, digest: str, replace: str) -> str:
        kind, parent, old = self._find(key)
        if kind != COMMITTED:
            raise FailedPrecondition
        if self.blobs[digest] == ABSENT:
            raise NotFound
        if old not in ("", digest) and not replace:
            raise AlreadyExists
        self.snapshots[key] = kind, parent, digest
        self.blobs[digest] = HELD
        if old != digest:
            self._let_go(old)
        return ""

    def unset_blob(self, key: str) -> str:
        kind, parent, old = self._find(key)
        self.snapshots[key] = kind, parent, ""
        self._let_go(old)
        return ""

    def get_blob(self, key: str) -> str:
        return self._find(key)[2]

    def add_blob(self, digest: str) -> str:
        if self.blobs[digest] == ABSENT:
            self.blobs[digest] = FREE
        return ""

    def reconcile(self) -> str:
        return ""

    def look(self) -> str:
        """Tell all that can be seen from outside when nothing is going on."""
        present = {digest for digest, fate in self.blobs.items() if fate != ABSENT}
        queued = {digest for digest, fate in self.blobs.items() if fate == DOOMED}
        return looked(self.snapshots, present, queued)

    def fates(self) -> Iterator[Family]:
        """Yield copies of the family, with any of the doomed blobs gone."""
        doomed = [digest for digest, fate in self.blobs.items() if fate == DOOMED]
        for chosen in range(1 << len(doomed)):
            gone = {digest: ABSENT for i, digest in enumerate(doomed) if chosen >> i & 1}
            yield Family(dict(self.snapshots), self.blobs | gone)

    def _find(self, key: str) -> tuple[str, str, str]:
        if key not in self.snapshots:
            raise NotFound
        return self.snapshots[key]

    def _let_go(self, digest: str) -> None:
        if digest and all(held != digest for _, _, held in self.snapshots.values()):
            self.blobs[digest] = DOOMED


def looked(
    snapshots: dict[str, tuple[str, str, str]], present: set[str], queued: set[str]
) -> str:
    """Return the outcome of a call of `look`."""
    return repr((sorted(snapshots.items()), sorted(present), sorted(queued)))


def outcome_of(call: Callable[..., str], *args: str) -> str:
    """Make the call; return what it returned, or the name of the error that it raised."""
    try:
        return call(*args)
    except EXPECTED as error:
        return type(error).__name__


def linearizes(calls: Sequence[Call], start: Family) -> bool:
    """Return whether some order of the calls explains their outcomes."""
    order = sorted(calls, key=lambda call: call.began)
    seen = set()
    stack = [((1 << len(order)) - 1, start)]
    while stack:
        left, family = stack.pop()
        if not left:
            return True
        if (left, family.key()) in seen:
            continue
        seen.add((left, family.key()))
        waiting = [i for i in range(len(order)) if left >> i & 1]
        # Whoever comes next must have begun before any that is left has ended.
        first_end = min(order[i].ended for i in waiting)
        for i in reversed(waiting):
            if order[i].began < first_end:
                after = left & ~(1 << i)
                stack += ((after, found) for found in following(family, order[i]))
    return False


def following(family: Family, call: Call) -> Iterator[Family]:
    """Yield what the call may make of the family, if its outcome can be."""
    for found in family.fates():
        if _refuses(found, call) or outcome_of(getattr(found, call.name), *call.args) == (
            call.outcome
        ):
            yield found


def _refuses(family: Family, call: Call) -> bool:
    """Return whether a name is taken and a key missing: then either may be told."""
    missing = call.name == "commit" and call.args[1] not in family.snapshots
    return missing and call.outcome == NotFound.__name__
