"""What the tests of layers share: apply members, see names."""

from __future__ import annotations

import io
from pathlib import Path

from support.images import Member, read_tree, tar

from blobmap._oci.layer import Applied, apply_layer


def apply(root: Path, *members: Member, **options: int) -> Applied:
    return apply_layer(io.BytesIO(tar(*members, **options)), root)


def names(root: Path) -> set[str]:
    return set(read_tree(root)) - {"."}
