"""What is compressed is an ordinary stream, and the same bytes however it comes and is made."""

from __future__ import annotations

import hashlib
import io
import os
import random
import zlib

import pytest

from blobmap._oci import compressor
from blobmap._oci.compressor import COMPRESSIONS, Compressor
from blobmap.errors import InvalidArgument


@pytest.mark.slow
@pytest.mark.parametrize("compression", COMPRESSIONS)
def test_compressed_bytes_do_not_depend_on_how_they_come(compression: str) -> None:
    data = os.urandom(2 << 20) + bytes(3 << 20)

    def compressed(step: int) -> tuple[bytes, str]:
        out = io.BytesIO()
        with Compressor(out.write, compression) as made:
            for offset in range(0, len(data), step):
                made.write(data[offset : offset + step])
            made.finish()
        assert (made.plain_size, made.size) == (len(data), len(out.getvalue()))
        return out.getvalue(), made.diff_id

    assert compressed(1 << 20) == compressed(77_777)
    assert compressed(1 << 20)[1] == f"sha256:{hashlib.sha256(data).hexdigest()}"


@pytest.mark.slow
@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1, 5 << 20])
@pytest.mark.parametrize("level", [0, 6])
def test_gzip_in_pieces_is_one_ordinary_stream(size: int, level: int) -> None:
    data = random.Random(0).randbytes(40_000) * (size // 40_000 + 1)
    out = io.BytesIO()

    with Compressor(out.write, "gzip", level) as made:
        made.write(b"")
        made.write(data[:size])
        made.finish()

    engine = zlib.decompressobj(31)
    assert engine.decompress(out.getvalue()) == data[:size]
    assert engine.eof
    assert engine.unused_data == b""


def test_gzip_does_not_depend_on_how_many_threads_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compressed() -> bytes:
        out = io.BytesIO()
        with Compressor(out.write, "gzip", 1) as made:
            made.write(bytes(range(256)) * 16_000)
            made.finish()
        return out.getvalue()

    monkeypatch.setattr(compressor, "_THREAD_COUNT", 1)
    alone = compressed()
    monkeypatch.setattr(compressor, "_THREAD_COUNT", 3)

    assert compressed() == alone


@pytest.mark.parametrize(
    ("compression", "level", "said"),
    [("xz", None, "no compression 'xz'"), ("gzip", 10, "from 0 to 9"), ("none", 1, "no level")],
)
def test_another_compression_or_level_is_refused(
    compression: str, level: int | None, said: str
) -> None:
    with pytest.raises(InvalidArgument, match=said):
        Compressor(bytes, compression, level)
