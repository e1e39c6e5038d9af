"""Which of the images for several platforms is the one for this machine.

A machine that runs no Linux runs Linux images all the same, in a virtual machine of its own
architecture: so the operating system sought is always Linux.

Source: containerd's platforms package, for the names and for variants that may be left out.
"""

from __future__ import annotations

import platform
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from blobmap.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Sequence

    from blobmap._oci.manifest import Descriptor

UNKNOWN: Final = "unknown"

# What uname calls a machine, and what images do: architecture and variant.
_MACHINES: Final = {
    "x86_64": ("amd64", ""),
    "amd64": ("amd64", ""),
    "i386": ("386", ""),
    "i686": ("386", ""),
    "aarch64": ("arm64", ""),
    "arm64": ("arm64", ""),
    "armv7l": ("arm", "v7"),
    "armv6l": ("arm", "v6"),
    "loongarch64": ("loong64", ""),
}
# The variant that is meant where none is given.
_USUAL_VARIANTS: Final = {"amd64": "v1", "arm64": "v8", "arm": "v7"}


@dataclass(frozen=True, slots=True)
class Platform:
    """What an image runs on."""

    os: str
    architecture: str
    variant: str = ""

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def matches(self, other: Platform) -> bool:
        """Return whether both are the same, a usual variant being the same as none."""
        return self._full() == other._full()

    def _full(self) -> tuple[str, str, str]:
        variant = self.variant or _USUAL_VARIANTS.get(self.architecture, "")
        return self.os, self.architecture, variant


def host() -> Platform:
    """Return the platform of the images this machine runs."""
    machine = platform.machine().lower()
    architecture, variant = _MACHINES.get(machine, (machine, ""))
    return Platform("linux", architecture, variant)


def choose(candidates: Sequence[Descriptor], wanted: Platform, *, name: str) -> Descriptor:
    """Return the one that is for the platform, or else the only one.

    Those for the platform "unknown" are attestations about images, and are not looked at.

    Args:
        candidates: Manifests of one image.
        wanted: The platform.
        name: What to call the image in an error.

    Raises:
        NotFound: There are several, and none is for the platform; the message lists them.
    """
    images = [
        candidate
        for candidate in candidates
        if candidate.platform is None or candidate.platform.os != UNKNOWN
    ]
    for image in images:
        if image.platform is not None and image.platform.matches(wanted):
            return image
    if len(images) == 1:
        return images[0]
    offered = ", ".join(sorted({str(image.platform or UNKNOWN) for image in images}))
    raise NotFound(f"{name}: no image for {wanted}; there are: {offered or 'none at all'}")
