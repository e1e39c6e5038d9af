"""The suites restate all that they say they do, and the page names tests that are there.

Method: read the suites' own docstrings, and the names of tests in `docs/conformance.md`.
"""

from __future__ import annotations

import ast
import re
from pathlib import Path

from support.conformance_table import restated

TESTS = Path(__file__).parents[1]
PAGE = (TESTS.parent / "docs" / "conformance.md").read_text(encoding="utf-8")
NAMED = re.compile(r"`(?:(tests/[\w/]+\.py)|(\w+))::(test_\w+)`")
UPSTREAM = {
    "snapshots": """Basic StatActive StatComitted TransitivityTest PreareViewFailingtest Update
        Remove Walk LayerFileupdate RemoveDirectoryInLowerLayer Chown
        DirectoryPermissionOnCommit RemoveIntermediateSnapshot DeletedFilesInChildSnapshot
        MoveFileFromLowerLayer ViewReadonly StatInWalk CloseTwice RootPermission Rename
        128LayersMount""",
    "metastore": """GetInfo GetInfoNotExist GetInfoEmptyDB Walk GetSnapshot
        GetSnapshotNotExist GetSnapshotCommitted GetSnapshotEmptyDB CreateActive
        CreateActiveNotExist CreateActiveExist CreateActiveFromActive Commit CommitNotExist
        CommitExist CommitCommitted CommitViewFails Remove RemoveNotExist RemoveWithChildren
        ParentIDs Rebase""",
    "content": """Writer UpdateStatus CommitExists Resume ResumeTruncate ResumeDiscard
        ResumeCopy ResumeCopySeeker ResumeCopyReaderAt SmallBlob Labels CommitErrorState
        CrossNamespaceShare CrossNamespaceAppend CrossNamespaceIsolate
        SharedNamespaceIsolate""",
    "filters": "TestFilters",
}
LEFT_OUT = {"metastore/Rebase"}


def docstrings(path: Path) -> dict[str, str | None]:
    """Return that of each test in the file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {
        node.name: ast.get_docstring(node)
        for node in tree.body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }


def test_every_test_of_containerds_suites_is_restated_or_left_out_with_a_reason() -> None:
    wanted = {f"{kind}/{name}" for kind, names in UPSTREAM.items() for name in names.split()}
    suites = [path for path in TESTS.glob("conformance/test_*.py") if path != Path(__file__)]
    found = set()
    for path in suites:
        for name, docstring in docstrings(path).items():
            assert restated(docstring), f"{path.name}::{name} does not say what it restates"
            found.update(restated(docstring))

    assert len(wanted) == 21 + 22 + 16 + 1
    assert wanted - found == LEFT_OUT
    assert all(name in PAGE for name in LEFT_OUT)


def test_every_test_that_the_page_names_is_there() -> None:
    missing = []
    named = 0
    for section in PAGE.split("\n## "):
        about = "snapshot" if section.startswith("Snapshots") else "content"
        for path, suite, test in NAMED.findall(section):
            named += 1
            file = path or f"tests/conformance/test_{about}_{suite}.py"
            if test not in docstrings(TESTS.parent / file):
                missing.append(f"{file}::{test}")

    assert not missing
    assert named > 80
