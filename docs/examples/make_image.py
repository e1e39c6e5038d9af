"""Make a real OCI image layout with nothing but Python: no network, no image tool.

    python make_image.py DIRECTORY

The layout holds two images that share their base layer:

    base    etc, tmp, and modules of this Python's standard library         gzip
    app     base, and on it
            more modules; the base's email package hidden by a whiteout,    zstd, or gzip
            its html package emptied by an opaque directory                 without zstandard
            a settings file replaced, a hard link to a file of the base     plain tar

The same Python gives the same bytes, so the images have the same digests every time.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import sys
import sysconfig
import tarfile
from pathlib import Path

MEDIA_TYPE = "application/vnd.oci.image"
LIBRARY = "usr/lib/python"
TIME = 1_700_000_000


class Layer:
    """One layer's tar under construction."""

    def __init__(self) -> None:
        self._bytes = io.BytesIO()
        self._tar = tarfile.TarFile(fileobj=self._bytes, mode="w", format=tarfile.PAX_FORMAT)

    def directory(self, name: str, mode: int = 0o755) -> None:
        """Add a directory."""
        self._add(name, b"", tarfile.DIRTYPE, mode=mode)

    def file(self, name: str, data: bytes, mode: int = 0o644) -> None:
        """Add a regular file."""
        self._add(name, data, tarfile.REGTYPE, mode=mode)

    def symlink(self, name: str, target: str) -> None:
        """Add a symlink."""
        self._add(name, b"", tarfile.SYMTYPE, mode=0o777, target=target)

    def hard_link(self, name: str, target: str) -> None:
        """Add another name for a file of this layer or of one below."""
        self._add(name, b"", tarfile.LNKTYPE, mode=0o644, target=target)

    def hide(self, name: str) -> None:
        """Hide a path of the layers below."""
        folder, _, last = name.rpartition("/")
        self.file(f"{folder}/.wh.{last}", b"", mode=0o600)

    def hide_all_in(self, name: str) -> None:
        """Hide all that the layers below have in a directory."""
        self.directory(name)
        self.file(f"{name}/.wh..wh..opq", b"", mode=0o600)

    def package(self, name: str) -> None:
        """Add a package of this Python's standard library: its modules, as they are."""
        source = Path(sysconfig.get_path("stdlib")) / name
        self.directory(f"{LIBRARY}/{name}")
        for path in sorted(source.glob("*.py")):
            self.file(f"{LIBRARY}/{name}/{path.name}", path.read_bytes())

    def finish(self) -> bytes:
        """Return the tar."""
        self._tar.close()
        return self._bytes.getvalue()

    def _add(self, name: str, data: bytes, kind: bytes, *, mode: int, target: str = "") -> None:
        member = tarfile.TarInfo(name)
        member.type, member.mode, member.mtime = kind, mode, TIME
        member.size, member.linkname = len(data), target
        self._tar.addfile(member, io.BytesIO(data))


class Layout:
    """An OCI image layout under construction in a directory."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._blobs = directory / "blobs" / "sha256"
        self._blobs.mkdir(parents=True, exist_ok=True)
        self._images: list[dict[str, object]] = []

    def image(self, name: str, *layers: tuple[bytes, str]) -> None:
        """Add an image of these layers, each with its compression; the base first."""
        config = {
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": [f"PYTHONPATH=/{LIBRARY}"]},
            "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar, _ in layers]},
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": f"{MEDIA_TYPE}.manifest.v1+json",
            "config": self._json(config, "config.v1+json"),
            "layers": [self._layer(tar, compression) for tar, compression in layers],
        }
        descriptor = self._json(manifest, "manifest.v1+json")
        descriptor["annotations"] = {"org.opencontainers.image.ref.name": name}
        self._images.append(descriptor)

    def finish(self) -> None:
        """Write the files that make the directory a layout."""
        index = {"schemaVersion": 2, "manifests": self._images}
        (self._directory / "index.json").write_bytes(json.dumps(index).encode())
        (self._directory / "oci-layout").write_bytes(b'{"imageLayoutVersion": "1.0.0"}')

    def _layer(self, tar: bytes, compression: str) -> dict[str, object]:
        if compression == "gzip":
            return self._blob(gzip.compress(tar, mtime=0), "layer.v1.tar+gzip")
        if compression == "zstd" and (packed := zstd_compress(tar)) is not None:
            return self._blob(packed, "layer.v1.tar+zstd")
        if compression == "zstd":
            return self._layer(tar, "gzip")
        return self._blob(tar, "layer.v1.tar")

    def _json(self, document: object, kind: str) -> dict[str, object]:
        return self._blob(json.dumps(document).encode(), kind)

    def _blob(self, data: bytes, kind: str) -> dict[str, object]:
        name = digest(data)
        (self._blobs / name.removeprefix("sha256:")).write_bytes(data)
        return {"mediaType": f"{MEDIA_TYPE}.{kind}", "digest": name, "size": len(data)}


def digest(data: bytes) -> str:
    """Return the digest of the bytes."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def zstd_compress(data: bytes) -> bytes | None:
    """Return the bytes compressed, or None where nothing here can do that."""
    try:
        import zstandard  # noqa: PLC0415 - it may be missing.
    except ImportError:
        return None
    return zstandard.ZstdCompressor().compress(data)


def base_layer() -> bytes:
    """Return the layer that both images start with."""
    layer = Layer()
    layer.directory("etc")
    layer.file("etc/settings", b"colour = green\n", mode=0o640)
    layer.directory("tmp", mode=0o1777)
    layer.directory(LIBRARY)
    for package in ("json", "email", "html", "logging"):
        layer.package(package)
    layer.hard_link(f"{LIBRARY}/json/codec.py", f"{LIBRARY}/json/decoder.py")
    layer.symlink("lib", "usr/lib")
    return layer.finish()


def app_layer() -> bytes:
    """Return a layer that adds some packages and hides others."""
    layer = Layer()
    for package in ("asyncio", "unittest", "sqlite3"):
        layer.package(package)
    layer.hide(f"{LIBRARY}/email")
    layer.hide_all_in(f"{LIBRARY}/html")
    layer.file(f"{LIBRARY}/html/__init__.py", b'"""Nothing of the base is left here."""\n')
    return layer.finish()


def settings_layer() -> bytes:
    """Return a layer that replaces a file of the base and links to another."""
    layer = Layer()
    layer.file("etc/settings", b"colour = blue\n", mode=0o600)
    layer.hard_link("etc/logging.py", f"{LIBRARY}/logging/__init__.py")
    return layer.finish()


def make_layout(directory: Path) -> None:
    """Write the layout with its two images."""
    base = (base_layer(), "gzip")
    layout = Layout(directory)
    layout.image("base", base)
    layout.image("app", base, (app_layer(), "zstd"), (settings_layer(), ""))
    layout.finish()


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(f"usage: {sys.argv[0]} DIRECTORY")
    make_layout(Path(sys.argv[1]))
