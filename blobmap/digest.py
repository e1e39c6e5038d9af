"""Digests: the names of blobs, checked once at the edge so that nothing below need doubt them.

    digest     = algorithm ":" hex
    algorithm  = "sha256" | "sha512"
    hex        = lower-case hexadecimal digits, 64 or 128 of them

A digest is spelled one way only: no upper case, no padding, no other algorithm. So two
digests are the same blob exactly when the strings are equal, and a valid digest holds no
"/", "." or NUL: `split` gives names that are safe in a path.

Source: the OCI image specification (descriptor.md), narrowed to its registered algorithms.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Final

from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from hashlib import _Hash

CANONICAL: Final = "sha256"

_HEX_SIZES: Final = {"sha256": 64, "sha512": 128}
ALGORITHMS: Final = tuple(_HEX_SIZES)
_HEX: Final = re.compile(r"[0-9a-f]*")

assert all(hashlib.new(name).digest_size * 2 == size for name, size in _HEX_SIZES.items())


def validate(digest: str) -> str:
    """Return `digest` itself, known to be well formed.

    Raises:
        InvalidArgument: It is not; the message says what to change.

    Cost: O(len(digest)).

    >>> validate("sha256:" + "0" * 64) == "sha256:" + "0" * 64
    True
    """
    split(digest)
    return digest


def split(digest: str) -> tuple[str, str]:
    """Return the algorithm and the hex digits of `digest`.

    Raises:
        InvalidArgument: It is malformed.
    """
    if not isinstance(digest, str):
        raise InvalidArgument(f"a digest is a str, not {type(digest).__name__}")
    algorithm, colon, digits = digest.partition(":")
    if not colon:
        raise InvalidArgument(
            f"digest {digest!r} has no algorithm; write sha256:<64 hex digits>"
        )
    if algorithm not in _HEX_SIZES:
        raise InvalidArgument(
            f"digest {digest!r} has algorithm {algorithm!r}; use one of {', '.join(ALGORITHMS)}"
        )
    size = _HEX_SIZES[algorithm]
    if len(digits) != size:
        raise InvalidArgument(
            f"digest {digest!r} has {len(digits)} digits where {algorithm} has {size}"
        )
    if not _HEX.fullmatch(digits):
        raise InvalidArgument(
            f"digest {digest!r} must be in lower-case hexadecimal digits only"
        )
    return algorithm, digits


def hasher(algorithm: str = CANONICAL) -> _Hash:
    """Return a fresh running hash; `name` gives what it has seen the digest of.

    Raises:
        InvalidArgument: The algorithm is not one that digests may have.
    """
    if algorithm not in _HEX_SIZES:
        raise InvalidArgument(f"no algorithm {algorithm!r}; use one of {', '.join(ALGORITHMS)}")
    return hashlib.new(algorithm)


def name(running: _Hash) -> str:
    """Return the digest of the bytes that `running` has seen so far."""
    return f"{running.name}:{running.hexdigest()}"


def of(data: bytes) -> str:
    """Return the canonical digest of `data`.

    Cost: O(len(data)).

    >>> of(b"")
    'sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855'
    """
    return f"{CANONICAL}:{hashlib.sha256(data).hexdigest()}"
