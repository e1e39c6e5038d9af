"""What containerd's suites leave out of content: deletes, aborts, walks, odd refs and digests.

Method: each edge of the protocol by itself.
"""

from __future__ import annotations

import threading
from random import Random

import pytest
from support.blobs import ABSENT, add, read, some_bytes

from blobmap import digest as digests
from blobmap.contracts import ContentInfo, ContentStore
from blobmap.errors import (
    AlreadyExists,
    BlobMapError,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)

REF = "the ref"
MALFORMED = (
    "",
    ":",
    "sha256",
    "sha256:",
    ABSENT[:-1],
    ABSENT + "0",
    ABSENT + "\n",
    ABSENT.upper(),
    ABSENT.replace("sha256:", "sha256-"),
    ABSENT.replace("sha256:", "sha256="),
    ABSENT.replace("sha256:", "sha256_"),
    ABSENT.replace("sha256:", "SHA256:"),
    ABSENT.replace("sha256:", "md5:"),
    ABSENT.replace("sha256:", "../../sha256:"),
    "sha256:" + "g" * 64,
    "sha256:" + "A" * 64,
    "sha256:" + "0" * 63 + "\x00",
    "sha256:" + "/" * 64,
    "sha256:" + "." * 64,
    "sha256:../../../" + "0" * 55,
    "sha256:" + "٣" * 64,
    "\udcff",
)


def test_an_empty_store_has_nothing(content: ContentStore) -> None:
    """Upstream: none."""
    assert list(content.walk()) == []
    assert list(content.walk("labels.a")) == []
    assert content.list_statuses() == []


def test_a_deleted_blob_is_gone_except_for_who_reads_it(content: ContentStore) -> None:
    """Upstream: none."""
    digest = add(content, b"read on")
    kept = add(content, b"kept")

    with content.reader_at(digest) as reader:
        content.delete(digest)
        assert reader.read_at(0, 100) == b"read on"
        assert reader.size == 7
    assert [info.digest for info in content.walk()] == [kept]
    for call in (content.info, content.reader_at, content.delete):
        with pytest.raises(NotFound):
            call(digest)
    with pytest.raises(NotFound):
        content.update(ContentInfo(digest, 0, labels={}))


def test_a_blob_added_again_is_a_new_one(content: ContentStore) -> None:
    """Upstream: none."""
    digest = add(content, b"again", {"old": "1"})
    before = content.info(digest)
    content.delete(digest)
    add(content, b"again")

    after = content.info(digest)
    assert after.labels == {}
    assert before.created is not None
    assert after.created is not None
    assert after.created > before.created


def test_an_absent_blob_is_not_found(content: ContentStore) -> None:
    """Upstream: none."""
    for call in (content.info, content.delete, content.reader_at):
        with pytest.raises(NotFound):
            call(ABSENT)
    with pytest.raises(NotFound):
        content.update(ContentInfo(ABSENT, 0))


def test_a_reader_reads_within_the_blob_until_it_is_closed(content: ContentStore) -> None:
    """Upstream: none."""
    digest = add(content, b"foobar")

    with content.reader_at(digest) as reader:
        assert reader.read_at(3, 2) == b"ba"
        assert reader.read_at(4, 1 << 60) == b"ar"
        for offset, size in ((-1, 1), (0, -1)):
            with pytest.raises(InvalidArgument):
                reader.read_at(offset, size)
    reader.close()
    with pytest.raises(FailedPrecondition):
        reader.read_at(0, 1)


def test_a_malformed_digest_is_refused_everywhere(content: ContentStore) -> None:
    """Upstream: none."""
    random = Random(4)
    drawn = ["".join(random.choices("sha256:/.-_=AZ\x00", k=71)) for _ in range(100)]
    for digest in (*MALFORMED, *drawn):
        for call in (
            content.info,
            content.delete,
            content.reader_at,
            lambda digest: content.update(ContentInfo(digest, 0)),
            lambda digest: content.writer(REF, digest=digest),
        ):
            with pytest.raises(InvalidArgument):
                call(digest)
        with content.writer(REF) as writer:
            writer.write(b"kept")
            if digest:
                with pytest.raises(InvalidArgument):
                    writer.commit(4, digest)
        assert content.status(REF).offset == 4
        content.abort(REF)


def test_blobs_may_be_named_by_sha512(content: ContentStore) -> None:
    """Upstream: local/TestSha512."""
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


@pytest.mark.parametrize("path", ["size", "digest", "label", "labels.", "", "labels x"])
def test_only_labels_can_change(content: ContentStore, path: str) -> None:
    """Upstream: none."""
    digest = add(content, b"fixed", {"a": "b"})
    before = content.info(digest)

    with pytest.raises(InvalidArgument):
        content.update(ContentInfo(digest, 9, labels={}), "labels.a", path)
    assert content.info(digest) == before


def test_a_label_has_a_value_and_a_limit(content: ContentStore) -> None:
    """Upstream: none."""
    digest = add(content, b"limits", {"empty": "", "é" * 10: "x" * (4096 - 20)})

    assert set(content.info(digest).labels) == {"é" * 10}
    with pytest.raises(InvalidArgument):
        content.update(ContentInfo(digest, 0, labels={"é" * 10: "x" * (4097 - 20)}))
    content.update(ContentInfo(digest, 0, labels={"a.b/c": "1"}), "labels.a.b/c")
    assert content.info(digest).labels["a.b/c"] == "1"
    content.update(ContentInfo(digest, 0, labels={"a.b/c": ""}), "labels.a.b/c")
    assert set(content.info(digest).labels) == {"é" * 10}


def test_a_walk_filters_and_stands_changes(content: ContentStore) -> None:
    """Upstream: local/TestWalkBlobs."""
    found = sorted(add(content, some_bytes(9, seed), {"n": str(seed % 2)}) for seed in range(8))

    assert [info.digest for info in content.walk()] == found
    assert [info.digest for info in content.walk(f"digest=={found[3]}")] == [found[3]]
    odd = [info.digest for info in content.walk("labels.n==1")]
    assert odd == [name for name in found if content.info(name).labels == {"n": "1"}]
    assert list(content.walk("size")) == []
    with pytest.raises(InvalidArgument):
        list(content.walk("labels."))

    walked = []
    for info in content.walk():
        assert content.info(info.digest) == info
        walked.append(info.digest)
        if info.digest == found[2]:
            content.delete(found[2])
            content.delete(found[5])
    assert walked == found[:5] + found[6:]


def test_a_writer_for_a_blob_that_is_there_is_refused(content: ContentStore) -> None:
    """Upstream: none."""
    digest = add(content, b"there")

    with pytest.raises(AlreadyExists):
        content.writer(REF, digest=digest)
    with pytest.raises(NotFound):
        content.status(REF)


def test_another_total_size_starts_the_ingest_over(content: ContentStore) -> None:
    """Upstream: none."""
    with content.writer(REF, size=10) as writer:
        writer.write(b"12345")

    with content.writer(REF, size=3) as writer:
        assert (writer.status().offset, writer.status().total) == (0, 3)
        writer.write(b"abc")
        writer.commit(3, digests.of(b"abc"))
    assert read(content, digests.of(b"abc")) == b"abc"


def test_an_ingest_is_cut_to_nothing_only(content: ContentStore) -> None:
    """Upstream: none."""
    with content.writer(REF) as writer:
        writer.write(b"12345")
        with pytest.raises(InvalidArgument):
            writer.truncate(2)
        assert writer.status().offset == 5
        writer.truncate(0)
        assert (writer.status().offset, writer.digest()) == (0, digests.of(b""))


def test_a_closed_writer_does_nothing_more(content: ContentStore) -> None:
    """Upstream: none."""
    writer = content.writer(REF)
    writer.write(b"kept")
    writer.close()
    writer.close()

    for call in (lambda: writer.write(b"x"), writer.commit, lambda: writer.truncate(0)):
        with pytest.raises(FailedPrecondition):
            call()
    assert content.status(REF).offset == 4


def test_a_ref_is_any_text_but_nothing(content: ContentStore) -> None:
    """Upstream: none."""
    refs = [
        "a/../b",
        "a b",
        "\udcff\x00",
        "\ud83d\ude00",
        "😀",
        "é",
        "..",
        "/",
        "r" * 32 * 1024,
    ]
    for ref in refs:
        content.writer(ref).close()
        assert content.status(ref).ref == ref

    assert [status.ref for status in content.list_statuses()] == sorted(refs)
    with pytest.raises(InvalidArgument):
        content.writer("")


def test_ingests_are_listed_and_aborted(content: ContentStore) -> None:
    """Upstream: local/TestContentWriter."""
    for ref in ("b", "a", "c"):
        with content.writer(ref) as writer:
            writer.write(ref.encode())
    blob = add(content, b"no ingest")
    open_writer = content.writer("a")

    assert [(status.ref, status.offset) for status in content.list_statuses()] == [
        ("a", 1),
        ("b", 1),
        ("c", 1),
    ]
    assert [status.ref for status in content.list_statuses("ref==b", "ref~=^c")] == ["b", "c"]
    with pytest.raises(InvalidArgument):
        content.list_statuses("ref==")

    content.abort("a")
    content.abort("c")
    for call in (content.abort, content.status):
        for ref in ("c", blob):
            with pytest.raises(NotFound):
                call(ref)
    with pytest.raises(FailedPrecondition):
        open_writer.write(b"too late")
    assert [status.ref for status in content.list_statuses()] == ["b"]
    with content.writer("c") as writer:
        assert writer.status().offset == 0


def test_one_of_many_who_open_a_ref_has_it(content: ContentStore) -> None:
    """Upstream: none."""
    together = threading.Barrier(8)
    outcomes: list[str] = []

    def open_it() -> None:
        together.wait()
        try:
            writer = content.writer(REF)
        except Unavailable:
            outcomes.append("unavailable")
        else:
            outcomes.append("open")
            writer.write(b"x")

    threads = [threading.Thread(target=open_it) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["open"] + ["unavailable"] * 7
    assert content.status(REF).offset == 1


def test_one_of_many_who_commit_the_same_blob_makes_it(content: ContentStore) -> None:
    """Upstream: none."""
    data = some_bytes(10_000)
    writers = [content.writer(f"ref {at}") for at in range(6)]
    together = threading.Barrier(6)
    outcomes: list[str] = []

    def commit(at: int) -> None:
        writers[at].write(data)
        together.wait()
        try:
            writers[at].commit(len(data), digests.of(data))
        except BlobMapError as error:
            outcomes.append(type(error).__name__)
        else:
            outcomes.append("done")

    threads = [threading.Thread(target=commit, args=(at,)) for at in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(outcomes) == ["AlreadyExists"] * 5 + ["done"]
    assert read(content, digests.of(data)) == data
    assert content.list_statuses() == []


def test_a_closed_store_does_nothing_more(content: ContentStore) -> None:
    """Upstream: none."""
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
