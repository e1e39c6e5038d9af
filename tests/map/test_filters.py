r"""Filters match what containerd's match, and what does not parse says where.

Method: a corpus of records and, for each filter, which of them match; the traps of the
language one by one; every way not to parse with its position; and two properties: any value
finds itself once quoted, and any text either parses or is refused, nothing else.
"""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blobmap import filters
from blobmap.contracts import ContentInfo, Info, IngestStatus, Kind
from blobmap.errors import InvalidArgument

NOW = datetime(2000, 1, 1, tzinfo=UTC)
DIGEST = "sha256:" + "0" * 64
CORPUS = (
    Info("foo", "", Kind.COMMITTED, {"foo": "true"}),
    Info("bar", "", Kind.ACTIVE),
    Info("foo-2", "foo", Kind.ACTIVE, {"foo": "present", "more complex label": "yes"}),
    Info("bar/2", "foo", Kind.VIEW, {"bar": "true", "a.b": "dotted"}),
    Info('q"\\', "", Kind.VIEW, {'with \\ and "': "1", "containerd.io/gc.root": "now, then"}),
    Info("compound", "foo-2", Kind.COMMITTED, {"foo": "omg_asdf.asdf-qwer"}),
)


def matching(*texts: str) -> list[int]:
    """Return which of the corpus match, by position."""
    matches = filters.parse(*texts)
    return [at for at, info in enumerate(CORPUS) if matches(filters.snapshot(info))]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", [0, 1, 2, 3, 4, 5]),
        ("name", [0, 1, 2, 3, 4, 5]),
        ("nothing", []),
        ("labels.foo", [0, 2, 5]),
        ("labels.foo,name", [0, 2, 5]),
        ("labels.foo==true", [0]),
        ("labels.foo==omg_asdf.asdf-qwer", [5]),
        ("name==foo", [0]),
        ("name!=foo", [1, 2, 3, 4, 5]),
        ("name==bar/2,labels.bar", [3]),
        ("name==bar/2,labels.bar==wrong", []),
        ("kind==active", [1, 2]),
        ("kind==Active", []),
        ("kind!=active,kind!=view", [0, 5]),
        ('name=="foo-2"', [2]),
        (r'name=="q\"\\"', [4]),
        ('labels."more complex label"', [2]),
        (r'labels."with \\ and \""==1', [4]),
        ('labels."containerd.io/gc.root"=="now, then"', [4]),
        ('"name"==foo', [0]),
        ("name~=fo+", [0, 2]),
        ("name~=^foo$", [0]),
        ("name~=/[fb]../", [0, 1, 2, 3]),
        ("name~=|bar/.|", [3]),
        (r"name~=/bar\/\\d/", [3]),
        ('name~="^b"', [1, 3]),
        ("name~=/[ab]{1,2}/,kind==view", [3]),
        (" name == foo", [0]),
        ("name==foo, kind==committed", [0]),
    ],
)
def test_a_filter_matches_these(text: str, expected: list[int]) -> None:
    assert matching(text) == expected


def test_no_filter_matches_everything() -> None:
    assert matching() == [0, 1, 2, 3, 4, 5]


def test_one_of_several_filters_is_enough() -> None:
    assert matching("name==foo", "kind==view") == [0, 3, 4]
    assert matching("nothing", "") == [0, 1, 2, 3, 4, 5]


def test_unequal_holds_for_an_absent_field() -> None:
    assert matching("labels.foo!=true") == [1, 2, 3, 4, 5]
    assert matching('labels.bar!=""') == [3]


def test_a_regexp_sees_an_absent_field_as_empty() -> None:
    assert matching("labels.bar~=^$") == [0, 1, 2, 4, 5]
    assert matching("labels.bar~=true|^$") == [0, 1, 2, 3, 4, 5]


def test_equal_to_nothing_does_not_hold_for_an_absent_field() -> None:
    assert matching('labels.bar==""') == []


def test_the_fields_of_a_label_are_joined_by_dots() -> None:
    assert matching("labels.a.b") == [3]
    assert matching('labels."a.b"') == [3]
    assert matching('labels.a."b"==dotted') == [3]


def test_the_parent_is_always_present() -> None:
    assert matching("parent") == [0, 1, 2, 3, 4, 5]
    assert matching('parent!=""') == [2, 3, 5]
    assert matching('parent==""') == [0, 1, 4]


def test_content_has_a_digest_and_labels() -> None:
    info = ContentInfo(DIGEST, 3, NOW, NOW, {"a": "b"})

    assert filters.parse(f"digest=={DIGEST},labels.a==b")(filters.content(info))
    assert not filters.parse("size")(filters.content(info))


def test_an_ingest_has_a_ref() -> None:
    status = IngestStatus("layer-1", 0, 0, None, NOW, NOW)

    assert filters.parse("ref~=^layer")(filters.ingest(status))
    assert not filters.parse("ref==other")(filters.ingest(status))
    assert not filters.parse("labels.ref")(filters.ingest(status))


@pytest.mark.parametrize(
    ("text", "position", "reason"),
    [
        ("name==foo,", 10, "expected a field"),
        (",name", 0, "expected a field"),
        ("labels.", 7, "expected a field"),
        (".labels", 0, "expected a field"),
        ("labels.?", 7, "expected a field"),
        ('labels.?"more"==present', 7, "expected a field"),
        ("labels.|foo|==1", 7, "expected a field"),
        ("labels./foo/==1", 7, "expected a field"),
        ("labels.'foo'==1", 7, "expected a field"),
        ("==foo", 0, "expected a field"),
        ("name==", 6, "expected a value"),
        ("name==,kind", 6, "expected a value"),
        ("name==/foo/", 6, "expected a value"),
        ("name!=|foo|", 6, "expected a value"),
        ("name=foo", 4, "expected one of"),
        ("name===foo", 4, "expected one of"),
        ("name=~foo", 4, "expected one of"),
        ("name foo", 5, "expected one of"),
        ("labels.a-b==1", 8, "expected one of"),
        ("labels.a/b", 8, "expected one of"),
        ("name==foo bar", 9, "expected a comma"),
        ('name=="foo"bar', 11, "expected a comma"),
        ('name=="foo', 6, "not closed"),
        ('name=="foo\n"', 6, "not closed"),
        ('name=="foo\\"', 6, "not closed"),
        ('labels."foo', 7, "not closed"),
        ("name~=/foo", 6, "not closed"),
        (r'name=="a\qb"', 8, "unknown escape"),
        (r"name~=/\d/", 7, "unknown escape"),
        (r'name=="\xg0"', 7, "unknown escape"),
        (r'name=="\400"', 7, "unknown escape"),
        (r'name=="\U00110000"', 7, "unknown escape"),
        ("name~=(", 6, "does not compile"),
        ("name~=/a{2}{3}**/", 6, "does not compile"),
        ("name~=/x{99999999999999999999}/", 6, "does not compile"),
        ("name~=[ab]{1,2}", 14, "expected one of"),
        ("name~=[[:alpha:]]", 6, "spell the class out"),
        ("image~=,id?=?fbaq", 7, "expected a value"),
    ],
)
def test_what_does_not_parse_says_where(text: str, position: int, reason: str) -> None:
    with pytest.raises(InvalidArgument, match=reason) as caught:
        filters.parse("name", text)

    assert f"filter {text!r}, position {position}: " in str(caught.value)


@pytest.mark.parametrize(
    ("spelled", "meant"),
    [
        (r"\a\b\f\n\r\t\v\\\"", '\a\b\f\n\r\t\v\\"'),
        (r"\x41\101\u0041\U00000041", "AAAA"),
        (r"\xc3\xa9\303\251\u00e9", "ééé"),
        ("é|/'", "é|/'"),
        (r"\xff", "\udcff"),
    ],
)
def test_escapes_are_those_of_go(spelled: str, meant: str) -> None:
    matches = filters.parse(f'name=="{spelled}"')

    assert matches(filters.snapshot(Info(meant, "", Kind.ACTIVE)))


@given(st.text(st.characters(exclude_categories=())))
@example("\ud800")
@example("\\ \udcff\ud83d\ude00é")
def test_any_value_finds_itself_once_quoted(value: str) -> None:
    quoted = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    info = Info(value, "", Kind.ACTIVE, {value: "1"})

    assert filters.parse(f'name=="{quoted}",labels."{quoted}"')(filters.snapshot(info))
    assert not filters.parse(f'name!="{quoted}"')(filters.snapshot(info))


@given(st.text(st.sampled_from('ab_.,=!~"/|\\x0 ()*{\n\x00\ud800\udcff'), max_size=12))
def test_any_text_parses_or_is_refused(text: str) -> None:
    try:
        matches = filters.parse(text)
    except InvalidArgument:
        return
    assert matches(filters.snapshot(CORPUS[0])) in (True, False)
