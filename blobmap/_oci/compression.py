"""Plain, gzip, or zstd bytes in; plain bytes out, a bounded piece at a time.

The first bytes tell the compression, not the media type: builders have written plain tars
under gzip's media type and the reverse, and a layer's diff ID proves the outcome either way.

What always holds:

* No read makes more than it is asked for, so memory does not depend on the input.
* The output is at most `EXPANSION_FREE` bytes plus `EXPANSION_MAX` times the input so far.
  DEFLATE cannot expand more than 1,032 times, so only a zstd bomb meets this bound.
* Damage and truncation are `DataLoss`, never a short result. (A zstd stream cut inside its
  last frame may pass here: the tar in it, or its diff ID, then does not.)

Source: containerd's pkg/archive/compression, for deciding by the first bytes.
"""

from __future__ import annotations

import sys
import zlib
from typing import TYPE_CHECKING, Final, Protocol

from blobmap.errors import DataLoss, InvalidArgument, NotImplementedHere

if TYPE_CHECKING:
    from collections.abc import Callable

EXPANSION_FREE: Final = 1 << 30
EXPANSION_MAX: Final = 1100

_GZIP: Final = b"\x1f\x8b\x08"
_ZSTD: Final = b"\x28\xb5\x2f\xfd"
_MAGIC_SIZE: Final = 4
_ZSTD_SKIPPABLE: Final = b"\x2a\x4d\x18"  # After a first byte of 0x50 to 0x5f.
_GZIP_WINDOW_BITS: Final = 31  # 15 bits of window, plus 16: expect a gzip header.
_INPUT_SIZE: Final = 1 << 16


class Source(Protocol):
    """Bytes read from first to last. A read gives what there is; b"" only at the end."""

    def read(self, size: int, /) -> bytes:
        """Return from 1 to `size` bytes, or b"" at the end."""


def is_compressed(magic: bytes) -> bool:
    """Return whether bytes that start with `magic` (four bytes or more) are gzip or zstd."""
    return compression_of(magic) != "none"


def compression_of(magic: bytes) -> str:
    """Return how bytes that start with `magic` are compressed: "gzip", "zstd", or "none"."""
    if magic.startswith(_GZIP):
        return "gzip"
    return "zstd" if _is_zstd(magic) else "none"


def decompress(source: Source, *, name: str) -> Source:
    """Return the plain bytes of `source`, whatever its compression.

    Args:
        source: Read from where it stands to its end, as the result is read.
        name: What to call the source in an error.

    Raises:
        NotImplementedHere: It is zstd, and nothing here can read that.
        DataLoss: While reading: the compressed stream is damaged or ends early.
        InvalidArgument: While reading: it expands beyond the bound above.

    Cost: one read of the source; then memory for a window (128 MiB at most, for zstd).
    """
    counted = _Counted(source)
    magic = counted.peek(_MAGIC_SIZE)
    if magic.startswith(_GZIP):
        return _Bounded(_Gzip(counted, name), counted, name)
    if _is_zstd(magic):
        return _Bounded(_Zstd(counted, name), counted, name)
    return counted


def _is_zstd(magic: bytes) -> bool:
    skippable = magic[1:4] == _ZSTD_SKIPPABLE and magic[0] & 0xF0 == 0x50
    return magic.startswith(_ZSTD) or skippable


class _Counted:
    """A source that knows how much was read of it, and can show its start first."""

    def __init__(self, source: Source) -> None:
        self._source = source
        self._peeked = b""
        self.count = 0

    def peek(self, size: int) -> bytes:
        while len(self._peeked) < size and (data := self._source.read(size)):
            self._peeked += data
        return self._peeked

    def read(self, size: int, /) -> bytes:
        if self._peeked:
            data, self._peeked = self._peeked[:size], self._peeked[size:]
        else:
            data = self._source.read(size)
        self.count += len(data)
        return data


class _Bounded:
    """Decompressed bytes, up to the bound that the compressed ones earn."""

    def __init__(self, plain: Source, compressed: _Counted, name: str) -> None:
        self._plain = plain
        self._compressed = compressed
        self._name = name
        self._count = 0

    def read(self, size: int, /) -> bytes:
        data = self._plain.read(size)
        self._count += len(data)
        if self._count > EXPANSION_FREE + EXPANSION_MAX * self._compressed.count:
            raise InvalidArgument(
                f"{self._name}: {self._compressed.count} bytes expand to more than "
                f"{self._count}: a decompression bomb"
            )
        return data


class _Gzip:
    """The members of a gzip stream, one after the other."""

    def __init__(self, source: Source, name: str) -> None:
        self._source = source
        self._name = name
        self._engine = zlib.decompressobj(_GZIP_WINDOW_BITS)

    def read(self, size: int, /) -> bytes:
        while True:
            if self._engine.eof:
                pending = self._engine.unused_data or self._source.read(_INPUT_SIZE)
                if not pending:
                    return b""
                self._engine = zlib.decompressobj(_GZIP_WINDOW_BITS)
            else:
                pending = self._engine.unconsumed_tail or self._source.read(_INPUT_SIZE)
            try:
                data = self._engine.decompress(pending, size)
            except zlib.error as error:
                raise DataLoss(f"{self._name}: not sound gzip: {error}") from error
            if data:
                return data
            # With no input left the engine may still hold output; so only now is it the end.
            if not pending and not self._engine.eof:
                raise DataLoss(f"{self._name}: ends inside its gzip stream")


class _Zstd:
    """The frames of a zstd stream, one after the other."""

    def __init__(self, source: Source, name: str) -> None:
        self._name = name
        self._read, self._error = _zstd_reader(source, name)

    def read(self, size: int, /) -> bytes:
        try:
            return self._read(size)
        except (self._error, EOFError) as error:
            raise DataLoss(f"{self._name}: not sound zstd: {error}") from error


def _zstd_reader(source: Source, name: str) -> tuple[Callable[[int], bytes], type[Exception]]:
    # Imported only here: most layers are gzip, and blobmap must work without either module.
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415  # As above.

        return zstd.ZstdFile(source).read, zstd.ZstdError
    try:
        import zstandard  # noqa: PLC0415  # As above.
    except ImportError as error:
        raise NotImplementedHere(
            f"{name} is compressed with zstd, which needs: pip install 'blobkv[cli]'"
        ) from error
    reader = zstandard.ZstdDecompressor().stream_reader(
        source,  # type: ignore[arg-type]  # Only read() is called.
        read_size=_INPUT_SIZE,
        read_across_frames=True,
    )
    return reader.read, zstandard.ZstdError
