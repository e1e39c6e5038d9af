"""Tars, layers, and OCI layouts made in memory, as good or as bad as a test wants them."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import os
import stat
import tarfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import zstandard

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
INDEX = "application/vnd.oci.image.index.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar.gzip"
REF_NAME = "org.opencontainers.image.ref.name"
MTIME = 1_600_000_000

Member = tuple[tarfile.TarInfo, bytes]
Json = dict[str, Any]


def digest_of(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def member(name: str, data: bytes = b"", **fields: Any) -> Member:
    """A tar member: a regular file unless `type` says otherwise."""
    info = tarfile.TarInfo(name)
    info.size = len(data)
    info.mtime = MTIME
    for key, value in fields.items():
        setattr(info, key, value)
    return info, data


def directory(name: str, **fields: Any) -> Member:
    return member(name, type=tarfile.DIRTYPE, **{"mode": 0o755, **fields})


def symlink(name: str, target: str, **fields: Any) -> Member:
    return member(name, type=tarfile.SYMTYPE, linkname=target, **fields)


def link(name: str, target: str, **fields: Any) -> Member:
    return member(name, type=tarfile.LNKTYPE, linkname=target, **fields)


def tar(*members: Member, format: int = tarfile.PAX_FORMAT) -> bytes:  # noqa: A002
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=format) as archive:
        for info, data in members:
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue()


def compress(data: bytes, how: str) -> bytes:
    if how == "gzip":
        return gzip.compress(data, mtime=0)
    if how == "zstd":
        return zstandard.ZstdCompressor().compress(data)
    assert how == ""
    return data


@dataclass
class LayoutBuilder:
    """An OCI layout under construction: blobs, and the entries of its index."""

    blobs: dict[str, bytes] = field(default_factory=dict)
    manifests: list[Json] = field(default_factory=list)

    def add(self, data: bytes, media_type: str, **extra: Any) -> Json:
        """Keep a blob and return its descriptor."""
        digest = digest_of(data)
        self.blobs[digest] = data
        return {"mediaType": media_type, "digest": digest, "size": len(data), **extra}

    def add_json(self, document: Any, media_type: str, **extra: Any) -> Json:
        return self.add(json.dumps(document).encode(), media_type, **extra)

    def image(
        self,
        *layers: bytes | tuple[bytes, str],
        name: str | None = "latest",
        arch: str = "amd64",
        docker: bool = False,
        **config: Any,
    ) -> Json:
        """Add an image of these tars, each with its compression; return its descriptor."""
        pairs = [layer if isinstance(layer, tuple) else (layer, "gzip") for layer in layers]
        config = {
            "architecture": arch,
            "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [digest_of(data) for data, _ in pairs]},
            **config,
        }
        manifest = {
            "schemaVersion": 2,
            "mediaType": DOCKER_MANIFEST if docker else MANIFEST,
            "config": self.add_json(config, DOCKER_CONFIG if docker else CONFIG),
            "layers": [
                self.add(
                    compress(data, how),
                    DOCKER_LAYER if docker else LAYER + (f"+{how}" if how else ""),
                )
                for data, how in pairs
            ],
        }
        return self.add_json(
            manifest,
            DOCKER_MANIFEST if docker else MANIFEST,
            **({"annotations": {REF_NAME: name}} if name is not None else {}),
        )

    def put(self, descriptor: Json) -> None:
        """List a descriptor in the layout's index."""
        self.manifests.append(descriptor)

    def files(self) -> dict[str, bytes]:
        """Every file of the layout by its path."""
        index = {"schemaVersion": 2, "mediaType": INDEX, "manifests": self.manifests}
        return {
            "oci-layout": b'{"imageLayoutVersion": "1.0.0"}',
            "index.json": json.dumps(index).encode(),
            **{f"blobs/{d.replace(':', '/')}": data for d, data in self.blobs.items()},
        }

    def write(self, path: Path, how: str = "directory") -> Path:
        """Write the layout as a directory, or as a tar that is plain, "gzip", or "zstd"."""
        if how != "directory":
            # The index comes last: a reader that goes through once must cope.
            members = [member(name, data) for name, data in reversed(self.files().items())]
            path.write_bytes(compress(tar(*members), "" if how == "tar" else how))
            return path
        for name, data in self.files().items():
            (path / name).parent.mkdir(parents=True, exist_ok=True)
            (path / name).write_bytes(data)
        return path


def layout(path: Path, *layers: bytes | tuple[bytes, str], how: str = "directory") -> Path:
    """Write a layout of one image called "latest"."""
    builder = LayoutBuilder()
    builder.put(builder.image(*layers))
    return builder.write(path, how)


def read_tree(root: Path | str) -> dict[str, tuple[object, ...]]:
    """Every path below `root`, with all that a layer can say of it.

    A directory's modification time is included; its size and link count say nothing.
    """
    base = Path(root)
    return {str(path.relative_to(base)): _facts(path) for path in (base, *base.rglob("*"))}


def _facts(path: Path) -> tuple[object, ...]:
    there = path.lstat()
    content: object = None
    if stat.S_ISREG(there.st_mode):
        content = digest_of(path.read_bytes())
    elif stat.S_ISLNK(there.st_mode):
        content = str(path.readlink())
    elif not stat.S_ISDIR(there.st_mode):
        content = there.st_rdev
    return (
        oct(there.st_mode),
        (there.st_uid, there.st_gid),
        0 if stat.S_ISDIR(there.st_mode) else there.st_nlink,
        content,
        there.st_mtime_ns,
        tuple(
            (name, os.getxattr(path, name, follow_symlinks=False))
            for name in sorted(os.listxattr(path, follow_symlinks=False))
        ),
    )
