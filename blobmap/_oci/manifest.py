"""The documents that say what an image is: index, manifest, config; read with nothing trusted.

    index     -> descriptors of manifests and of further indexes
    manifest  -> the descriptor of the config, and those of the layers, the base first
    config    -> the diff ID of each layer: the digest of its uncompressed tar

A *descriptor* names a blob by digest and says its size and media type. OCI's media types and
Docker's are the same documents under other names; both are read.

Whatever a document may hold, reading it ends with these records or with `InvalidArgument`.

Source: the OCI image specification: descriptor.md, image-index.md, manifest.md, config.md.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from blobmap import digest as digests
from blobmap._oci.platforms import Platform
from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

DOCUMENT_SIZE_MAX: Final = 8 << 20
LAYER_COUNT_MAX: Final = 512
LIST_COUNT_MAX: Final = 1 << 14

_LAYOUT_VERSION: Final = "1."

_INDEXES: Final = {
    "application/vnd.oci.image.index.v1+json",
    "application/vnd.docker.distribution.manifest.list.v2+json",
}
_MANIFESTS: Final = {
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
}
_CONFIGS: Final = {
    "application/vnd.oci.image.config.v1+json",
    "application/vnd.docker.container.image.v1+json",
}
_LAYERS: Final = (
    "application/vnd.oci.image.layer.v1.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
    "application/vnd.docker.image.rootfs.diff.tar",
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
)
_COMPRESSIONS: Final = ("", "+gzip", "+zstd", ".gzip", ".zstd")
_LAYER_TYPES: Final = {layer + suffix for layer in _LAYERS for suffix in _COMPRESSIONS}

# containerd's full name for the image comes before the tag that is its name in the layout.
_NAMES: Final = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


@dataclass(frozen=True, slots=True)
class Descriptor:
    """A blob, by name, and what it is said to be."""

    media_type: str
    digest: str
    size: int
    platform: Platform | None = None
    annotations: Mapping[str, str] = field(default_factory=dict)

    @property
    def is_index(self) -> bool:
        """Whether it names further manifests, and not an image."""
        return self.media_type in _INDEXES

    @property
    def is_manifest(self) -> bool:
        """Whether it names an image."""
        return self.media_type in _MANIFESTS

    @property
    def names(self) -> tuple[str, ...]:
        """The names that its annotations give the image, the fullest first."""
        return tuple(self.annotations[key] for key in _NAMES if self.annotations.get(key))


@dataclass(frozen=True, slots=True)
class Manifest:
    """One image's parts. There is at least one layer."""

    config: Descriptor
    layers: tuple[Descriptor, ...]


def check_layout(data: bytes, *, name: str) -> None:
    """Check the document that says that a directory is a layout.

    Raises:
        InvalidArgument: It does not say so, or speaks of a version to come.
    """
    version = _Node.parse(data, name).child("imageLayoutVersion").text()
    if not version.startswith(_LAYOUT_VERSION):
        raise InvalidArgument(f"{name}: version {version!r} is not known, only 1.0.0 is")


def parse_index(data: bytes, *, name: str) -> tuple[Descriptor, ...]:
    """Return the descriptors that the index lists.

    Raises:
        InvalidArgument: It is no index.
    """
    index = _Node.parse(data, name)
    return tuple(_descriptor(item) for item in index.items("manifests"))


def parse_manifest(data: bytes, *, name: str) -> Manifest:
    """Return the parts that the manifest lists.

    Raises:
        InvalidArgument: It is no manifest of an image that can be applied.
    """
    node = _Node.parse(data, name)
    manifest = Manifest(
        _descriptor(node.child("config")),
        tuple(_descriptor(item) for item in node.items("layers")),
    )
    if manifest.config.media_type not in _CONFIGS:
        raise InvalidArgument(
            f"{name}: it is an artifact of type {manifest.config.media_type!r}, not an image"
        )
    if not 1 <= len(manifest.layers) <= LAYER_COUNT_MAX:
        raise InvalidArgument(
            f"{name}: an image has 1 to {LAYER_COUNT_MAX} layers, not {len(manifest.layers)}"
        )
    for layer in manifest.layers:
        if layer.media_type not in _LAYER_TYPES:
            raise InvalidArgument(
                f"{name}: layer {layer.digest} has type {layer.media_type!r}, which is no tar; "
                "an encrypted image must be decrypted first"
            )
    return manifest


def parse_diff_ids(data: bytes, *, name: str) -> tuple[str, ...]:
    """Return the diff ID of each layer, the base first.

    Raises:
        InvalidArgument: It is no config of an image.
    """
    rootfs = _Node.parse(data, name).child("rootfs")
    return tuple(digests.validate(item.text()) for item in rootfs.items("diff_ids"))


def chain_ids(diff_ids: Sequence[str]) -> tuple[str, ...]:
    """Return the name of each snapshot of a stack: that of the layer and all below it.

    >>> chain_ids(["sha256:" + "0" * 64])[0] == "sha256:" + "0" * 64
    True

    Source: the OCI image specification, config.md, "Layer ChainID".
    """
    chain: list[str] = []
    for diff_id in diff_ids:
        text = f"{chain[-1]} {diff_id}" if chain else ""
        chain.append(f"sha256:{hashlib.sha256(text.encode()).hexdigest()}" if text else diff_id)
    return tuple(chain)


@dataclass(frozen=True, slots=True)
class _Node:
    """A value somewhere in a JSON document, which knows where that is."""

    value: object
    place: str

    @classmethod
    def parse(cls, data: bytes, name: str) -> _Node:
        try:
            return cls(json.loads(data), name)
        # RecursionError is what brackets nested without end come to.
        except (ValueError, RecursionError) as error:
            raise InvalidArgument(f"{name}: not sound JSON: {error}") from error

    def child(self, key: str) -> _Node:
        if not isinstance(self.value, dict):
            raise InvalidArgument(f"{self.place}: not a JSON object")
        return _Node(self.value.get(key), f"{self.place}: {key}")

    def items(self, key: str) -> list[_Node]:
        found = self.child(key)
        if not isinstance(found.value, list):
            raise InvalidArgument(f"{found.place}: missing, or not a list")
        if len(found.value) > LIST_COUNT_MAX:
            raise InvalidArgument(
                f"{found.place}: {len(found.value)} items, at most {LIST_COUNT_MAX}"
            )
        return [_Node(item, f"{found.place}[{i}]") for i, item in enumerate(found.value)]

    def text(self, *, default: str | None = None) -> str:
        if self.value is None and default is not None:
            return default
        if not isinstance(self.value, str):
            raise InvalidArgument(f"{self.place}: missing, or not a string")
        return self.value

    def size(self) -> int:
        if not isinstance(self.value, int) or isinstance(self.value, bool) or self.value < 0:
            raise InvalidArgument(f"{self.place}: missing, or not a size in bytes")
        return self.value


def _descriptor(node: _Node) -> Descriptor:
    return Descriptor(
        node.child("mediaType").text(),
        digests.validate(node.child("digest").text()),
        node.child("size").size(),
        _platform(node.child("platform")),
        _annotations(node.child("annotations")),
    )


def _platform(node: _Node) -> Platform | None:
    if node.value is None:
        return None
    return Platform(
        node.child("os").text(),
        node.child("architecture").text(),
        node.child("variant").text(default=""),
    )


def _annotations(node: _Node) -> Mapping[str, str]:
    if node.value is None:
        return {}
    if not isinstance(node.value, dict):
        raise InvalidArgument(f"{node.place}: not a JSON object")
    return {key: node.child(key).text() for key in node.value}
