"""A record that is not what was written is data loss that names it, whoever reads it.

Method: make each kind of record through its own store, write damage over it in the store
below, and read it again.
"""

from __future__ import annotations

from pathlib import Path

import pytest

import blobkv
from blobmap import digest as digests
from blobmap._map import schema
from blobmap.contracts import Kind
from blobmap.errors import DataLoss
from blobmap.fields import Fields, encode
from blobmap.local import LocalContent, NativeSnapshotter

DAMAGED = {
    "no JSON": b"{",
    "no UTF-8": b"\xff",
    "no object": b"[]",
    "a field missing": b"{}",
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_record_is_named(tmp_path: Path, damage: bytes) -> None:
    with LocalContent(tmp_path / "content") as content:
        with content.writer("ref") as writer:
            writer.write(b"a blob")
            digest = writer.digest()
            writer.commit()
        content.writer("unfinished").close()
    with NativeSnapshotter(tmp_path / "native") as native:
        native.prepare("active")
    overwrite(
        tmp_path / "content", {("blob", digest): damage, ("ingest", "unfinished"): damage}
    )
    overwrite(tmp_path / "native", {("snapshot", "active"): damage})

    with LocalContent(tmp_path / "content") as content:
        with pytest.raises(DataLoss, match=f"the record of blob {digest}"):
            content.info(digest)
        with pytest.raises(DataLoss, match="the record of ingest 'unfinished'"):
            content.status("unfinished")
    with pytest.raises(DataLoss, match="the record of snapshot 'active'"):
        NativeSnapshotter(tmp_path / "native")


def test_a_counter_that_is_no_number_is_data_loss(tmp_path: Path) -> None:
    NativeSnapshotter(tmp_path).close()
    overwrite(tmp_path, {("next_id",): b"one"})

    with pytest.raises(DataLoss, match="next id"):
        NativeSnapshotter(tmp_path)


def test_each_field_is_what_it_should_be() -> None:
    time = "2020-01-02T03:04:05+00:00"
    fields = Fields(
        encode(text="t", number=0, flag=False, texts=["t"], labels={"k": "v"}, time=time), "it"
    )

    assert fields.text("text") == fields.text_or_none("text") == "t"
    assert fields.text_or_none("none") is fields.number_or_none("none") is None
    assert fields.number("number") == fields.number_or_none("number") == 0
    assert fields.flag("flag") is False
    assert fields.texts("texts") == ("t",)
    assert fields.labels("labels") == {"k": "v"}
    assert fields.time("time").isoformat() == time


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (1, ["text", "texts", "labels", "numbers", "flag", "digest", "digests", "time"]),
        (-1, ["number", "number_or_none"]),
        (True, ["number", "text"]),
        ("x", ["number", "digest", "digest_or_none", "time", "flag", "texts"]),
        ([1], ["texts", "digests", "labels"]),
        ([-1], ["numbers"]),
        (["x"], ["digests", "numbers"]),
        ({"k": 1}, ["labels"]),
        (None, ["text", "number", "flag", "labels", "time"]),
    ],
)
def test_a_field_that_is_something_else_is_data_loss(value: object, wrong: list[str]) -> None:
    fields = Fields(encode(field=value), "the record of x")
    for method in wrong:
        with pytest.raises(DataLoss, match="the record of x"):
            getattr(fields, method)("field")


def test_a_choice_is_one_of_those_there_are() -> None:
    fields = Fields(encode(kind="view", other="vista"), "it")

    assert fields.choice("kind", Kind) is Kind.VIEW
    with pytest.raises(DataLoss, match="other = 'vista' where a kind should be"):
        fields.choice("other", Kind)


def test_an_image_has_a_size_for_each_blob() -> None:
    raw = encode(blobs=[digests.of(b"a"), digests.of(b"b")], sizes=[1])

    with pytest.raises(DataLoss, match="image 'i' has 1 sizes for 2 blobs"):
        schema.decode_sizes(raw, "i")


def overwrite(root: Path, records: dict[tuple[str, ...], bytes]) -> None:
    with blobkv.open(root / "meta") as store, store.update() as txn:
        for parts, value in records.items():
            assert blobkv.pack(*parts) in txn or parts == ("next_id",)
            txn.put(blobkv.pack(*parts), value)


@pytest.mark.parametrize("text", ["\ud83d\ude00", "\udcff", "😀", '\x00"\\\u2028'])
def test_any_text_is_read_as_it_was(tmp_path: Path, text: str) -> None:
    with NativeSnapshotter(tmp_path) as native:
        native.prepare("making")
        native.commit(text, "making", labels={text: text})
        native.prepare("child", text)

        assert native.stat(text).labels == {text: text}
        assert native.stat("child").parent == text
        assert native.mounts("child")
        assert Fields(encode(text=text), "it").text("text") == text
