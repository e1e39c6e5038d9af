r"""Walks filter as containerd's corpus of filters says, whatever is walked.

Method: its nine records become snapshots, and blobs, whose labels "name" and "other" are the
fields of that name, for names of snapshots are unique and theirs are not.

Source: the cases of containerd's pkg/filters/filter_test.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import pytest
from support.blobs import add

from blobmap.contracts import ContentInfo, ContentStore, Info, Kind, Snapshotter
from blobmap.errors import InvalidArgument

CORPUS = (
    {"name": "foo", "foo": "true"},
    {"name": "bar"},
    {"name": "foo", "foo": "present", "more complex label": "present"},
    {"name": "bar", "bar": "true"},
    {"name": "fooer", 'more complex label with \\ and "': "present"},
    {"name": "fooer", 'more complex label with \\ and ".post': "present"},
    {"name": "baz", "other": "too complex, yo"},
    {"name": "bazo", "other": "abc"},
    {"name": "compound", "foo": "omg_asdf.asdf-qwer"},
)
EVERY = list(range(len(CORPUS)))
CASES = {
    "": EVERY,
    "labels.name": EVERY,
    "labels.foo": [0, 2, 8],
    "labels.foo,labels.name": [0, 2, 8],
    "labels.foo==true": [0],
    "labels.foo==omg_asdf.asdf-qwer": [8],
    "labels.name==bar": [1, 3],
    "labels.name!=bar": [0, 2, 4, 5, 6, 7, 8],
    "labels.name==bar,labels.bar": [3],
    'labels.other=="too complex, yo"': [6],
    "labels.other~=[abc]+,labels.name!=foo": [6, 7],
    "labels.other~=/[abc]+/,labels.name!=foo": [6, 7],
    "labels.other~=/[abc]{1,2}/,labels.name!=foo": [6, 7],
    r'labels.other~=/[abc]{0,1}"\//,labels.name!=foo': [],
    "labels.name==bar,labels.bar==true": [3],
    "labels.name==bar,labels.bar==wrong": [],
    'labels.name==foo,labels."more complex label"': [2],
    r'labels."more complex label with \\ and \""==present': [4],
    r'labels."more complex label with \\ and \"".post==present': [5],
}
# What surprises people, and is so on purpose.
TRAPS = {
    "labels.foo!=true": [1, 2, 3, 4, 5, 6, 7, 8],
    'labels.bar!=""': [3],
    'labels.bar==""': [],
    "labels.bar~=^$": [0, 1, 2, 4, 5, 6, 7, 8],
    "labels.name~=oo": [0, 2, 4, 5],
    "labels.name~=^oo": [],
    'labels."more complex label"!=present,labels.foo': [0, 8],
    " labels.name == bar, labels.bar == true": [3],
}
REFUSED = (
    "labels.|foo|==omg_asdf.asdf-qwer",
    r'labels.?"more complex label with \\ and \"".post==present',
    "labels.name==foo,",
    "labels.",
    "image~=,id?=?fbaq",
    "labels.ns/key==value",
    "labels.key==/value",
)

Walk = Callable[..., Iterable[Info] | Iterable[ContentInfo]]


def require_corpus(walk: Walk) -> None:
    """Check every case, by the labels that the walk gives."""
    assert len(CASES) + len(REFUSED) == 26
    for text, expected in (CASES | TRAPS).items():
        found = [CORPUS.index(dict(info.labels)) for info in walk(text)]
        assert sorted(found) == expected, text
    for text in REFUSED:
        with pytest.raises(InvalidArgument):
            list(walk(text))
    assert len(list(walk("labels.foo==true", "labels.name==bar"))) == 3
    assert len(list(walk("labels.nothing", ""))) == len(CORPUS)


@pytest.mark.parametrize("kind", Kind)
def test_snapshots_match_as_the_corpus_says(snapshotter: Snapshotter, kind: Kind) -> None:
    """Upstream: filters/TestFilters."""
    for at, labels in enumerate(CORPUS):
        if kind is Kind.VIEW:
            snapshotter.view(f"{at}", labels=labels)
        elif kind is Kind.ACTIVE:
            snapshotter.prepare(f"{at}", labels=labels)
        else:
            snapshotter.prepare("making", labels={"foo": "not inherited"})
            snapshotter.commit(f"{at}", "making", labels=labels)

    require_corpus(snapshotter.walk)
    assert len(list(snapshotter.walk("name"))) == len(CORPUS)


def test_blobs_match_as_the_corpus_says(content: ContentStore) -> None:
    """Upstream: filters/TestFilters."""
    for at, labels in enumerate(CORPUS):
        add(content, bytes([at]), labels)

    require_corpus(content.walk)
    assert len(list(content.walk("digest"))) == len(CORPUS)


def test_ingests_match_by_ref_alone(content: ContentStore) -> None:
    """Upstream: none."""
    for ref in ("foo", "bar", 'with \\ and "', "too complex, yo"):
        content.writer(ref).close()

    for text, expected in (
        ("", ["bar", "foo", "too complex, yo", 'with \\ and "']),
        ("ref", ["bar", "foo", "too complex, yo", 'with \\ and "']),
        ("ref!=foo,ref!=bar", ["too complex, yo", 'with \\ and "']),
        (r'ref=="with \\ and \""', ['with \\ and "']),
        ("ref~=/^[fb]../", ["bar", "foo"]),
        ("labels.ref", []),
        ("name", []),
    ):
        assert [status.ref for status in content.list_statuses(text)] == expected
