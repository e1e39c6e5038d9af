"""A process that has something of blobmap open, and says so, until its input ends.

python -m support.holding_open KIND ROOT
"""

from __future__ import annotations

import sys

import blobmap

KINDS = {
    "content": blobmap.LocalContent,
    "native": blobmap.NativeSnapshotter,
    "all": blobmap.open,
}


def main(kind: str, root: str) -> None:
    with KINDS[kind](root):
        print("open", flush=True)
        sys.stdin.readline()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2])
