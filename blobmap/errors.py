"""Every error blobmap raises on purpose: containerd's error classes, by their names.

    BlobMapError
    ├── NotFound            what the call names does not exist
    ├── AlreadyExists       what the call would make exists; or another blob is mapped
    ├── FailedPrecondition  the thing exists but is in the wrong state for the call
    ├── InvalidArgument     fix the call: a bad digest, key, filter, label, or field path
    ├── Unavailable         try again: a ref is held by another writer
    ├── OutOfRange          the position asked for is past what there is, or no longer there
    ├── DeadlineExceeded    the deadline was over before the call could do its work
    ├── NotImplementedHere  this implementation does not offer the call
    └── DataLoss            bytes that should be there are gone or wrong

This module imports nothing, so every other module may import it. What the disk says
(`OSError`) and what the store under the map says (`blobkv.BlobKVError`) pass through.

Source: containerd's errdefs; NotImplementedHere is its NotImplemented, which Python took.
"""

from __future__ import annotations


class BlobMapError(Exception):
    """The root of every error blobmap raises on purpose."""


class NotFound(BlobMapError):
    """What the call names does not exist."""


class AlreadyExists(BlobMapError):
    """What the call would make exists already, or another blob is mapped."""


class FailedPrecondition(BlobMapError):
    """The thing exists but is in the wrong state for this call."""


class InvalidArgument(BlobMapError):
    """The call itself is wrong; the same call will fail again."""


class Unavailable(BlobMapError):
    """Something else holds what the call needs; try again later."""


class OutOfRange(BlobMapError):
    """The position asked for is past what there is, or is not there any more."""


class DeadlineExceeded(BlobMapError):
    """The caller's deadline was over before the call could do its work."""


class NotImplementedHere(BlobMapError):
    """This implementation does not offer the call."""


class DataLoss(BlobMapError):
    """Bytes that should be there are gone or are not the right ones."""
