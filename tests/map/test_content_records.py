"""Blobs are found, labelled, walked, and deleted as the protocol says, whichever store it is.

Method: the other half of containerd's content suite restated, and what it leaves out:
deletes under readers, walks with changes inside them, label limits, malformed digests.
"""

from __future__ import annotations

import pytest
from support.blobs import ABSENT, add, some_bytes

from blobmap.contracts import ContentInfo, ContentStore
from blobmap.errors import (
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)

REF = "the ref"


def test_an_empty_store_has_nothing(content: ContentStore) -> None:
    assert list(content.walk()) == []
    assert content.list_statuses() == []


def test_reading_past_the_end_gives_what_there_is(content: ContentStore) -> None:
    digest = add(content, b"foobar")

    with content.reader_at(digest) as reader:
        assert reader.size == 6
        assert reader.read_at(0, 7) == b"foobar"
        assert reader.read_at(3, 2) == b"ba"
        assert reader.read_at(4, 1 << 60) == b"ar"
        assert reader.read_at(6, 1) == b""
        assert reader.read_at(100, 1) == b""
        assert reader.read_at(2, 0) == b""
        with pytest.raises(InvalidArgument):
            reader.read_at(-1, 1)
        with pytest.raises(InvalidArgument):
            reader.read_at(0, -1)
    reader.close()
    with pytest.raises(FailedPrecondition):
        reader.read_at(0, 1)


def test_labels_change_as_told(content: ContentStore) -> None:
    digest = add(content, b"labelled", {"k1": "v1", "k2": "v2"})
    first = content.info(digest)

    second = content.update(ContentInfo(digest, 0, labels={"k1": "new", "k3": "v3"}))
    assert second.labels == {"k1": "new", "k3": "v3"}
    assert (second.created, second.size) == (first.created, 8)
    assert first.updated is not None
    assert second.updated is not None
    assert second.updated > first.updated

    third = content.update(
        ContentInfo(digest, 0, labels={"k1": "v1", "k9": "ignored"}), "labels.k3", "labels.k1"
    )
    assert third.labels == {"k1": "v1"}
    assert content.info(digest) == third

    assert content.update(ContentInfo(digest, 0, labels={"a.b": "1"}), "labels").labels == {
        "a.b": "1"
    }
    assert content.update(ContentInfo(digest, 0, labels={}), "labels.a.b").labels == {}


@pytest.mark.parametrize("path", ["size", "digest", "label", "labels.", "", "labels x"])
def test_only_labels_can_change(content: ContentStore, path: str) -> None:
    digest = add(content, b"fixed", {"a": "b"})

    with pytest.raises(InvalidArgument):
        content.update(ContentInfo(digest, 9, labels={}), path)
    assert content.info(digest).labels == {"a": "b"}


def test_a_label_has_a_value_and_a_limit(content: ContentStore) -> None:
    digest = add(content, b"limits", {"empty": "", "é" * 10: "x" * (4096 - 20)})

    assert set(content.info(digest).labels) == {"é" * 10}
    with pytest.raises(InvalidArgument, match="4097 bytes"):
        content.update(ContentInfo(digest, 0, labels={"é" * 10: "x" * (4097 - 20)}))
    with content.writer(REF) as writer:
        writer.write(b"more")
        with pytest.raises(InvalidArgument, match="limit 4096"):
            writer.commit(labels={"k": "v" * 4096})
    assert content.status(REF).offset == 4


def test_a_deleted_blob_is_gone_except_for_who_reads_it(content: ContentStore) -> None:
    digest = add(content, b"read on")

    with content.reader_at(digest) as reader:
        content.delete(digest)
        assert reader.read_at(0, 100) == b"read on"

    assert list(content.walk()) == []
    for call in (content.info, content.reader_at, content.delete):
        with pytest.raises(NotFound):
            call(digest)
    with pytest.raises(NotFound):
        content.update(ContentInfo(digest, 0, labels={}))


def test_a_blob_added_again_is_a_new_one(content: ContentStore) -> None:
    digest = add(content, b"again", {"old": "1"})
    before = content.info(digest)
    content.delete(digest)
    add(content, b"again")

    after = content.info(digest)
    assert after.labels == {}
    assert before.created is not None
    assert after.created is not None
    assert after.created > before.created


@pytest.mark.parametrize("digest", ["", "sha256:", "../x", ABSENT.upper(), ABSENT + "\n"])
def test_a_malformed_digest_is_refused_everywhere(content: ContentStore, digest: str) -> None:
    for call in (content.info, content.delete, content.reader_at):
        with pytest.raises(InvalidArgument):
            call(digest)
    with pytest.raises(InvalidArgument):
        content.update(ContentInfo(digest, 0))
    with pytest.raises(InvalidArgument):
        content.writer(REF, digest=digest)


def test_an_absent_blob_is_not_found(content: ContentStore) -> None:
    for call in (content.info, content.delete, content.reader_at):
        with pytest.raises(NotFound):
            call(ABSENT)
    with pytest.raises(NotFound):
        content.update(ContentInfo(ABSENT, 0))


def test_a_walk_filters_and_stands_changes(content: ContentStore) -> None:
    names = sorted(add(content, some_bytes(9, seed), {"n": str(seed % 2)}) for seed in range(8))

    assert [info.digest for info in content.walk()] == names
    assert [info.digest for info in content.walk(f"digest=={names[3]}")] == [names[3]]
    odd = [info.digest for info in content.walk("labels.n==1")]
    assert odd == [name for name in names if content.info(name).labels == {"n": "1"}]
    with pytest.raises(InvalidArgument):
        content.walk("labels.")

    seen = []
    for info in content.walk():
        assert content.info(info.digest) == info
        seen.append(info.digest)
        if info.digest == names[2]:
            content.delete(names[2])
            content.delete(names[5])
    assert seen == names[:5] + names[6:]


def test_a_closed_store_does_nothing_more(content: ContentStore) -> None:
    digest = add(content, b"there")
    content.close()
    content.close()

    for call in (
        lambda: content.info(digest),
        lambda: content.delete(digest),
        lambda: content.reader_at(digest),
        lambda: content.writer(REF),
        lambda: content.status(REF),
        lambda: content.abort(REF),
        lambda: list(content.walk()),
        content.list_statuses,
        lambda: content.update(ContentInfo(digest, 0)),
    ):
        with pytest.raises(FailedPrecondition):
            call()
