"""A blob that is there is trusted only as far as its size; a damaged one is replaced."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from support.fakes import FakeContentStore

from blobmap import DataLoss, NotFound, Unavailable
from blobmap import digest as digests
from blobmap._oci.ingest import ingest
from blobmap.contracts import ContentReader

DATA = b"a layer's bytes"
DIGEST = digests.of(DATA)


def chunks(offset: int) -> Iterator[bytes]:
    yield DATA[offset:]


def read(content: FakeContentStore) -> bytes:
    with content.reader_at(DIGEST) as reader:
        return reader.read_at(0, reader.size)


@pytest.mark.parametrize("damaged", [b"", DATA[:-1], DATA + b"x"])
def test_a_damaged_blob_of_another_size_is_replaced(damaged: bytes) -> None:
    content = FakeContentStore()
    content.add_blob(DATA)
    content._blobs[DIGEST].data = damaged

    ingest(content, DIGEST, len(DATA), chunks)

    assert read(content) == DATA


def test_a_descriptor_with_a_false_size_costs_no_blob() -> None:
    content = FakeContentStore()
    content.add_blob(DATA)

    with pytest.raises(DataLoss, match="where its descriptor says 99"):
        ingest(content, DIGEST, 99, chunks)

    assert read(content) == DATA


def test_a_blob_that_comes_and_goes_ends_in_an_error() -> None:
    content = FakeContentStore()
    content.add_blob(DATA)
    asked = []

    def gone(digest: str) -> ContentReader:
        asked.append(digest)
        raise NotFound(digest)

    content.reader_at = gone

    with pytest.raises(Unavailable, match="import again"):
        ingest(content, DIGEST, len(DATA), chunks)

    assert len(asked) == 5
