"""Blobs are written as the protocol says, whichever content store it is.

Method: the writing half of containerd's content suite restated. Each test runs over the
store in memory and the one in a directory (`conftest.py`), both on a clock that counts, so
that times can be compared exactly.
"""

from __future__ import annotations

from datetime import UTC

import pytest
from support.blobs import ABSENT, add, read, some_bytes

from blobmap import digest as digests
from blobmap.contracts import ContentStore, ContentWriter
from blobmap.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)

REF = "the ref"


def open_again(store: ContentStore, ref: str = REF, size: int = 0) -> ContentWriter:
    """Open the ref, and show that nobody else can meanwhile."""
    writer = store.writer(ref, size=size)
    with pytest.raises(Unavailable):
        store.writer(ref, size=size)
    return writer


def test_five_writers_at_once_whatever_they_know(content: ContentStore) -> None:
    blobs = [some_bytes(size) for size in (0, 1, 4096, 100_000, 3 << 20)]
    known = ((False, False), (True, False), (False, True), (True, True), (True, True))
    writers = [
        content.writer(
            f"c{at}",
            size=len(blob) if size else 0,
            digest=digests.of(blob) if digest else None,
        )
        for at, (blob, (size, digest)) in enumerate(zip(blobs, known, strict=True))
    ]
    for at, (blob, writer) in enumerate(zip(blobs, writers, strict=True)):
        for start in range(0, len(blob), 60_000):
            writer.write(blob[start : start + 60_000])
        assert writer.digest() == digests.of(blob)
        writer.commit(labels={"at": str(at)})

    for at, blob in enumerate(blobs):
        info = content.info(digests.of(blob))
        assert (info.digest, info.size) == (digests.of(blob), len(blob))
        assert info.labels == {"at": str(at)}
        assert info.created == info.updated
        assert info.created is not None
        assert info.created.tzinfo == UTC
        assert read(content, info.digest) == blob
    assert content.list_statuses() == []


def test_the_status_follows_each_write(content: ContentStore) -> None:
    data = some_bytes(256)
    with content.writer("c1", size=256, digest=digests.of(data)) as writer:
        first = writer.status()
        assert (first.ref, first.offset, first.total) == ("c1", 0, 256)
        assert first.expected == digests.of(data)
        assert writer.digest() == digests.of(b"")

        before = first
        for start, end in ((0, 64), (64, 192), (192, 256)):
            assert writer.write(data[start:end]) == end - start
            status = writer.status()
            assert (status.offset, status.total) == (end, 256)
            assert status.started == first.started
            assert status.updated > before.updated
            assert writer.digest() == digests.of(data[:end])
            assert content.status("c1") == status
            before = status
        writer.commit()

    assert content.info(digests.of(data)).size == 256
    with pytest.raises(NotFound):
        content.status("c1")


def test_a_blob_that_is_there_is_not_written_twice(content: ContentStore) -> None:
    data = some_bytes(256)
    digest = add(content, data, {"kept": "yes"})
    before = content.info(digest)

    for size, expected in ((256, digest), (0, None)):
        writer = content.writer(REF)
        writer.write(data)
        with pytest.raises(AlreadyExists):
            writer.commit(size, expected, labels={"kept": "no"})

    assert content.info(digest) == before
    assert content.list_statuses() == []


def test_a_writer_for_a_blob_that_is_there_is_refused(content: ContentStore) -> None:
    digest = add(content, b"there")

    with pytest.raises(AlreadyExists):
        content.writer(REF, digest=digest)
    with pytest.raises(NotFound):
        content.status(REF)


def test_an_ingest_goes_on_where_it_was_left(content: ContentStore) -> None:
    data = some_bytes(256)
    writer = content.writer(REF, size=256)
    writer.write(data[:128])
    before, digest = writer.status(), writer.digest()
    assert (before.offset, before.total) == (128, 256)
    writer.close()
    assert content.status(REF) == before

    writer = content.writer(REF)
    assert writer.status() == before
    assert writer.digest() == digest
    writer.write(data[128:])
    writer.commit(0, None)
    writer.close()

    assert read(content, digests.of(data)) == data


@pytest.mark.parametrize("size", [500, 5_000, 50_000])
@pytest.mark.parametrize("cut", [0.0, 0.1, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("discard", [True, False])
def test_an_ingest_goes_on_or_starts_over(
    content: ContentStore, size: int, cut: float, *, discard: bool
) -> None:
    data, prefix = some_bytes(size), int(size * cut)
    with content.writer(REF, size=size) as writer:
        writer.write(data[:prefix])

    with content.writer(REF, size=size) as writer:
        assert writer.status().offset == prefix
        if discard:
            writer.truncate(0)
            assert writer.status().offset == 0
            assert writer.digest() == digests.of(b"")
        writer.write(data if discard else data[prefix:])
        writer.commit(size, digests.of(data))

    assert read(content, digests.of(data)) == data


def test_another_total_size_starts_the_ingest_over(content: ContentStore) -> None:
    with content.writer(REF, size=10) as writer:
        writer.write(b"12345")

    with content.writer(REF, size=3) as writer:
        assert (writer.status().offset, writer.status().total) == (0, 3)
        writer.write(b"abc")
        writer.commit(3, digests.of(b"abc"))

    assert read(content, digests.of(b"abc")) == b"abc"


def test_an_ingest_is_cut_to_nothing_only(content: ContentStore) -> None:
    with content.writer(REF) as writer:
        writer.write(b"12345")
        with pytest.raises(InvalidArgument):
            writer.truncate(2)
        assert writer.status().offset == 5


def test_every_commit_closes_and_frees_the_ref(content: ContentStore) -> None:
    data = some_bytes(256)
    digest = add(content, data)

    for expected in (digest, None):
        writer = open_again(content, size=256)
        writer.write(data)
        with pytest.raises(AlreadyExists):
            writer.commit(256, expected)

    writer = open_again(content, size=256)
    assert writer.status().offset == 0
    writer.write(data)
    writer.write(b"more")
    with pytest.raises(FailedPrecondition):
        writer.commit(260, ABSENT)
    writer = open_again(content, size=256)
    assert writer.status().offset == 260
    with pytest.raises(FailedPrecondition):
        writer.commit(256, None)
    writer = open_again(content, size=256)
    writer.commit(260, None)
    assert read(content, digests.of(data + b"more")) == data + b"more"

    writer = open_again(content, size=256)
    writer.write(data)
    with pytest.raises(AlreadyExists):
        writer.commit()
    for _ in range(2):
        writer = open_again(content, size=256)
        writer.truncate(0)
        writer.close()
        writer.close()


def test_a_closed_writer_does_nothing_more(content: ContentStore) -> None:
    writer = content.writer(REF)
    writer.write(b"kept")
    writer.close()

    for call in (lambda: writer.write(b"x"), writer.commit, lambda: writer.truncate(0)):
        with pytest.raises(FailedPrecondition):
            call()
    assert content.status(REF).offset == 4


def test_a_malformed_digest_at_commit_keeps_the_ingest(content: ContentStore) -> None:
    with content.writer(REF) as writer:
        writer.write(b"kept")
        with pytest.raises(InvalidArgument):
            writer.commit(4, "sha256:../../etc/passwd")

    assert content.status(REF).offset == 4


def test_blobs_may_be_named_by_sha512(content: ContentStore) -> None:
    running = digests.hasher("sha512")
    running.update(b"long name")
    digest = digests.name(running)

    with content.writer("late") as writer:
        writer.write(b"long name")
        writer.commit(9, digest)
    assert read(content, digest) == b"long name"
    content.delete(digest)

    with content.writer("early", digest=digest) as writer:
        writer.write(b"long name")
        assert writer.digest() == digest
        writer.commit()
    assert [info.digest for info in content.walk()] == [digest]


def test_a_ref_is_any_text_but_nothing(content: ContentStore) -> None:
    refs = ["a/../b", "a b", "\udcff\x00", "é", "..", "/"]
    for ref in refs:
        content.writer(ref).close()

    assert [status.ref for status in content.list_statuses()] == sorted(refs)
    with pytest.raises(InvalidArgument):
        content.writer("")


def test_ingests_are_listed_and_aborted(content: ContentStore) -> None:
    for ref in ("b", "a", "c"):
        with content.writer(ref) as writer:
            writer.write(ref.encode())
    open_writer = content.writer("a")

    assert [status.ref for status in content.list_statuses()] == ["a", "b", "c"]
    assert [status.ref for status in content.list_statuses("ref==b", "ref~=^c")] == ["b", "c"]
    with pytest.raises(InvalidArgument):
        content.list_statuses("ref==")

    content.abort("a")
    content.abort("c")
    with pytest.raises(NotFound):
        content.abort("c")
    with pytest.raises(FailedPrecondition):
        open_writer.write(b"too late")
    assert [status.ref for status in content.list_statuses()] == ["b"]
    with content.writer("c") as writer:
        assert writer.status().offset == 0
