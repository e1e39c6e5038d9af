"""A content store in memory with namespaces, which share blobs or keep them apart.

It is the namespace "" itself and hands out the others. A writer that is told the digest of a
blob that it may take from another namespace has all of its bytes from the start, as
containerd's metadata store does it.
"""

from __future__ import annotations

from support.fake_content import FakeContentStore, FakeWriter

from blobmap.clock import Ticker


class FakeNamespaces(FakeContentStore):
    """One namespace, and the way to the others.

    Args:
        isolated: Whether each keeps its blobs to itself, unless it is shareable.
    """

    def __init__(self, *, isolated: bool = False) -> None:
        super().__init__(clock=Ticker().now)
        self._isolated = isolated
        self._shareable = False
        self._all: dict[str, FakeNamespaces] = {"": self}

    def namespace(self, name: str, *, shareable: bool = False) -> FakeNamespaces:
        """Return the content store of that namespace, made at the first call."""
        if name not in self._all:
            made = FakeNamespaces(isolated=self._isolated)
            made._shareable, made._all = shareable, self._all
            self._all[name] = made
        return self._all[name]

    def writer(self, ref: str, *, size: int = 0, digest: str | None = None) -> FakeWriter:
        writer = super().writer(ref, size=size, digest=digest)
        if digest is not None and writer.status().offset == 0:
            writer.write(self._taken_from_others(digest))
        return writer

    def _taken_from_others(self, digest: str) -> bytes:
        for other in self._all.values():
            if digest in other._blobs and (other._shareable or not self._isolated):
                return other._blobs[digest].data
        return b""
