"""An OCI image layout, read where it lies: a directory, or a tar of one.

    oci-layout                  {"imageLayoutVersion": "1.0.0"}
    index.json                  the index: descriptors of the images, with their names
    blobs/<algorithm>/<hex>     manifests, configs, layers

Source: the OCI image specification, image-layout.md.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from blobmap import digest as digests
from blobmap._map.schema import IMAGE_SIZE_MAX, check_name
from blobmap._oci.layout_files import BLOBS, INDEX, LAYOUT, no_layout, open_files, read_all
from blobmap._oci.manifest import Descriptor, check_layout, parse_index
from blobmap._oci.platforms import choose, host
from blobmap.closing import Closing
from blobmap.errors import DataLoss, InvalidArgument, NotFound

if TYPE_CHECKING:
    from collections.abc import Iterator

    from blobmap._oci.layout_files import Store
    from blobmap.contracts import ContentReader

_DEPTH_MAX: Final = 4
# Descriptors looked at, in all indexes together: names times platforms.
_LISTED_COUNT_MAX: Final = 1 << 17


@dataclass(frozen=True, slots=True)
class _Group:
    """One image of the layout: its names, if any, and its manifests, one a platform."""

    names: tuple[str, ...]
    manifests: list[Descriptor]


class Layout(Closing):
    """One layout, open. A context manager that closes it.

    Args:
        path: A directory, or a tar, plain or compressed.
        store: Takes the blobs of a compressed tar; not used, nor needed, otherwise.

    Attributes:
        name: What it is called in errors: its path.
        index: What its index lists.

    Raises:
        NotFound: There is nothing at `path`.
        InvalidArgument: It is no layout; the message says how to make one.
        DataLoss: It is a tar and damaged.
    """

    def __init__(self, path: str | os.PathLike[str], store: Store | None) -> None:
        self.name = os.fspath(path)
        self._nested: dict[str, tuple[Descriptor, ...]] = {}
        self._listed_count = 0
        self._files = open_files(Path(path), store)
        try:
            check_layout(self._document(LAYOUT), name=f"{self.name}: {LAYOUT}")
            self.index = parse_index(self._document(INDEX), name=f"{self.name}: {INDEX}")
        except FileNotFoundError as error:
            self.close()
            raise InvalidArgument(no_layout(self.name, f"it has no {error}")) from error
        except BaseException:
            self.close()
            raise

    def open(self, blob: Descriptor) -> ContentReader:
        """Open a blob for reading; its bytes are not checked here.

        Raises:
            DataLoss: The layout lacks it, or its size is another.
        """
        algorithm, digits = digests.split(blob.digest)
        try:
            reader = self._files.open(f"{BLOBS}/{algorithm}/{digits}")
        except FileNotFoundError as error:
            raise DataLoss(
                f"{self.name}: blob {blob.digest} is missing; copy the image again"
            ) from error
        if reader.size != blob.size:
            size = reader.size
            reader.close()
            raise DataLoss(
                f"{self.name}: blob {blob.digest} has {size} bytes where its descriptor "
                f"says {blob.size}; copy the image again"
            )
        return reader

    def read(self, document: Descriptor) -> bytes:
        """Return the bytes of an index, manifest, or config, which are what the digest says.

        Raises:
            DataLoss: They are missing, or not what the digest says.
            InvalidArgument: They are more than `DOCUMENT_SIZE_MAX`.
        """
        with self.open(document) as reader:
            data = read_all(reader, f"{self.name}: {document.digest}")
        running = digests.hasher(digests.split(document.digest)[0])
        running.update(data)
        if digests.name(running) != document.digest:
            raise DataLoss(
                f"{self.name}: the bytes of {document.digest} are {digests.name(running)}; "
                "copy the image again"
            )
        return data

    def images(self, ref: str | None = None) -> list[tuple[str, Descriptor]]:
        """Return the images, each with its name, in the order of the index.

        An image without a name is called by its digest. Of one for several platforms, it is
        the manifest for this machine.

        Args:
            ref: Only the image of this name; or, if the layout has one image and that has no
                name, that one under this.

        Raises:
            NotFound: There is no such image, or none for this machine.
            InvalidArgument: What is listed is no image, or its name cannot be printed or is
                too long to be recorded.
        """
        groups = self._groups()
        if ref is None:
            return [self._image(group) for group in groups]
        for group in groups:
            if ref in group.names:
                return [self._image(group)]
        if len(groups) == 1 and not groups[0].names:
            return [self._image(_Group((ref,), groups[0].manifests))]
        names = ", ".join(name for group in groups for name in group.names)
        raise NotFound(f"{self.name}: no image is named {ref!r}; there are: {names or 'none'}")

    def close(self) -> None:
        """Release the layout. Idempotent."""
        self._files.close()

    def _document(self, name: str) -> bytes:
        with self._files.open(name) as file:
            return read_all(file, f"{self.name}: {name}")

    def _groups(self) -> list[_Group]:
        groups: dict[object, _Group] = {}
        seen: dict[object, set[str]] = {}
        self._listed_count = 0
        for item in self.index:
            # Manifests without a name that say their platforms are one image for several.
            key = item.names or ("" if item.platform else item.digest)
            group = groups.setdefault(key, _Group(item.names, []))
            group.manifests.extend(
                self._manifests(item, seen.setdefault(key, set()), _DEPTH_MAX)
            )
        if not groups:
            raise InvalidArgument(f"{self.name}: its index lists no image")
        return list(groups.values())

    def _image(self, group: _Group) -> tuple[str, Descriptor]:
        place = f"{self.name}: {group.names[0] if group.names else 'the image'}"
        chosen = choose(group.manifests, host(), name=place)
        if not chosen.is_manifest:
            raise InvalidArgument(
                f"{place}: {chosen.digest} has type {chosen.media_type!r}, which is no image"
            )
        name = group.names[0] if group.names else chosen.digest
        if not name.isprintable():
            raise InvalidArgument(f"{self.name}: the name {name!r} cannot be printed")
        check_name("image", name, IMAGE_SIZE_MAX)
        return name, chosen

    def _manifests(
        self, descriptor: Descriptor, seen: set[str], depth: int
    ) -> Iterator[Descriptor]:
        self._listed_count += 1
        if self._listed_count > _LISTED_COUNT_MAX:
            raise InvalidArgument(
                f"{self.name}: its indexes list more than {_LISTED_COUNT_MAX} images"
            )
        if not descriptor.is_index:
            yield descriptor
            return
        if depth == 0:
            raise InvalidArgument(
                f"{self.name}: {descriptor.digest}: indexes nested more than {_DEPTH_MAX} deep"
            )
        # What lists an index a thousand times has no more images for that.
        if descriptor.digest not in seen:
            seen.add(descriptor.digest)
            for item in self._listed(descriptor):
                yield from self._manifests(item, seen, depth - 1)

    def _listed(self, index: Descriptor) -> tuple[Descriptor, ...]:
        """Return what a nested index lists, read once however many list it."""
        if index.digest not in self._nested:
            data = self.read(index)
            name = f"{self.name}: {index.digest}"
            self._nested[index.digest] = parse_index(data, name=name)
        return self._nested[index.digest]
