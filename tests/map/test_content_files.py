"""The content store in a directory: what is on the disk, and what a crash leaves there.

Method: look at the files as another tool would; reopen; break things by hand as a crash or
another tool might; and open a photograph of the root taken before every single change that
a commit, a delete, or an abort makes (`support.photos`).
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from threading import Barrier, Thread

import pytest
from support.photos import photographs

from blobmap import digest as digests
from blobmap.contracts import ContentInfo
from blobmap.errors import AlreadyExists, FailedPrecondition, InvalidArgument, NotFound
from blobmap.local import LocalContent

DATA = b"some bytes " * 100
DIGEST = digests.of(DATA)
HEX = DIGEST.removeprefix("sha256:")
REF = "the ref"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "root"


def add(store: LocalContent, data: bytes = DATA, **labels: str) -> str:
    with store.writer(REF) as writer:
        writer.write(data)
        writer.commit(labels=labels)
    return digests.of(data)


def files(root: Path) -> list[str]:
    """Return every file that is not of the records."""
    found = (path.relative_to(root) for path in root.rglob("*") if path.is_file())
    return sorted(str(path) for path in found if path.parts[0] != "meta")


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_blobs_lie_where_an_image_layout_has_them(root: Path) -> None:
    with LocalContent(root) as content:
        add(content)

    blob = root / "blobs" / "sha256" / HEX
    assert blob.read_bytes() == DATA
    assert files(root) == [f"blobs/sha256/{HEX}"]


def test_nothing_is_writable_once_committed_and_all_is_private(root: Path) -> None:
    before = os.umask(0)
    try:
        with LocalContent(root) as content:
            add(content)
            content.writer(REF).close()
    finally:
        os.umask(before)

    assert mode(root / "blobs" / "sha256" / HEX) == 0o400
    for directory in (root, *(path for path in root.rglob("*") if path.is_dir())):
        assert mode(directory) == 0o700, directory


def test_times_are_those_of_the_commit(root: Path) -> None:
    start = datetime.now(UTC)
    with LocalContent(root) as content:
        info = content.info(add(content))
    end = datetime.now(UTC)

    assert info.created is not None
    assert start <= info.created <= end
    assert info.updated == info.created


def test_everything_is_there_after_reopening(root: Path) -> None:
    with LocalContent(root) as content:
        info = content.info(add(content, label="kept"))
        with content.writer("unfinished", size=9, digest=digests.of(b"unfinished")) as writer:
            writer.write(b"unfin")
            status = writer.status()
        assert content.update(ContentInfo(DIGEST, 0, labels={"a": "b"}), "labels.a") != info
        info = content.info(DIGEST)

    with LocalContent(root) as content:
        assert list(content.walk()) == [info]
        assert content.list_statuses() == [status]
        with content.writer("unfinished") as writer:
            assert writer.status() == status
            writer.write(b"ished")
            writer.commit(10, digests.of(b"unfinished"))


def test_the_digest_to_come_is_remembered_and_told(root: Path) -> None:
    digest = digests.of(b"to come")
    with LocalContent(root) as content:
        content.writer("ref", digest=digest).close()
        with content.writer("ref") as writer:
            assert writer.status().expected == digest

    with LocalContent(root) as content:
        assert content.status("ref").expected == digest


def test_closing_the_store_keeps_what_writers_have(root: Path) -> None:
    with LocalContent(root) as content:
        writer = content.writer(REF)
        writer.write(b"12345")
    with pytest.raises(FailedPrecondition):
        writer.write(b"6")

    with LocalContent(root) as content:
        assert content.status(REF).offset == 5


def test_a_reader_outlives_the_store(root: Path) -> None:
    with LocalContent(root) as content:
        reader = content.reader_at(add(content))

    with reader:
        assert reader.read_at(0, len(DATA)) == DATA


def test_a_root_may_be_relative(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root.mkdir()
    monkeypatch.chdir(root)
    with LocalContent("here") as content:
        monkeypatch.chdir("/")
        add(content)

    assert files(root / "here") == [f"blobs/sha256/{HEX}"]


def test_blobs_put_there_by_another_tool_are_found(root: Path) -> None:
    with LocalContent(root):
        pass
    (root / "blobs" / "sha256" / HEX).write_bytes(DATA)
    (root / "blobs" / "sha256" / "not-a-digest").write_bytes(b"")
    (root / "blobs" / "unknown").mkdir()
    long_hex = hashlib.sha512(DATA).hexdigest()
    (root / "blobs" / "sha512").mkdir()
    (root / "blobs" / "sha512" / long_hex).write_bytes(DATA)

    with LocalContent(root) as content:
        infos = list(content.walk())
        written = (root / "blobs" / "sha256" / HEX).stat().st_mtime
        assert [(info.digest, info.size) for info in infos] == [
            (DIGEST, len(DATA)),
            (f"sha512:{long_hex}", len(DATA)),
        ]
        assert infos[0].created == datetime.fromtimestamp(written, UTC)
        assert infos[0].labels == {}


def test_a_blob_taken_away_is_not_found_and_can_come_back(root: Path) -> None:
    with LocalContent(root) as content:
        add(content, label="old")
        (root / "blobs" / "sha256" / HEX).unlink()

        with pytest.raises(NotFound):
            content.info(DIGEST)
        with pytest.raises(NotFound):
            content.reader_at(DIGEST)
        assert list(content.walk()) == []
        add(content)
        assert content.info(DIGEST).labels == {}
        (root / "blobs" / "sha256" / HEX).unlink()

    with LocalContent(root) as content:
        assert list(content.walk()) == []


def test_what_was_known_of_a_blob_goes_with_its_file(root: Path) -> None:
    with LocalContent(root) as content:
        add(content, label="old")
        (root / "blobs" / "sha256" / HEX).unlink()
    with LocalContent(root):
        pass
    (root / "blobs" / "sha256" / HEX).write_bytes(DATA)

    with LocalContent(root) as content:
        assert content.info(DIGEST).labels == {}


def test_half_an_ingest_is_forgotten(root: Path) -> None:
    with LocalContent(root) as content:
        content.writer("loses its bytes").close()
        with content.writer("whole") as writer:
            writer.write(b"1")
        (data,) = [path for path in files(root) if (root / path).stat().st_size == 0]
        (root / data).unlink()
    (root / "ingest" / "without a record").mkdir()
    (root / "ingest" / "without a record" / "data").write_bytes(b"lost")

    with LocalContent(root) as content:
        assert [status.ref for status in content.list_statuses()] == ["whole"]
        assert len(files(root)) == 1


def test_a_write_that_fails_appends_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite

    def full(fd: int, data: bytes, offset: int) -> int:
        if offset < 10:
            return pwrite(fd, data[:7], offset)
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with LocalContent(root) as content, content.writer(REF) as writer:
        writer.write(b"123")
        monkeypatch.setattr(os, "pwrite", full)
        with pytest.raises(OSError, match="No space"):
            writer.write(b"x" * 100)
        monkeypatch.undo()

        assert writer.status().offset == 3
        writer.write(b"45")
        writer.commit(5, digests.of(b"12345"))
        with content.reader_at(digests.of(b"12345")) as reader:
            assert reader.read_at(0, 100) == b"12345"


def test_a_sync_that_fails_publishes_nothing(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(fd: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    with LocalContent(root) as content:
        writer = content.writer(REF)
        writer.write(DATA)
        monkeypatch.setattr("blobmap.local.content.sync_file", broken)
        with pytest.raises(OSError, match="Input/output"):
            writer.commit()
        monkeypatch.undo()

        assert list(content.walk()) == []
        with content.writer(REF) as writer:
            (data,) = files(root)
            assert mode(root / data) == 0o600
            assert writer.digest() == DIGEST
            writer.commit()
        assert content.info(DIGEST).size == len(DATA)


def test_a_ref_too_long_to_record_is_refused(root: Path) -> None:
    with LocalContent(root) as content:
        with pytest.raises(InvalidArgument):
            content.writer("r" * (1 << 20))
        assert content.list_statuses() == []


def test_one_of_many_who_commit_the_same_blob_makes_it(root: Path) -> None:
    count = 8
    results: list[str] = []
    together = Barrier(count)

    def commit(at: int) -> None:
        with content.writer(f"ref {at}") as writer:
            writer.write(DATA)
            together.wait()
            try:
                writer.commit()
            except AlreadyExists:
                results.append("exists")
            else:
                results.append("made")

    with LocalContent(root) as content:
        threads = [Thread(target=commit, args=(at,)) for at in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sorted(results) == ["exists"] * (count - 1) + ["made"]
        assert content.list_statuses() == []
        assert files(root) == [f"blobs/sha256/{HEX}"]


@pytest.mark.skipif(sys.platform != "linux", reason="listens through /proc")
def test_bytes_are_durable_before_the_name_and_the_name_before_the_record(
    root: Path, events: list[str]
) -> None:
    with LocalContent(root) as content:
        # The first durable change after an open also starts a log.
        content.update(content.info(add(content, b"other")))
        with content.writer(REF) as writer:
            writer.write(DATA)
            events.clear()
            writer.commit()
        ingest = digests.of(REF.encode()).removeprefix("sha256:")
        assert events[:4] == [
            f"fsync {ingest}/data",
            f"rename {ingest}/data",
            "fsync blobs/sha256",
            "record",
        ]

        events.clear()
        content.delete(DIGEST)
        assert events == [f"unlink sha256/{HEX}", "fsync blobs/sha256", "record"]


def check(photo: Path) -> ContentInfo | None:
    """Open what a crash left; check that it is consistent, and works; return the blob."""
    with LocalContent(photo) as content:
        infos = list(content.walk())
        for info in infos:
            with content.reader_at(info.digest) as reader:
                assert digests.of(reader.read_at(0, info.size + 1)) == info.digest
        found = infos[0] if infos else None
        expected = {f"blobs/sha256/{info.digest.removeprefix('sha256:')}" for info in infos}
        left = set(files(photo)) - expected
        assert len(left) == len(content.list_statuses())

        with content.writer(REF) as writer:
            writer.truncate(0)
            writer.write(DATA)
            try:
                writer.commit(len(DATA), DIGEST)
            except AlreadyExists:
                assert found is not None
            else:
                assert found is None
        content.delete(DIGEST)
        assert files(photo) == []
    return found


def commit(content: LocalContent) -> None:
    with content.writer(REF) as writer:
        writer.write(DATA[:100])
    with content.writer(REF) as writer:
        writer.write(DATA[100:])
        writer.commit(labels={"a": "b"})


def delete(content: LocalContent) -> None:
    content.delete(DIGEST)


def abort(content: LocalContent) -> None:
    content.abort(REF)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("operation", "before", "after"),
    [(commit, False, True), (delete, True, False), (abort, False, False)],
)
def test_a_kill_at_any_change_leaves_all_or_nothing(
    tmp_path: Path, operation: Callable[[LocalContent], None], *, before: bool, after: bool
) -> None:
    root, album = tmp_path / "root", tmp_path / "album"
    with LocalContent(root) as content:
        if before:
            add(content)
        if operation is abort:
            content.writer(REF).close()
        with photographs(root, album) as photos:
            operation(content)

    there = [check(photo) is not None for photo in photos]

    assert len(photos) >= 3
    assert there[0] is before
    assert there[-1] is after
    # Once it has happened it stays so: the states change at most once.
    assert sum(one is not other for one, other in pairwise(there)) <= 1
