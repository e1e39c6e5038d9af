"""Namespaces share blobs or keep them apart, where a content store has any.

A content store with namespaces has a method `namespace(name, shareable=False)`, which returns
the content store of one. Those without are left out here: `LocalContent` is all one.

Source: containerd's core/content/testsuite.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
from support.blobs import add, read, some_bytes

from blobmap import digest as digests
from blobmap.contracts import ContentStore
from blobmap.errors import NotFound

DATA = some_bytes(1000)
DIGEST = digests.of(DATA)


@pytest.fixture
def namespace(content: ContentStore) -> Callable[..., ContentStore]:
    found: Callable[..., ContentStore] = content.namespace  # type: ignore[attr-defined]
    return found


@pytest.mark.needs("sharing")
def test_a_blob_of_another_namespace_need_not_be_written(
    namespace: Callable[..., ContentStore],
) -> None:
    """Upstream: content/CrossNamespaceShare."""
    first, second = namespace("one"), namespace("two")
    add(first, DATA)
    with pytest.raises(NotFound):
        second.info(DIGEST)

    with second.writer("ref", size=len(DATA), digest=DIGEST) as writer:
        assert writer.status().offset == len(DATA)
        writer.commit()
    for store in (first, second):
        assert store.info(DIGEST).size == len(DATA)
        assert read(store, DIGEST) == DATA
    first.delete(DIGEST)
    assert read(second, DIGEST) == DATA


@pytest.mark.needs("sharing")
def test_what_is_added_to_a_shared_blob_is_another_blob(
    namespace: Callable[..., ContentStore],
) -> None:
    """Upstream: content/CrossNamespaceAppend."""
    first, second = namespace("one"), namespace("two")
    add(first, DATA)
    longer = DATA + b"more"

    with second.writer("ref", size=len(DATA), digest=DIGEST) as writer:
        writer.write(b"more")
        assert writer.status().offset == len(longer)
        writer.commit(len(longer), digests.of(longer))
    assert read(first, DIGEST) == DATA
    assert read(second, digests.of(longer)) == longer
    with pytest.raises(NotFound):
        second.info(DIGEST)


@pytest.mark.needs("isolation")
def test_a_blob_of_another_namespace_is_not_taken(
    namespace: Callable[..., ContentStore],
) -> None:
    """Upstream: content/CrossNamespaceIsolate."""
    first, second = namespace("one"), namespace("two")
    add(first, DATA)

    with second.writer("ref", size=len(DATA), digest=DIGEST) as writer:
        assert writer.status().offset == 0
        assert writer.digest() == digests.of(b"")
        writer.write(DATA)
        writer.commit()
    assert read(second, DIGEST) == DATA


@pytest.mark.needs("isolation")
def test_a_blob_of_a_shareable_namespace_is_taken(
    namespace: Callable[..., ContentStore],
) -> None:
    """Upstream: content/SharedNamespaceIsolate."""
    add(namespace("one", shareable=True), DATA)
    second = namespace("two")

    with second.writer("ref", size=len(DATA), digest=DIGEST) as writer:
        assert writer.status().offset == len(DATA)
        writer.commit()
    assert read(second, DIGEST) == DATA
