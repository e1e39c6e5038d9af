"""Blobs are written as containerd's content suite asks, whichever content store it is.

Source: containerd's core/content/testsuite.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import BinaryIO

import pytest
from support.blobs import ABSENT, add, read, some_bytes
from support.stretch import Window

from blobmap import digest as digests
from blobmap.contracts import ContentInfo, ContentStore, ContentWriter
from blobmap.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)

REF = "the ref"
CUTS = [(size, cut) for size in (500, 5_000, 50_000) for cut in (0.0, 0.1, 0.5, 0.9, 1.0)]
CHUNK_SIZE = 60_000


def require_info(
    content: ContentStore, data: bytes, committing: Window, labels: dict[str, str]
) -> None:
    """Check the blob's record, and its bytes."""
    info = content.info(digests.of(data))
    assert (info.digest, info.size) == (digests.of(data), len(data))
    assert info.labels == labels
    assert info.created == info.updated
    assert info.created in committing
    assert read(content, info.digest) == data


def open_again(content: ContentStore, size: int = 0) -> ContentWriter:
    """Open the ref, and show that nobody else can meanwhile."""
    writer = content.writer(REF, size=size)
    with pytest.raises(Unavailable):
        content.writer(REF, size=size)
    return writer


def copy(writer: ContentWriter, source: BinaryIO) -> None:
    """Write the rest of the source, by skipping what is there already."""
    offset = writer.status().offset
    if source.seekable():
        source.seek(offset)
    else:
        source.read(offset)
    while chunk := source.read(CHUNK_SIZE):
        writer.write(chunk)


@pytest.mark.slow
def test_five_writers_at_once_whatever_they_know(content: ContentStore) -> None:
    """Upstream: content/Writer."""
    blobs = [some_bytes(size) for size in (0, 1, 4096, 100_000, 32 << 20)]
    known = ((False, False), (True, False), (False, True), (True, True), (True, True))
    writers = [
        content.writer(
            f"c{at}",
            size=len(blob) if size else 0,
            digest=digests.of(blob) if digest else None,
        )
        for at, (blob, (size, digest)) in enumerate(zip(blobs, known, strict=True), start=1)
    ]
    for at, (blob, writer) in enumerate(zip(blobs, writers, strict=True)):
        copy(writer, io.BytesIO(blob))
        assert writer.digest() == digests.of(blob)
        with Window() as committing:
            writer.commit(0, None, labels={"at": str(at)})
        require_info(content, blob, committing, {"at": str(at)})
    assert content.list_statuses() == []


def test_the_status_follows_each_write(content: ContentStore) -> None:
    """Upstream: content/UpdateStatus."""
    data = some_bytes(256)
    with Window() as opening:
        writer = content.writer("c1", size=256, digest=digests.of(data))
    first = writer.status()
    assert (first.ref, first.offset, first.total) == ("c1", 0, 256)
    assert first.expected in {None, digests.of(data)}
    assert first.started in opening
    assert writer.digest() == digests.of(b"")

    for start, end in ((0, 64), (64, 192), (192, 256)):
        with Window() as writing:
            assert writer.write(data[start:end]) == end - start
        status = writer.status()
        assert (status.ref, status.offset, status.total) == ("c1", end, 256)
        assert status.started == first.started
        assert status.updated in writing
        assert writer.digest() == digests.of(data[:end])
        assert content.status("c1") == status
    with Window() as committing:
        writer.commit()

    require_info(content, data, committing, {})
    with pytest.raises(NotFound):
        content.status("c1")


def test_a_blob_that_is_there_is_not_written_twice(content: ContentStore) -> None:
    """Upstream: content/CommitExists."""
    data = some_bytes(256)
    digest = add(content, data, {"kept": "yes"})
    before = content.info(digest)

    for size, expected in ((256, digest), (256, None), (0, None)):
        writer = content.writer(REF)
        writer.write(data)
        with pytest.raises(AlreadyExists):
            writer.commit(size, expected, labels={"kept": "no"})
    assert content.info(digest) == before
    assert content.list_statuses() == []


def test_an_ingest_goes_on_where_it_was_left(content: ContentStore) -> None:
    """Upstream: content/Resume."""
    data = some_bytes(256)
    writer = content.writer(REF, size=256)
    writer.write(data[:128])
    before, digest = writer.status(), writer.digest()
    assert (before.offset, before.total) == (128, 256)
    writer.close()
    assert content.status(REF) == before
    with content.writer(REF) as writer:
        assert writer.status() == before

    writer = content.writer(REF, size=256)
    assert (writer.status(), writer.digest()) == (before, digest)
    writer.write(data[128:])
    with Window() as committing:
        writer.commit(0, None)
    writer.close()

    require_info(content, data, committing, {})


def write_all_anew(writer: ContentWriter, data: bytes) -> None:
    writer.truncate(0)
    assert writer.status().offset == 0
    assert writer.digest() == digests.of(b"")
    writer.write(data)


def write_the_rest(writer: ContentWriter, data: bytes) -> None:
    writer.write(data[writer.status().offset :])


def copy_stream(writer: ContentWriter, data: bytes) -> None:
    class Stream(io.BytesIO):
        def seekable(self) -> bool:
            return False

    copy(writer, Stream(data))


def copy_seeking(writer: ContentWriter, data: bytes) -> None:
    copy(writer, io.BytesIO(data))


def copy_reading_anywhere(writer: ContentWriter, data: bytes) -> None:
    while (offset := writer.status().offset) < len(data):
        writer.write(data[offset : offset + 1000])


@pytest.mark.slow
@pytest.mark.parametrize(
    "resume",
    [write_all_anew, write_the_rest, copy_stream, copy_seeking, copy_reading_anywhere],
)
def test_an_ingest_goes_on_however_it_is_filled(
    content: ContentStore, resume: Callable[[ContentWriter, bytes], None]
) -> None:
    """At the ends, just past one, in the middle, and just before the other.

    Upstream: content/ResumeTruncate, content/ResumeDiscard, content/ResumeCopy,
    content/ResumeCopySeeker, content/ResumeCopyReaderAt.
    """
    for seed, (size, cut) in enumerate(CUTS):
        data, prefix = some_bytes(size, seed), int(size * cut)
        with content.writer(REF, size=size, digest=digests.of(data)) as writer:
            writer.write(data[:prefix])

        with content.writer(REF, size=size, digest=digests.of(data)) as writer:
            assert writer.status().offset == prefix
            resume(writer, data)
            with Window() as committing:
                writer.commit(size, digests.of(data))
        require_info(content, data, committing, {})


def test_reading_past_the_end_gives_what_there_is(content: ContentStore) -> None:
    """Upstream: content/SmallBlob."""
    digest = add(content, b"foobar")

    with content.reader_at(digest) as reader:
        assert reader.size == 6
        assert reader.read_at(0, 7) == b"foobar"
        assert reader.read_at(4, 100) == b"ar"
        assert reader.read_at(6, 1) == reader.read_at(1000, 1) == reader.read_at(0, 0) == b""
        reader.close()


def test_labels_change_as_told(content: ContentStore) -> None:
    """Upstream: content/Labels."""
    digest = add(content, some_bytes(100), {"k1": "v1", "k2": "v2"})
    before = content.info(digest)
    assert before.labels == {"k1": "v1", "k2": "v2"}

    def update(labels: dict[str, str], *paths: str) -> dict[str, str]:
        with Window() as changing:
            after = content.update(ContentInfo(digest, 7, labels=labels), *paths)
        assert (after.size, after.created) == (100, before.created)
        assert after.updated in changing
        assert after.updated != before.updated
        assert content.info(digest) == after
        return dict(after.labels)

    assert update({"k1": "newvalue", "k3": "v3"}) == {"k1": "newvalue", "k3": "v3"}
    assert update({"k1": "v1"}, "labels.k3", "labels.k1") == {"k1": "v1"}


def test_every_commit_closes_and_frees_the_ref(content: ContentStore) -> None:
    """Upstream: content/CommitErrorState."""
    data = some_bytes(256)
    more = data + b"more"
    digest = add(content, data)

    for expected in (digest, None):
        writer = open_again(content, size=256)
        writer.write(data)
        with pytest.raises(AlreadyExists):
            writer.commit(256, expected)

    writer = open_again(content, size=256)
    assert writer.status().offset == 0
    writer.write(more)
    with pytest.raises(FailedPrecondition):
        writer.commit(260, ABSENT)
    for size, expected in ((256, None), (261, None), (0, digest), (256, digest)):
        writer = open_again(content, size=256)
        assert writer.status().offset == 260
        with pytest.raises(FailedPrecondition):
            writer.commit(size, expected)
        with pytest.raises(FailedPrecondition):
            writer.commit()
    open_again(content, size=256).commit(260, None)
    assert read(content, digests.of(more)) == more

    writer = open_again(content, size=256)
    writer.write(data)
    with pytest.raises(AlreadyExists):
        writer.commit()
    for _ in range(2):
        writer = open_again(content, size=256)
        writer.truncate(0)
        writer.close()
        writer.close()


def test_a_label_too_large_closes_and_keeps_the_ingest(content: ContentStore) -> None:
    """Upstream: none."""
    writer = content.writer(REF)
    writer.write(b"kept")
    with pytest.raises(InvalidArgument):
        writer.commit(labels={"k": "v" * 4096})

    writer = open_again(content)
    assert writer.status().offset == 4
    writer.commit(labels={"k": "v" * 4095})
    assert content.info(digests.of(b"kept")).labels == {"k": "v" * 4095}
