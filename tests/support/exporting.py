"""What the tests of exported layouts share: two images to export, and what was written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from support.images import LayoutBuilder
from support.importing import BASE, SECOND, THIRD

from blobmap import BlobSnapshotter
from blobmap.oci import import_layout


def import_two(target: BlobSnapshotter, path: Path) -> LayoutBuilder:
    """Import "one", and "two" that shares its base with it, from a layout made at `path`."""
    builder = LayoutBuilder()
    builder.put(builder.image(BASE, (SECOND, "zstd"), name="one"))
    builder.put(builder.image(BASE, (THIRD, ""), name="two", docker=True))
    import_layout(target, builder.write(path))
    return builder


def files(path: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(path)): file.read_bytes()
        for file in path.rglob("*")
        if file.is_file()
    }


def index(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((path / "index.json").read_bytes())["manifests"]
    return found


def blob(path: Path, digest: str) -> bytes:
    return (path / "blobs" / digest.replace(":", "/")).read_bytes()
