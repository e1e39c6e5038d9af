"""Blobs for tests: bytes to make them of, and the two steps that most tests take."""

from __future__ import annotations

from random import Random

from blobmap import digest as digests
from blobmap.contracts import ContentStore

ABSENT = digests.of(b"no blob has these bytes")


def some_bytes(size: int, seed: int = 0) -> bytes:
    return Random(f"{size} {seed}").randbytes(size)


def add(store: ContentStore, data: bytes, labels: dict[str, str] | None = None) -> str:
    """Make `data` a blob; return its digest."""
    with store.writer(f"add {digests.of(data)}") as writer:
        writer.write(data)
        writer.commit(labels=labels)
    return digests.of(data)


def read(store: ContentStore, digest: str) -> bytes:
    with store.reader_at(digest) as reader:
        return reader.read_at(0, reader.size)
