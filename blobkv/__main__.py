"""The command `blobkv`, which is in the extra `cli`, so that the library needs no click."""

from __future__ import annotations

import signal
import sys


def main() -> None:
    """Run the command, or say how to install it."""
    try:
        from blobkv.cli import run  # noqa: PLC0415  # Only here may click be missing.
    except ModuleNotFoundError as error:
        if error.name != "click":
            raise
        sys.exit("blobkv: this command needs click; run: pip install 'blobkv[cli]'")
    # Whoever read the output has seen enough: end as other tools do, quietly, at once.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    sys.exit(run())


if __name__ == "__main__":
    main()
