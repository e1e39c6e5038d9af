"""Short ranges are read at once and kept until another is: the same pairs as in a dict.

Method: stores of every mix of layers, with range tombstones and buckets, against a dict; and
a count of how often a table is asked.
"""

from __future__ import annotations

import random
import sys
import threading

import pytest

import blobkv
from blobkv import Store
from blobkv._engine.table import Table
from blobkv.errors import ClosedError
from blobkv.testing import SimulatedDisk

KEYS = [b"%03d/%d" % (i // 10, i % 10) for i in range(3000)]


def change(store: Store, model: dict[bytes, bytes], rng: random.Random, size: int) -> None:
    with store.update() as txn:
        for key in rng.sample(KEYS, 400):
            value = rng.randbytes(rng.randrange(size))
            txn.put(key, value)
            model[key] = value
        for key in rng.sample(KEYS, 100):
            txn.delete(key)
            model.pop(key, None)
        if rng.random() < 0.5:
            prefix = b"%02d" % rng.randrange(30)
            txn.clear(prefix)
            for key in [key for key in model if key.startswith(prefix)]:
                del model[key]
        # Next to the entries, to be kept out of every range of theirs.
        txn.bucket("b").put(KEYS[rng.randrange(len(KEYS))], b"other")


@pytest.mark.parametrize("size", [1, 60, 3000])
@pytest.mark.parametrize("seed", range(6))
def test_short_ranges_hold_what_a_dict_holds(seed: int, size: int) -> None:
    rng = random.Random(seed)
    model: dict[bytes, bytes] = {}
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        for _ in range(rng.randrange(1, 6)):
            change(store, model, rng, size)
            if rng.random() < 0.7:
                store.flush()
        if seed == 0:
            store.compact()
        with store.view() as txn:
            for _ in range(200):
                low, count = rng.randrange(len(KEYS)), rng.randrange(40)
                start, stop = KEYS[low], KEYS[min(low + count, len(KEYS) - 1)]
                wanted = sorted((k, v) for k, v in model.items() if start <= k < stop)
                found = txn.items(start=start, stop=stop)
                assert list(found) == list(found) == wanted
                assert len(found) == len(wanted)
                assert list(txn.items(start=start, stop=stop, reverse=True)) == wanted[::-1]
            for prefix in {key[: rng.randrange(2, 5)] for key in KEYS}:
                wanted = sorted(pair for pair in model.items() if pair[0].startswith(prefix))
                assert list(txn.keys(prefix=prefix)) == [key for key, _ in wanted]
                assert list(txn.values(prefix=prefix)) == [value for _, value in wanted]


def test_the_length_that_list_asks_for_is_no_second_reading(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = []
    read_short = Table.read_short

    def counted(self: Table, start: bytes, stop: bytes | None) -> object:
        asked.append(start)
        return read_short(self, start, stop)

    monkeypatch.setattr(Table, "read_short", counted)
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update(dict.fromkeys(KEYS, b"v"))
        store.flush()
        with store.view() as txn:
            assert len(list(txn.items(prefix=b"123/"))) == 10
            assert asked == [b"\x00123/"]
            assert len(list(txn.items(prefix=b"124/"))) == 10
            assert len(list(txn.items(prefix=b"123/"))) == 10
    assert len(asked) == 3


def test_a_kept_range_answers_for_no_other_that_begins_or_ends_there() -> None:
    pairs = [(b"%d" % i, b"v") for i in range(5)]
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update(dict(pairs))
        with store.view() as txn:
            for start, stop in ((1, 4), (1, 3), (2, 3), (2, 4), (1, 4)):
                found = txn.items(start=b"%d" % start, stop=b"%d" % stop)
                assert list(found) == pairs[start:stop]


@pytest.mark.usefixtures("clear_by_range")
def test_what_was_cleared_is_in_no_short_range() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update({b"a1": b"old", b"a2": b"old", b"b": b"old"})
        store.flush()
        with store.update() as txn:
            txn.clear(b"a")
            txn.put(b"a2", b"new")
        with store.view() as txn:
            assert list(txn.items(prefix=b"a")) == [(b"a2", b"new")]
            assert list(txn.items(start=b"a1", stop=b"a2")) == []
            assert list(txn.items()) == [(b"a2", b"new"), (b"b", b"old")]


def test_a_kept_range_is_gone_with_its_commit_its_view_and_its_store() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.put(b"a1", b"old")
        store.flush()
        view = store.view()
        assert list(view.items(prefix=b"a")) == [(b"a1", b"old")]
        with store.update() as txn:
            txn.put(b"a2", b"new")
            assert list(txn.items(prefix=b"a")) == [(b"a1", b"old"), (b"a2", b"new")]
        assert list(view.items(prefix=b"a")) == [(b"a1", b"old")]
        assert len(list(store.view().items(prefix=b"a"))) == 2
        begun = iter(view.items(prefix=b"a"))
        other = store.view()
        assert list(other.items(prefix=b"a"))
        kept = other.items(prefix=b"a")
        view.rollback()
        with pytest.raises(ClosedError):
            next(begun)
    with pytest.raises(ClosedError):
        list(kept)


def test_threads_that_read_one_commit_do_not_get_each_others_ranges() -> None:
    wrong: list[object] = []
    interval = sys.getswitchinterval()
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.update({key: key for key in KEYS})
        store.flush()

        def read(seed: int) -> None:
            rng = random.Random(seed)
            with store.view() as txn:
                for _ in range(400):
                    prefix = b"%03d/" % rng.randrange(300)
                    found = list(txn.items(prefix=prefix))
                    if len(found) != 10 or any(not key.startswith(prefix) for key, _ in found):
                        wrong.append((prefix, found))

        sys.setswitchinterval(1e-6)
        try:
            threads = [threading.Thread(target=read, args=(seed,)) for seed in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            sys.setswitchinterval(interval)
    assert not wrong


def test_large_values_are_not_kept() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            txn.put(b"a", bytes(1 << 20))
        store.flush()
        with store.view() as txn:
            assert len(list(txn.items(prefix=b"a"))) == 1
            assert txn._scope.reader._recent is None
