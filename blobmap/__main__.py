"""The command `blobmap`, which is in the extra `cli`, so that the library needs no click."""

from __future__ import annotations

import sys


def main() -> None:
    """Run the command, or say how to install it."""
    try:
        from blobmap.cli import run  # noqa: PLC0415  # Only here may click and rich be missing.
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in {"click", "rich"}:
            raise
        sys.exit("blobmap: this command needs click and rich; run: pip install 'blobkv[cli]'")
    sys.exit(run())


if __name__ == "__main__":
    main()
