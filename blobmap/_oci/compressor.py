"""Plain bytes in; gzip, zstd, or plain bytes out, and the digest of what came in.

The same bytes in give the same bytes out, however they are cut: a gzip header here has no
time, no name, and no system. (Another version of zlib or zstd may find other bytes for the
same content; what no version changes is the digest of the plain ones, the diff ID.)

gzip is made by several threads: each piece of a MiB is compressed by itself, knowing the 32 KiB
before it, and ends at a byte; the pieces one after the other are one ordinary stream. What they
are depends on the content alone, and not on how many threads there are.

Source: RFC 1952, for the header and the trailer of gzip; pigz, for the pieces.
"""

from __future__ import annotations

import os
import struct
import sys
import zlib
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Final, Protocol

from blobmap import digest as digests
from blobmap.closing import Closing
from blobmap.errors import InvalidArgument, NotImplementedHere

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future

_GZIP_START: Final = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_RAW_WINDOW_BITS: Final = -15
_OUTPUT_SIZE: Final = 1 << 20
_PIECE_SIZE: Final = 1 << 20
_WINDOW_SIZE: Final = 1 << 15
_THREAD_COUNT: Final = min(4, os.cpu_count() or 1)

# The levels of each compression, and the one that is meant if none is said.
_LEVELS: Final = {"gzip": (range(10), 6), "zstd": (range(1, 20), 3), "none": (range(1), 0)}
COMPRESSIONS: Final = tuple(_LEVELS)

_LAYER: Final = "application/vnd.oci.image.layer.v1.tar"
_SUFFIXES: Final = {"gzip": "+gzip", "zstd": "+zstd", "none": ""}


def layer_type(compression: str) -> str:
    """Return the media type of a layer that is compressed so.

    >>> layer_type("gzip")
    'application/vnd.oci.image.layer.v1.tar+gzip'
    """
    return _LAYER + _SUFFIXES[compression]


def level_of(compression: str, level: int | None) -> int:
    """Return the level that is meant; None means what is usual.

    Raises:
        InvalidArgument: There is no such compression, or no such level of it.
    """
    if compression not in _LEVELS:
        raise InvalidArgument(
            f"no compression {compression!r}; use one of {', '.join(COMPRESSIONS)}"
        )
    levels, usual = _LEVELS[compression]
    chosen = usual if level is None else level
    if chosen not in levels:
        raise InvalidArgument(
            f"{compression} has no level {chosen}; give one from {levels[0]} to {levels[-1]}"
        )
    return chosen


class Compressor(Closing):
    """Bytes on their way out, compressed. A context manager that ends its threads.

    Args:
        write: Takes the compressed bytes, about a MiB at a time.
        compression: One of `COMPRESSIONS`.
        level: How hard to try; None for what is usual.

    Attributes:
        plain_size: How many bytes came in.
        size: How many went out.

    Raises:
        InvalidArgument: There is no such compression, or no such level of it.
        NotImplementedHere: It is zstd, and nothing here writes that.
    """

    def __init__(
        self, write: Callable[[bytes], object], compression: str, level: int | None = None
    ) -> None:
        self._engine = _engine(compression, level)
        self._write = write
        self._hash = digests.hasher()
        self._pieces: list[bytes] = []
        self._pending_size = 0
        self.plain_size = 0
        self.size = 0

    @property
    def diff_id(self) -> str:
        """The digest of the bytes that came in."""
        return digests.name(self._hash)

    def write(self, data: bytes) -> None:
        """Take plain bytes."""
        self._hash.update(data)
        self.plain_size += len(data)
        self._keep(self._engine.compress(data))

    def finish(self) -> None:
        """Write what is left; nothing can be written after it."""
        self._keep(self._engine.flush())
        self._pass_on()

    def close(self) -> None:
        """Release what is held. Idempotent."""
        self._engine.close()

    def _keep(self, data: bytes) -> None:
        self._pieces.append(data)
        self._pending_size += len(data)
        if self._pending_size >= _OUTPUT_SIZE:
            self._pass_on()

    def _pass_on(self) -> None:
        data = b"".join(self._pieces)
        self._pieces.clear()
        self._pending_size = 0
        self.size += len(data)
        if data:
            self._write(data)


class _ZstdEngine(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


class _Engine(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...
    def close(self) -> None: ...


def _engine(compression: str, level: int | None) -> _Engine:
    chosen = level_of(compression, level)
    if compression == "gzip":
        return _Gzip(chosen)
    return _Zstd(chosen) if compression == "zstd" else _Plain()


class _Plain:
    """Bytes as they come."""

    def compress(self, data: bytes, /) -> bytes:
        return data

    def flush(self) -> bytes:
        return b""

    def close(self) -> None:
        """Nothing is held."""


class _Zstd:
    """One zstd frame."""

    def __init__(self, level: int) -> None:
        self._engine = _zstd(level)

    def compress(self, data: bytes, /) -> bytes:
        return self._engine.compress(data)

    def flush(self) -> bytes:
        return self._engine.flush()

    def close(self) -> None:
        """Nothing is held."""


class _Gzip:
    """One gzip member, made piece by piece in threads of its own.

    Invariants:
        `_made` has the pieces that are not given out yet, in order, and not many.
    """

    def __init__(self, level: int) -> None:
        self._level = level
        self._threads = ThreadPoolExecutor(_THREAD_COUNT)
        self._made: deque[Future[bytes]] = deque()
        self._input = bytearray()
        self._start = _GZIP_START
        self._window = b""
        self._crc = 0
        self._size = 0

    def compress(self, data: bytes, /) -> bytes:
        self._crc = zlib.crc32(data, self._crc)
        self._size += len(data)
        self._input += data
        # One byte more, for the last piece is made otherwise and is not empty.
        while len(self._input) > _PIECE_SIZE:
            self._make(bytes(self._input[:_PIECE_SIZE]), zlib.Z_SYNC_FLUSH)
            del self._input[:_PIECE_SIZE]
        return self._take(_THREAD_COUNT * 2)

    def flush(self) -> bytes:
        self._make(bytes(self._input), zlib.Z_FINISH)
        trailer = struct.pack("<II", self._crc, self._size & 0xFFFFFFFF)
        return self._take(0) + trailer

    def close(self) -> None:
        self._threads.shutdown(cancel_futures=True)

    def _make(self, piece: bytes, ending: int) -> None:
        self._made.append(
            self._threads.submit(_deflate, piece, self._window, self._level, ending)
        )
        self._window = piece[-_WINDOW_SIZE:]

    def _take(self, left_count: int) -> bytes:
        """Return the first pieces, as they are done, until so many are left."""
        pieces, self._start = [self._start], b""
        while len(self._made) > left_count:
            pieces.append(self._made.popleft().result())
        return b"".join(pieces)


def _deflate(piece: bytes, window: bytes, level: int, ending: int) -> bytes:
    engine = zlib.compressobj(level, zlib.DEFLATED, _RAW_WINDOW_BITS, zdict=window)
    return engine.compress(piece) + engine.flush(ending)


def _zstd(level: int) -> _ZstdEngine:
    # Imported only here, as in `compression`.
    if sys.version_info >= (3, 14):
        from compression import zstd  # noqa: PLC0415  # As above.

        return zstd.ZstdCompressor(level)
    try:
        import zstandard  # noqa: PLC0415  # As above.
    except ImportError as error:
        raise NotImplementedHere(
            "zstd needs: pip install 'blobkv[cli]'; or take another compression"
        ) from error
    return zstandard.ZstdCompressor(level=level).compressobj()
