"""`blobmap.open` waits as long as it is told, and refuses what is no directory."""

from __future__ import annotations

import stat
import threading
import time
from pathlib import Path

import pytest

import blobkv
import blobmap


def test_a_root_that_is_no_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("precious")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for path in (tmp_path / "file", tmp_path / "file/below", tmp_path / "round", ""):
        with pytest.raises(blobmap.InvalidArgument):
            blobmap.open(path)
    assert (tmp_path / "file").read_text() == "precious"


def test_a_root_that_is_made_is_durable_and_private(tmp_path: Path, events: list[str]) -> None:
    blobmap.open(tmp_path / "above" / "root").close()

    assert events[:2] == [
        f"fsync {tmp_path.parent.name}/{tmp_path.name}",
        f"fsync {tmp_path.name}/above",
    ]
    for made in ("above", "above/root"):
        assert stat.S_IMODE((tmp_path / made).stat().st_mode) == 0o700


def test_a_root_may_be_a_symlink_or_below_one(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    for root in (tmp_path / "link", tmp_path / "link" / "below"):
        with blobmap.open(root) as target, target.content.writer("ref") as writer:
            writer.write(b"a blob")
            writer.commit()
    for name in ("content", "native"):
        (tmp_path / f"{name}-link").symlink_to(tmp_path / "there" / name)
    with blobmap.LocalContent(tmp_path / "content-link") as content:
        assert [info.size for info in content.walk()] == [6]
    with blobmap.NativeSnapshotter(tmp_path / "native-link") as native:
        native.prepare("made")


def test_a_root_that_is_open_is_refused_at_once_or_waited_for(tmp_path: Path) -> None:
    first = blobmap.open(tmp_path)
    with pytest.raises(blobkv.LockedError):
        blobmap.open(tmp_path)
    before = time.monotonic()
    with pytest.raises(blobkv.LockedError):
        blobmap.open(tmp_path, lock_timeout=0.2)
    assert time.monotonic() - before >= 0.2

    timer = threading.Timer(0.2, first.close)
    timer.start()
    blobmap.open(tmp_path, lock_timeout=60).close()
    timer.join()


def test_each_part_waits_for_its_own_lock(tmp_path: Path) -> None:
    content = blobmap.LocalContent(tmp_path / "content")
    inner = blobmap.NativeSnapshotter(tmp_path / "native")
    wrapper = blobmap.BlobSnapshotter(inner, content, tmp_path / "map")
    for part, again in (
        (content, lambda: blobmap.LocalContent(tmp_path / "content", lock_timeout=60)),
        (wrapper, lambda: blobmap.NativeSnapshotter(tmp_path / "native", lock_timeout=60)),
    ):
        timer = threading.Timer(0.1, part.close)
        timer.start()
        again().close()
        timer.join()


def test_each_part_says_what_and_where_it_is(tmp_path: Path) -> None:
    with blobmap.open(tmp_path) as target:
        with target.content.writer("a ref") as writer:
            writer.write(b"12345")
            assert repr(writer) == "<LocalWriter 'a ref' at 5 bytes, open>"
            digest = writer.digest()
            writer.commit()
        assert repr(writer) == "<LocalWriter 'a ref' at 5 bytes, closed>"
        with target.content.reader_at(digest) as reader:
            assert repr(reader) == f"<LocalReader {digest} of 5 bytes, open>"
        assert repr(reader) == f"<LocalReader {digest} of 5 bytes, closed>"
        parts = f"LocalContent('{tmp_path}/content')", f"NativeSnapshotter('{tmp_path}/native')"
        assert (repr(target.content), repr(target.inner)) == parts
        assert repr(target) == f"BlobSnapshotter({parts[1]}, {parts[0]})"


def test_the_size_of_a_blob_is_that_of_its_file(tmp_path: Path) -> None:
    with blobmap.LocalContent(tmp_path) as content:
        with content.writer("ref") as writer:
            writer.write(b"12345")
            digest = writer.digest()
            writer.commit()
        path = tmp_path / "blobs" / digest.replace(":", "/")
        path.chmod(0o600)
        path.write_bytes(b"123")

        assert content.info(digest).size == 3
        assert [info.size for info in content.walk()] == [3]
