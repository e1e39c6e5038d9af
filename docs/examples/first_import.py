"""The main job, end to end: make an image, import it, see what holds what, remove it again.

    python first_import.py [DIRECTORY]

Each step is the command itself, shown as one would type it. DIRECTORY (by default
.cache/first-import in the repository) is made anew each time.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from make_image import make_layout

DEFAULT = Path(__file__).resolve().parents[2] / ".cache" / "first-import"


def main() -> None:
    """Run the steps."""
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else DEFAULT
    layout, root = directory / "layout", directory / "root"
    for old in (layout, root):
        shutil.rmtree(old, ignore_errors=True)
    make_layout(layout)
    print(f"made an OCI image layout of two images in {shown(layout)}", flush=True)

    blobmap(root, "import", layout)
    blobmap(root, "images")
    blobmap(root, "ls")
    blobmap(root, "blobs")
    blobmap(root, "usage")
    blobmap(root, "explain", base_layer(layout))
    blobmap(root, "rm", "app")
    blobmap(root, "blobs")
    blobmap(root, "reconcile")


def blobmap(root: Path, *arguments: str | Path) -> None:
    """Show a command, and run it with this Python."""
    words = ["--root", shown(root), *(shown(word) for word in arguments)]
    print(f"\n$ blobmap {shlex.join(words)}", flush=True)
    command = [sys.executable, "-m", "blobmap", "--root", root, *arguments]
    if subprocess.run(command, check=False).returncode != 0:
        sys.exit(1)


def base_layer(layout: Path) -> str:
    """Return the digest of the layer that both images share."""
    index = json.loads((layout / "index.json").read_bytes())
    algorithm, digits = index["manifests"][0]["digest"].split(":")
    manifest = json.loads((layout / "blobs" / algorithm / digits).read_bytes())
    return str(manifest["layers"][0]["digest"])


def shown(word: str | Path) -> str:
    """Return a path as seen from here, if it is below."""
    path = os.path.relpath(word) if isinstance(word, Path) else word
    return str(word) if path.startswith("..") else path


if __name__ == "__main__":
    main()
