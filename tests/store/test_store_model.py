"""The store behaves like a plain dict of buckets that survives whatever happens to it.

Method: Hypothesis builds a program of transactions, maintenance, reopens, power cuts, and
disk errors, over keys that collide, and runs it against a store on a simulated disk and
against plain dicts. After every step both must hold the same entries in the same order, and
views kept open must hold what they held when they were opened. An error fails one call and
changes nothing, or poisons the store until it is reopened. A power cut may lose commits
that were not asked to be durable, the newest first, and nothing else.
"""

from __future__ import annotations

import random
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support import buckets
from support.room_ahead import make_at_once
from support.strategies import bucket_paths, edge_keys, values

import blobkv
from blobkv._engine import overlay
from blobkv._engine.writer import Writer
from blobkv.errors import PoisonedError
from blobkv.testing import SimulatedDisk

if TYPE_CHECKING:
    from support.buckets import Contents, Path

    from blobkv import Bucket, Transaction

pytestmark = pytest.mark.usefixtures("small_pieces")

CHANGES = st.lists(
    st.one_of(
        st.tuples(st.just("put"), bucket_paths(), edge_keys(), values()),
        st.tuples(st.just("put"), bucket_paths(), edge_keys(), values()),
        st.tuples(st.just("delete"), bucket_paths(), edge_keys(), st.none()),
        st.tuples(st.just("clear"), bucket_paths(), edge_keys(), st.none()),
        st.tuples(st.just("delete_bucket"), bucket_paths(), edge_keys(), st.none()),
    ),
    max_size=6,
)
Change = tuple[str, "Path", bytes, bytes | None]


class Oops(Exception):
    """What a failing block raises."""


def change(txn: Transaction | Bucket, contents: Contents, changes: list[Change]) -> None:
    """Make the same changes to a transaction and to the model, comparing what both say."""
    for what, path, key, value in changes:
        entries = buckets.entries_at(txn, path)
        match what:
            case "put":
                assert value is not None
                entries.put(key, value)
                buckets.put(contents, path, key, value)
            case "delete":
                entries.delete(key)
                buckets.delete(contents, path, key)
            case "clear":
                assert entries.clear(key) == buckets.clear(contents, path, key)
            case "delete_bucket":
                expected = buckets.delete_bucket(contents, (*path, key))
                assert entries.delete_bucket(key) == expected
        assert entries.get(key) == contents.get(path, {}).get(key)


class StoreMachine(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        make_at_once(self.patch)
        self.disk = SimulatedDisk()
        self.store = self.open()
        self.model: Contents = {}
        # What a power cut may leave: the last durable state, and every one after it.
        self.possible: list[Contents] = [{}]
        self.views: list[tuple[Transaction, Contents]] = []
        self.backups = 0

    @initialize(at_most=st.sampled_from([0, 2, 64]))
    def choose_how_to_clear(self, at_most: int) -> None:
        """Up to so many keys are cleared one by one, more by a range tombstone."""
        self.patch.setattr(overlay, "_POINT_DELETES_MAX", at_most)

    def open(self) -> blobkv.Store:
        return blobkv.open("/db", fs=self.disk, memtable_size=8192)

    def committed(self, model: Contents, *, durable: bool) -> None:
        self.model = model
        self.possible = [model] if durable else [*self.possible, model]

    @rule(changes=CHANGES, durable=st.booleans(), explicit=st.booleans())
    def update(self, changes: list[Change], *, durable: bool, explicit: bool) -> None:
        model = buckets.copy(self.model)
        before = self.store.sequence
        with self.store.update(durable=durable) as txn:
            change(txn, model, changes)
            assert buckets.dump(txn) == model, "an update sees its own changes"
            if explicit:
                txn.commit()
        assert self.store.sequence - before in (0, 1)
        # An update without changes has nothing to make durable.
        self.committed(model, durable=durable and self.store.sequence > before)

    @rule(changes=CHANGES, raises=st.booleans())
    def roll_back(self, changes: list[Change], *, raises: bool) -> None:
        with suppress(Oops), self.store.update() as txn:
            change(txn, buckets.copy(self.model), changes)
            if raises:
                raise Oops
            txn.rollback()

    @rule(changes=CHANGES)
    def batch(self, changes: list[Change]) -> None:
        model = buckets.copy(self.model)
        before = self.store.sequence

        assert self.store.batch(lambda txn: change(txn, model, changes)) is None
        self.committed(model, durable=self.store.sequence > before)

    @rule(changes=CHANGES)
    def batch_that_raises(self, changes: list[Change]) -> None:
        def fail(txn: Transaction) -> None:
            change(txn, buckets.copy(self.model), changes)
            raise Oops

        with pytest.raises(Oops):
            self.store.batch(fail)

    @rule()
    def flush(self) -> None:
        self.store.flush()
        self.possible = [self.model]

    @rule()
    def compact(self) -> None:
        self.store.compact()

    @rule()
    def sync(self) -> None:
        self.store.sync()
        self.possible = [self.model]

    @rule()
    def reopen(self) -> None:
        self.close_views()
        self.store.close()
        self.store = self.open()
        self.possible = [self.model]

    @rule(seed=st.integers(0, 2**16), keep=st.sampled_from(["all", "none", "random"]))
    def power_cut(self, seed: int, keep: str) -> None:
        self.close_views()
        after = self.disk.crash(random.Random(seed), keep=keep)  # type: ignore[arg-type]
        self.store.close()
        self.disk = after
        self.store = self.open()
        with self.store.view() as txn:
            survived = buckets.dump(txn)
        assert survived in (self.possible if keep != "all" else [self.model])
        self.model = survived
        self.possible = [survived]

    @rule(
        operation=st.sampled_from(
            ["append", "grow", "sync", "truncate", "create", "rename", "sync_directory"]
        ),
        suffix=st.sampled_from([".log", ".tbl", "MANIFEST", "MANIFEST.new", "/db"]),
        kept_size=st.integers(0, 200),
        call=st.sampled_from(["update", "flush", "compact", "sync"]),
        changes=CHANGES,
    )
    def fail(
        self, operation: str, suffix: str, kept_size: int, call: str, changes: list[Change]
    ) -> None:
        """One error fails one call; if it poisons the store, reopening heals it."""
        before, after = self.model, buckets.copy(self.model)
        self.disk.fail(
            when=lambda op, path: op == operation and path.endswith(suffix),
            kept_size=kept_size,
        )
        try:
            if call == "update":
                with self.store.update() as txn:
                    change(txn, after, changes)
                self.committed(after, durable=after != before)
            else:
                getattr(self.store, call)()
        except (OSError, PoisonedError):
            assert self.holds(before)
        self.disk.heal()
        if self.poisoned():
            self.close_views()
            # It says so if a commit that was not to be durable at once never will be.
            with suppress(PoisonedError):
                self.store.close()
            self.store = self.open()
            assert self.holds(before) or self.holds(after)
            self.model = before if self.holds(before) else after
        else:
            self.store.sync()
        self.possible = [self.model]

    def poisoned(self) -> bool:
        assert isinstance(self.store._source, Writer)
        return self.store._source.tree.poisoned

    def holds(self, model: Contents) -> bool:
        with self.store.view() as txn:
            return buckets.dump(txn) == model

    @precondition(lambda self: len(self.views) < 3)
    @rule()
    def open_view(self) -> None:
        self.views.append((self.store.view(), buckets.copy(self.model)))

    @precondition(lambda self: self.views)
    @rule(data=st.data())
    def close_view(self, data: st.DataObject) -> None:
        view, _ = self.views.pop(data.draw(st.integers(0, len(self.views) - 1)))
        view.rollback()

    @rule(
        path=bucket_paths(),
        prefix=edge_keys(),
        start=st.none() | edge_keys(),
        stop=st.none() | edge_keys(),
        reverse=st.booleans(),
    )
    def read_range(
        self,
        path: Path,
        prefix: bytes,
        start: bytes | None,
        stop: bytes | None,
        *,
        reverse: bool,
    ) -> None:
        pairs = sorted(self.model.get(path, {}).items(), reverse=reverse)
        pairs = [
            (key, value)
            for key, value in pairs
            if key.startswith(prefix)
            and (start is None or key >= start)
            and (stop is None or key < stop)
        ]
        with self.store.view() as txn:
            entries = buckets.entries_at(txn, path)
            options = {"prefix": prefix, "start": start, "stop": stop, "reverse": reverse}
            assert list(entries.items(**options)) == pairs
            assert list(entries.keys(**options)) == [key for key, _ in pairs]
            assert list(entries.values(**options)) == [value for _, value in pairs]
            assert len(entries.keys(**options)) == len(pairs)
            assert len(entries) == len(self.model.get(path, {}))
            assert entries.buckets() == buckets.names_under(self.model, path)
            for key, _ in pairs:
                assert key in entries
            for key in (prefix, start, stop):
                if key is not None:
                    assert entries.get(key) == self.model.get(path, {}).get(key)

    @rule()
    def back_up(self) -> None:
        self.backups += 1
        path = f"/backup/{self.backups}"
        self.store.backup(path)
        with (
            blobkv.open(path, fs=self.disk, read_only=True) as copied,
            copied.view() as txn,
        ):
            assert buckets.dump(txn) == self.model

    @rule()
    def read_beside_the_writer(self) -> None:
        with (
            blobkv.open("/db", fs=self.disk, read_only=True) as reader,
            reader.view() as txn,
        ):
            assert buckets.dump(txn) in self.possible

    @rule()
    def verify(self) -> None:
        assert self.store.verify().ok

    @invariant()
    def same_entries_in_same_order(self) -> None:
        with self.store.view() as txn:
            assert buckets.dump(txn) == self.model

    @invariant()
    def views_never_change(self) -> None:
        for view, model in self.views:
            assert buckets.dump(view) == model

    def close_views(self) -> None:
        for view, _ in self.views:
            view.rollback()
        self.views.clear()

    def teardown(self) -> None:
        self.patch.undo()
        self.close_views()
        assert self.store.verify().ok
        self.store.close()


TestStore = StoreMachine.TestCase
TestStore.settings = settings(stateful_step_count=40)
