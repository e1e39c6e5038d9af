"""Blobs are what their digests say, and none is left over, whatever a step is broken off by.

Method: the real store in a directory, with one call made to fail or to be interrupted.
"""

from __future__ import annotations

import array
import contextlib
import errno
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import pytest

from blobmap import digest as digests
from blobmap.errors import FailedPrecondition, NotFound
from blobmap.local import LocalContent, content, ingest, records, writer

REF = "the ref"
DATA = b"the bytes of a blob"
DIGEST = digests.of(DATA)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "content"


def commit(store: LocalContent) -> None:
    with store.writer(REF) as open_end:
        open_end.truncate(0)
        open_end.write(DATA)
        open_end.commit()


def blobs(store: LocalContent) -> dict[str, bytes]:
    """Return what is there, and check that each blob's digest is that of its bytes."""
    found = {}
    for info in store.walk():
        with store.reader_at(info.digest) as reader:
            found[info.digest] = reader.read_at(0, reader.size)
        assert digests.of(found[info.digest]) == info.digest
    return found


def broken(*_: object) -> None:
    raise OSError(errno.EIO, os.strerror(errno.EIO))


@contextmanager
def struck(at: int, *modules: object) -> Iterator[None]:
    """Raise KeyboardInterrupt at the place of that number in the modules."""
    sources = {module.__file__ for module in modules}  # type: ignore[attr-defined]
    left = at

    def meet(frame: FrameType, event: str, _called: object) -> None:
        nonlocal left
        if event in {"call", "c_return"} and frame.f_code.co_filename in sources:
            left -= 1
            if left == 0:
                raise KeyboardInterrupt

    sys.setprofile(meet)
    try:
        yield
    finally:
        sys.setprofile(None)


@pytest.mark.parametrize("step", ["sync_directory", "_encode"])
def test_a_commit_that_fails_after_its_name_is_there_takes_it_back(
    root: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    with LocalContent(root) as store:
        (root / "blobs" / "sha256").mkdir(exist_ok=True)
        monkeypatch.setattr(f"blobmap.local.content.{step}", broken)
        with pytest.raises(OSError, match="Input/output"):
            commit(store)
        monkeypatch.undo()
        assert blobs(store) == {}
        assert [status.ref for status in store.list_statuses()] == [REF]

    with LocalContent(root) as store:
        assert blobs(store) == {}
        with store.writer(REF) as resumed:
            assert resumed.status().offset == len(DATA)
            resumed.commit()
        assert blobs(store) == {DIGEST: DATA}


def test_a_name_without_a_record_goes_though_there_was_no_blob(root: Path) -> None:
    with LocalContent(root) as store:
        commit(store)
        with store._records.update() as txn:
            for key in list(txn.keys(prefix=b"")):
                if DIGEST.encode() in key:
                    txn.delete(key)
        with pytest.raises(NotFound):
            store.delete(DIGEST)

    with LocalContent(root) as store:
        assert blobs(store) == {}


def test_a_delete_is_not_said_to_be_done_before_the_directory_is_synced(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with LocalContent(root) as store:
        commit(store)
        monkeypatch.setattr("blobmap.local.content.sync_directory", broken)
        for _ in range(2):
            with pytest.raises(OSError, match="Input/output"):
                store.delete(DIGEST)
        monkeypatch.undo()
        with pytest.raises(NotFound):
            store.delete(DIGEST)
        with store._records.view() as txn:
            assert not [key for key in txn if DIGEST.encode() in key]


def test_an_interrupted_write_appends_all_or_nothing(root: Path) -> None:
    with LocalContent(root) as store:
        at, struck_count = 1, 0
        while True:
            with store.writer(f"{REF} {at}") as open_end:
                open_end.write(b"before")
                try:
                    with struck(at, writer):
                        open_end.write(b"interrupted")
                    break
                except KeyboardInterrupt:
                    struck_count += 1
                open_end.write(b"%d" % at)
                open_end.commit()
            at += 1
        assert struck_count > 3
        assert set(blobs(store).values()) <= {
            b"before%s%d" % (middle, number)
            for middle in (b"", b"interrupted")
            for number in range(1, at)
        }
        assert len(blobs(store)) == struck_count


def test_a_file_that_is_not_what_was_hashed_becomes_no_blob(root: Path) -> None:
    with LocalContent(root) as store:
        open_end = store.writer(REF)
        open_end.write(DATA)
        os.pwrite(open_end._file.fileno(), b"more", len(DATA))
        with pytest.raises(FailedPrecondition, match="open the ref again"):
            open_end.commit()
        assert blobs(store) == {}

        with store.writer(REF) as resumed:
            assert resumed.status().offset == len(DATA) + 4
            resumed.commit()
        assert blobs(store) == {digests.of(DATA + b"more"): DATA + b"more"}


def test_bytes_are_counted_where_items_are_wider(root: Path) -> None:
    numbers = array.array("I", [1, 2, 3])
    with LocalContent(root) as store, store.writer(REF) as open_end:
        assert open_end.write(memoryview(numbers)) == numbers.itemsize * 3  # type: ignore[arg-type]
        open_end.write(b"zz")
        open_end.commit()
        assert list(blobs(store).values()) == [numbers.tobytes() + b"zz"]


def close(store: LocalContent) -> None:
    # Twice, as a with-block would: the first may not have begun.
    open_end = store.writer(REF)
    try:
        open_end.close()
    finally:
        open_end.close()


def abort(store: LocalContent) -> None:
    store.abort(REF)


@pytest.mark.parametrize("act", [close, abort])
def test_an_interrupt_leaves_the_ref_free(
    root: Path, act: Callable[[LocalContent], None]
) -> None:
    with LocalContent(root) as store:
        at = 1
        while True:
            with store.writer(REF) as open_end:
                open_end.write(DATA)
            try:
                with struck(at, ingest, writer):
                    act(store)
                break
            except KeyboardInterrupt:
                at += 1
        assert at > 3
        store.writer(REF).close()


def test_an_interrupted_commit_raises_the_interrupt_and_can_be_made_again(root: Path) -> None:
    at = 1
    while True:
        with LocalContent(root / str(at)) as store:
            try:
                with store.writer(REF) as open_end:
                    open_end.write(DATA)
                    with struck(at, content, contextlib, ingest, records, writer):
                        open_end.commit()
                break
            except KeyboardInterrupt:
                at += 1
            if DIGEST not in blobs(store):
                commit(store)
            assert blobs(store) == {DIGEST: DATA}
    assert at > 20
