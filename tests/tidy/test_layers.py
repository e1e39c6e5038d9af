"""Imports point down only, and one module alone touches the operating system.

Method: parse every module of both packages; each import of a sibling must go to a lower
layer or stay within its own, what runs must be free of cycles, and a module that no
layer names fails, so that a new one is placed on purpose.
"""

from __future__ import annotations

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

# Lowest first. A module may import its own layer and those above it in this list.
BLOBKV = (
    ("errors",),
    ("keys", "stats", "spelling"),
    ("_engine", "_engine.files", "_engine.fs", "_engine.format"),
    ("_engine.ranges", "_engine.table_format", "_engine.log", "_engine.ballast"),
    ("_engine.hash_index", "_engine.block_index"),
    ("_engine.memtable", "_engine.table", "_engine.table_writer"),
    ("_engine.merge", "_engine.manifest", "_engine.tables"),
    ("_engine.state", "_engine.views", "_engine.overlay"),
    (
        "_engine.pace",
        "_engine.tiers",
        "_engine.garbage",
        "_engine.pressure",
        "_engine.sequential",
    ),
    ("_engine.report", "_engine.survey"),
    (
        "_engine.compaction",
        "_engine.verify",
        "_engine.recovery",
        "_engine.backup",
        "_engine.salvage",
    ),
    ("_engine.shared_sync", "_engine.room"),
    ("_engine.jobs", "_engine.worker", "_engine.child", "_engine.builder"),
    (
        "_engine.tree",
        "_engine.maintenance",
        "_engine.follower",
        "_engine.writer",
        "_engine.figures",
    ),
    ("cursor", "spans", "scope", "bucket", "transaction", "batch", "store", "opening"),
    ("testing.nodes", "testing.volume", "testing.disk", "testing"),
    ("",),
    ("calls",),
    ("cli",),
    ("__main__",),
)
BLOBMAP = (
    ("errors",),
    ("closing", "digest", "filters", "contracts", "clock", "labels", "deadlines", "findings"),
    ("locks", "fields"),
    ("_map", "_map.attempts", "_map.background", "_map.schema", "_map.events", "_map.edges"),
    ("_map.audit", "_map.migration", "_map.rows"),
    ("refs",),
    ("_map.parts", "_map.claims", "_map.catalog", "_map.deletions", "_map.plan"),
    ("_map.removal", "_map.holding", "_map.work", "_map.usage", "_map.images", "_map.mappings"),
    ("_map.leases", "_map.notes"),
    ("reconcile",),
    ("blob_map",),
    ("snapshotter",),
    ("verification",),
    ("local.durable", "local.mounting", "local.records", "local.tree"),
    (
        "local.forest",
        "local.ingest",
        "local.writer",
        "local.snapshots",
        "local.content",
        "local.snapshotter",
        "local.native",
        "local.overlay",
        "local.choice",
        "local",
    ),
    ("_oci", "_oci.compression", "_oci.archive", "_oci.attributes", "_oci.tree", "_oci.layer"),
    ("_oci.side", "_oci.pairs", "_oci.difference", "_oci.member", "_oci.compressor"),
    ("_oci.layer_writer", "_oci.progress"),
    ("_oci.platforms", "_oci.manifest", "_oci.layout_files", "_oci.layout", "_oci.ingest"),
    ("_oci.layer_export", "_oci.layout_writer"),
    ("_oci.image_export",),
    ("oci",),
    ("",),
    ("output",),
    ("listings", "short_names"),
    ("calls",),
    ("keeping",),
    ("cli",),
    ("__main__",),
)
PUBLIC_BLOBKV = {"blobkv", "blobkv.errors", "blobkv.keys", "blobkv.testing"}
OPERATING_SYSTEM = {"os", "fcntl", "mmap", "shutil", "tempfile"}
# Who may know how bytes live. `testing` knows the shape of a file system only.
ENGINE_USERS = {"bucket", "batch", "scope", "store", "opening", "", "testing", "testing.disk"}


def modules(package: str) -> dict[str, ast.Module]:
    """Every module by its name within the package; the package itself is ""."""
    found = {}
    for path in sorted((ROOT / package).rglob("*.py")):
        parts = path.relative_to(ROOT / package).with_suffix("").parts
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(tree: ast.Module, *, types_too: bool = True) -> set[str]:
    """Every module the tree imports, in full, wherever the statement stands.

    Without `types_too`, only what is imported when the program runs.
    """
    found: set[str] = set()
    nodes = list(ast.walk(tree))
    if not types_too:
        for block in nodes:
            if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING":
                nodes = [node for node in nodes if node not in block.body]
    for node in nodes:
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            assert node.module is not None
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def siblings(package: str, *, types_too: bool = True) -> dict[str, set[str]]:
    """For every module of the package, the modules of the package it imports."""
    known = modules(package)
    graph: dict[str, set[str]] = {}
    for name, tree in known.items():
        graph[name] = set()
        for target in imports(tree, types_too=types_too):
            if target.split(".")[0] == package:
                inner = target.removeprefix(package).removeprefix(".")
                graph[name].add(inner if inner in known else inner.rpartition(".")[0])
    return graph


@pytest.mark.parametrize(("package", "layers"), [("blobkv", BLOBKV), ("blobmap", BLOBMAP)])
def test_imports_point_down(package: str, layers: tuple[tuple[str, ...], ...]) -> None:
    rank = {name: i for i, layer in enumerate(layers) for name in layer}
    graph = siblings(package)
    unplaced = graph.keys() - rank.keys()
    upward = [
        f"{name} -> {target}"
        for name, targets in graph.items()
        for target in targets
        if name in rank and rank.get(target, -1) > rank[name]
    ]

    assert not unplaced, "place these in a layer"
    assert not upward
    # Two modules of one layer may name each other's types.
    TopologicalSorter(siblings(package, types_too=False)).prepare()


def test_only_fs_touches_the_operating_system() -> None:
    for name, tree in modules("blobkv").items():
        used = {target.split(".")[0] for target in imports(tree, types_too=False)}
        used &= OPERATING_SYSTEM
        assert not used or name == "_engine.fs", f"blobkv.{name} imports {used}"


def test_the_engine_is_imported_by_the_store_only() -> None:
    for name, targets in siblings("blobkv").items():
        if any(target.startswith("_engine") for target in targets):
            assert name in ENGINE_USERS or name.startswith("_engine"), name


def test_blobmap_uses_public_names_of_blobkv_only() -> None:
    for name, tree in modules("blobmap").items():
        for target in imports(tree):
            if target.split(".")[0] == "blobkv":
                module, _, member = target.rpartition(".")
                assert module in PUBLIC_BLOBKV or target == "blobkv", (
                    f"blobmap.{name}: {target}"
                )
                assert not member.startswith("_"), f"blobmap.{name}: {target}"


def test_blobkv_knows_nothing_of_blobmap() -> None:
    for name, tree in modules("blobkv").items():
        assert not any(t.split(".")[0] == "blobmap" for t in imports(tree)), name
