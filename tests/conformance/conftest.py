"""What the suites run over: each implementation in turn, in a directory of its own.

Given a snapshotter or a content store on the command line, the suites of the other kind are
left out.
"""

from __future__ import annotations

import os
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
from support import basis as snapshots
from support import conformance_table, implementations
from support.implementations import Implementation

from blobmap.contracts import ContentStore, Snapshotter

HERE = Path(__file__).parent
T = TypeVar("T")

KIND = {"--snapshotter": "kind_of_snapshotter", "--content": "kind_of_content"}


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    option, lacks = metafunc.config.getoption, metafunc.config.getoption("--lacks")
    if set(lacks) - implementations.FEATURES.keys():
        raise pytest.UsageError(f"--lacks is one of {', '.join(implementations.FEATURES)}")
    needs = {mark.args[0] for mark in metafunc.definition.iter_markers("needs")}
    if "kind_of_snapshotter" in metafunc.fixturenames:
        snapshotters = implementations.snapshotters(option("--snapshotter"), lacks)
        _run_over(metafunc, "kind_of_snapshotter", snapshotters, needs)
    if "kind_of_content" in metafunc.fixturenames:
        contents = implementations.contents(option("--content"), lacks)
        _run_over(metafunc, "kind_of_content", contents, needs)


def _run_over(
    metafunc: pytest.Metafunc, fixture: str, kinds: list[Implementation[T]], needs: set[str]
) -> None:
    for kind in kinds:
        if needs & kind.lacks:
            conformance_table.note(
                metafunc.config,
                metafunc.definition.path,
                metafunc.function,
                kind.name,
                "skipped",
            )
    able = [kind for kind in kinds if not needs & kind.lacks]
    metafunc.parametrize(fixture, able, ids=[kind.name for kind in able])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what is not about the one implementation that the command line names."""
    named = [kind for option, kind in KIND.items() if config.getoption(option)]
    others = [
        item
        for item in items
        if named
        and item.path.is_relative_to(HERE)
        and isinstance(item, pytest.Function)
        and not any(kind in item.fixturenames for kind in named)
    ]
    config.hook.pytest_deselected(items=others)
    items[:] = [item for item in items if item not in others]


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call" or report.outcome != "passed":
        kinds = [
            item.callspec.params[kind] for kind in KIND.values() if kind in item.fixturenames
        ]
        over = kinds[0].name if kinds else "all"
        conformance_table.note(item.config, item.path, item.function, over, report.outcome)
    return report


@pytest.fixture(autouse=True)
def _no_umask() -> Iterator[None]:
    before = os.umask(0)
    yield
    os.umask(before)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where the implementation is opened; there, and empty."""
    path = tmp_path / "root"
    path.mkdir()
    return path


@pytest.fixture
def snapshotter(
    kind_of_snapshotter: Implementation[Snapshotter], root: Path
) -> Iterator[Snapshotter]:
    """A snapshotter with nothing in it."""
    opened = kind_of_snapshotter.open(root)
    yield opened
    opened.close()


@pytest.fixture
def basis(snapshotter: Snapshotter) -> Snapshotter:
    """A snapshotter with the snapshots of `support.basis`."""
    snapshots.build(snapshotter)
    return snapshotter


@pytest.fixture
def content(
    kind_of_content: Implementation[ContentStore], root: Path
) -> Iterator[ContentStore]:
    """A content store with nothing in it."""
    opened = kind_of_content.open(root)
    yield opened
    opened.close()
