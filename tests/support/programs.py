"""Programs for a store as plain data, and the answers that they give.

A program is a list of steps: changes to be made as one commit, questions to be asked, and
views to be opened, asked, and given up. It says nothing of when anything is flushed, merged,
or opened again; so it can be run under any of that, and must give the same answers.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from random import Random
from typing import TYPE_CHECKING

from support import buckets

import blobkv

if TYPE_CHECKING:
    from blobkv import Bucket, Store, Transaction

# What is asked, in plain data: (what, path of a bucket, key, other key).
Question = tuple[str, tuple[bytes, ...], bytes, bytes]
Change = tuple[str, tuple[bytes, ...], bytes, bytes]
Step = tuple[str, object]
Answers = list[object]

_EDGES = b"\x00a\xfe\xff"
_QUESTIONS = ("get", "items", "reversed", "range", "count", "buckets", "cursor", "dump")
_PATHS: tuple[tuple[bytes, ...], ...] = ((), (), (b"in",), (b"in", b"\x00"), (b"\xff",))
_KINDS = ("update", "update", "update", "batch", "undone", "ask", "ask", "view", "end", "end")
_VIEWS_MAX = 2


class Undone(Exception):
    """What ends a block that is to change nothing."""


def make_program(rng: Random, size: int) -> list[Step]:
    """Return a program of so many steps."""
    steps: list[Step] = []
    views: list[int] = []
    for number in range(size):
        kind = rng.choice(_KINDS)
        if kind in {"update", "batch", "undone"}:
            steps.append((kind, [_change(rng) for _ in range(rng.randint(0, 8))]))
            if rng.random() < 0.2:
                steps.append(("update", _many_changes(rng)))
        elif kind == "ask":
            steps.append((kind, _question(rng)))
            steps += [("ask view", (view, _question(rng))) for view in views]
        elif kind == "view" and len(views) < _VIEWS_MAX:
            views.append(number)
            steps.append((kind, number))
        elif kind == "end" and views:
            steps.append((kind, views.pop(rng.randrange(len(views)))))
    steps += [("end", view) for view in views]
    return [*steps, ("ask", ("dump", (), b"", b""))]


def _key(rng: Random) -> bytes:
    if rng.random() < 0.5:
        return bytes(rng.choices(_EDGES, k=rng.randint(0, 4)))
    return b"%03d" % rng.randrange(200)


def _value(rng: Random) -> bytes:
    size = rng.choice((0, 3, 40, 40, 300, 5000))
    return rng.randbytes(3) + bytes(size)


def _change(rng: Random) -> Change:
    what = rng.choice(("put", "put", "put", "delete", "clear", "clear bucket", "ask"))
    value = _value(rng) if what == "put" else rng.choice(_QUESTIONS).encode()
    return what, rng.choice(_PATHS), _key(rng), value


def _many_changes(rng: Random) -> list[Change]:
    """Enough keys next to each other for a range tombstone to be worth it."""
    path = rng.choice(_PATHS)
    if rng.random() < 0.3:
        return [("clear", path, b"%d" % rng.randrange(2), b"")]
    return [("put", path, b"%03d" % i, _value(rng)) for i in range(0, 200, rng.randint(1, 3))]


def _question(rng: Random) -> Question:
    return rng.choice(_QUESTIONS), rng.choice(_PATHS), _key(rng), _key(rng)


def no_pause() -> None:
    """Nothing happens while an answer is given."""


def ask(txn: Transaction, question: Question, pause: Callable[[], None] = no_pause) -> object:
    """Return the answer as plain data; `pause` is called while it is being read."""
    what, path, key, other = question
    entries = buckets.entries_at(txn, path)
    match what:
        case "get":
            return entries.get(key), key in entries
        case "items":
            return _read(iter(entries.items(prefix=key)), pause)
        case "reversed":
            return _read(iter(entries.items(prefix=key[:1], reverse=True)), pause)
        case "range":
            low, high = sorted((key, other))
            return _read(iter(entries.items(start=low, stop=high)), pause)
        case "count":
            return len(entries), len(entries.keys(start=key)), bool(entries)
        case "buckets":
            return entries.buckets()
        case "cursor":
            return _walk(entries, key, pause)
    return buckets.dump(txn)


def _read(pairs: object, pause: Callable[[], None]) -> list[object]:
    assert hasattr(pairs, "__next__")
    found = []
    for pair in pairs:  # type: ignore[attr-defined]
        found.append(pair)
        if len(found) in {1, 60}:
            pause()
    return found


def _walk(entries: Transaction | Bucket, key: bytes, pause: Callable[[], None]) -> list[object]:
    cursor = entries.cursor()
    found: list[object] = [cursor.last(), cursor.seek(key)]
    for move in (cursor.next, cursor.prev, cursor.prev, cursor.next, cursor.next):
        pause()
        there = move()
        found.append((cursor.key, cursor.value) if there else None)
    return found


def make_changes(txn: Transaction, changes: list[Change]) -> Answers:
    """Make the changes; return what they say, and what is asked between them."""
    answers: Answers = []
    for what, path, key, value in changes:
        entries = buckets.entries_at(txn, path)
        match what:
            case "put":
                entries.put(key, value)
            case "delete":
                entries.delete(key)
            case "clear":
                answers.append(entries.clear(key))
            case "clear bucket":
                answers.append(entries.delete_bucket(key))
            case _:
                answers.append(ask(txn, (value.decode(), path, key, b"a")))
    return answers


@dataclass
class Run:
    """A program being run on a store.

    Attributes:
        store: The store, which may be put in place of another between two steps.
        pause: Called while a question is being answered.
        answers: Everything that was answered so far.
        views: The views that are open.
    """

    store: Store
    pause: Callable[[], None] = no_pause
    answers: Answers = field(default_factory=list)
    views: dict[int, Transaction] = field(default_factory=dict)

    def step(self, step: Step) -> None:
        """Take one step, and note what it answers."""
        match step:
            case "update", list(changes):
                with self.store.update(durable=len(changes) % 2 == 0) as txn:
                    self.answers += make_changes(txn, changes)
                self.answers.append(self.store.sequence)
            case "batch", list(changes):
                self.answers += self.store.batch(lambda txn: make_changes(txn, changes))
            case "undone", list(changes):
                with suppress(Undone), self.store.update() as txn:
                    self.answers += make_changes(txn, changes)
                    raise Undone
            case "ask", question:
                with self.store.view() as txn:
                    self.answers.append(ask(txn, question, self.pause))  # type: ignore[arg-type]
            case "view", int(number):
                self.views[number] = self.store.view()
            case "ask view", (int(number), question):
                self.answers.append(ask(self.views[number], question, self.pause))
            case "end", int(number):
                self.views.pop(number).rollback()
            case _:
                raise AssertionError(step)


def serve(path: str) -> None:
    """Answer questions, a line each, from a store that another process writes."""
    with blobkv.open(path, read_only=True) as store:
        for line in sys.stdin:
            with store.view() as txn:
                print(repr(ask(txn, ast.literal_eval(line))), flush=True)
