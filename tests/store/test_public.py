"""The public surface is what the design promises: names, parameters, defaults, errors.

A change here is a change for every user: it needs a changelog entry, and before 1.0 a reason.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, MutableMapping
from importlib.resources import files
from typing import Any

import pytest

import blobkv
from blobkv import errors, testing
from blobkv.testing import SimulatedDisk

SIGNATURES = {
    blobkv.open: "(path, *, read_only=False, create=True, lock_timeout=0.0, "
    "memtable_size=16777216, fs=None)",
    blobkv.Store.view: "(self)",
    blobkv.Store.update: "(self, *, durable=True)",
    blobkv.Store.batch: "(self, fn)",
    blobkv.Store.flush: "(self)",
    blobkv.Store.compact: "(self)",
    blobkv.Store.sync: "(self)",
    blobkv.Store.verify: "(self, *, progress=None)",
    blobkv.salvage: "(path, target, *, doubtful=None, progress=None, fs=None)",
    blobkv.Store.backup: "(self, path, *, hard_links=False, progress=None)",
    blobkv.Store.stats: "(self)",
    blobkv.Store.close: "(self)",
    blobkv.Transaction.put: "(self, key, value)",
    blobkv.Transaction.delete: "(self, key)",
    blobkv.Transaction.keys: "(self, *, prefix=b'', start=None, stop=None, reverse=False)",
    blobkv.Transaction.values: "(self, *, prefix=b'', start=None, stop=None, reverse=False)",
    blobkv.Transaction.items: "(self, *, prefix=b'', start=None, stop=None, reverse=False)",
    blobkv.Transaction.cursor: "(self, *, prefix=b'', start=None, stop=None)",
    blobkv.Transaction.clear: "(self, prefix=b'')",
    blobkv.Transaction.bucket: "(self, *names)",
    blobkv.Transaction.buckets: "(self)",
    blobkv.Transaction.commit: "(self)",
    blobkv.Transaction.rollback: "(self)",
    blobkv.Transaction.on_commit: "(self, fn)",
    blobkv.Bucket.put: "(self, key, value)",
    blobkv.Bucket.bucket: "(self, *names)",
    blobkv.Cursor.first: "(self)",
    blobkv.Cursor.last: "(self)",
    blobkv.Cursor.next: "(self)",
    blobkv.Cursor.prev: "(self)",
    blobkv.Cursor.seek: "(self, key)",
    blobkv.Cursor.delete: "(self)",
    blobkv.prefix_end: "(prefix)",
    blobkv.pack: "(*parts)",
    blobkv.unpack: "(key)",
    testing.SimulatedDisk: "(*, capacity=None, lie=False)",
    testing.SimulatedDisk.crash: "(self, rng, *, keep='random')",
}


@pytest.mark.parametrize("call", SIGNATURES, ids=lambda call: call.__qualname__)
def test_signatures(call: Any) -> None:
    signature = inspect.signature(call)
    bare = signature.replace(
        parameters=[
            parameter.replace(annotation=parameter.empty)
            for parameter in signature.parameters.values()
        ],
        return_annotation=signature.empty,
    )

    assert str(bare) == SIGNATURES[call]


def test_get_takes_its_default_by_name_and_by_place() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store, store.view() as txn:
        assert txn.get(b"k") is None
        assert txn.get(b"k", b"d") == b"d"
        assert txn.get(b"k", default=b"d") == b"d"


def test_all_names_exist_and_are_all_there_is() -> None:
    public = {
        name
        for name, value in vars(blobkv).items()
        if not name.startswith("_") and not inspect.ismodule(value) and name != "annotations"
    }

    # `TYPE_CHECKING` is the one import that is no part of the surface.
    assert public - {"TYPE_CHECKING"} == set(blobkv.__all__) - {"__version__"}
    assert len(blobkv.__all__) == len(set(blobkv.__all__))


def test_transactions_and_buckets_are_mappings() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        with store.update() as txn:
            assert isinstance(txn, MutableMapping)
            assert isinstance(txn.bucket("b"), MutableMapping)
            txn.update({b"a": b"1", b"b": b"2"})
            assert txn.pop(b"a") == b"1"
            assert txn.setdefault(b"c", b"3") == b"3"
            assert txn.popitem() == (b"b", b"2")
            txn.bucket("b")[b"k"] = b"v"
        with store.view() as txn:
            assert isinstance(txn, Mapping)
            assert txn == {b"c": b"3"}
            assert b"c" in txn.keys()  # noqa: SIM118 - the keys view is under test.
            assert (b"c", b"3") in txn.items()
            assert (b"c", b"4") not in txn.items()
            assert b"3" in txn.values()
            assert txn.keys() & {b"c", b"x"} == {b"c"}
            assert txn.bucket("b") == {b"k": b"v"}


def test_the_errors_form_the_promised_tree() -> None:
    tree = {
        errors.BlobKVError: Exception,
        errors.UsageError: errors.BlobKVError,
        errors.ClosedError: errors.UsageError,
        errors.ReadOnlyError: errors.UsageError,
        errors.LimitError: errors.UsageError,
        errors.LockedError: errors.BlobKVError,
        errors.PoisonedError: errors.BlobKVError,
        errors.CorruptionError: errors.BlobKVError,
    }

    for error, base in tree.items():
        assert error.__bases__ == (base,)
        assert getattr(blobkv, error.__name__) is error


def test_a_store_tells_its_path_and_its_last_commit() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store:
        assert str(store.path) == "/db"
        assert store.sequence == 0
        with store.update() as txn:
            assert txn.sequence == 0
            txn.put(b"k", b"v")
        assert store.sequence == txn.sequence == 1
        with store.view() as txn:
            assert txn.sequence == 1


def test_bucket_names_are_bytes_or_their_utf8() -> None:
    with blobkv.open("/db", fs=SimulatedDisk()) as store, store.update() as txn:
        txn.bucket("é", b"\x00").put(b"k", b"v")

        assert txn.bucket("é".encode()).bucket(b"\x00")[b"k"] == b"v"
        assert txn.buckets() == ["é".encode()]
        with pytest.raises(errors.UsageError):
            txn.bucket()


def test_the_package_is_typed() -> None:
    assert files("blobkv").joinpath("py.typed").is_file()


@pytest.mark.parametrize("module", [blobkv, testing])
def test_everything_public_says_what_it_is(module: Any) -> None:
    for name in module.__all__:
        value = getattr(module, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert value.__doc__, name
            for member, function in inspect.getmembers(value, inspect.isfunction):
                assert member.startswith("_") or inspect.getdoc(function), f"{name}.{member}"
