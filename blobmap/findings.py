"""What a comparison of map, snapshotter, and content store finds: as data, and as text."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator

GONE: Final = "snapshot gone"
OTHER: Final = "snapshot other"
MISSING: Final = "blob missing"
SIZE: Final = "blob size"
BROKEN: Final = "image broken"
CACHE: Final = "cache wrong"
REMOVAL: Final = "removal open"
LEFTOVER: Final = "leftover open"
WORK: Final = "work open"
DELETION: Final = "deletion open"

# What is left to do where repair can do nothing, or could not.
_REMEDIES: Final = {
    MISSING: "import the images again that `explain` names for them",
    SIZE: "import the images again that `explain` names for them",
    BROKEN: "import them again, or remove them",
    REMOVAL: "reconcile again when the snapshotter works",
    LEFTOVER: "reconcile again when the snapshotter works",
    DELETION: "reconcile again when the content store works",
}

# Findings listed one by one, of each kind; all are counted.
_LISTED_COUNT: Final = 1000


class Evidence(StrEnum):
    """How sure a finding is."""

    PROVEN = "proven"
    """What should know it was asked by name, and said so; or a record that is whole says it."""

    SUSPECTED = "suspected"
    """A row says it, and another that ought to agree does not; either may be the lost one."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is not as it should be.

    Attributes:
        kind: What it is; the table above has them all.
        subject: The snapshot, digest, image, or work.
        detail: What was expected there, and what was found.
        evidence: How sure that is.
    """

    kind: str
    subject: str
    detail: str
    evidence: Evidence = Evidence.PROVEN

    def __str__(self) -> str:
        suspected = " (suspected)" if self.evidence is Evidence.SUSPECTED else ""
        return f"{self.kind}{suspected}: {self.subject}: {self.detail}"


@dataclass(slots=True)
class Report:
    """What `reconcile` found and did. `str` is for people.

    Attributes:
        dry_run: Whether it was only to look.
        edge_count: Mappings in the map.
        snapshot_count: Snapshots in the snapshotter.
        blob_count: Blobs that snapshots and images hold.
        content_count: Blobs in the content store.
        unowned_count: Blobs in the content store that the map does not know.
        release_count: Rows of the index that have no edge; dropping one may free its blob.
        findings: What is not as it should be; of each kind at most the first 1,000.
        counts: How many findings there are, by kind.
        repairs: How many of those are repaired now, by kind.
    """

    dry_run: bool
    edge_count: int = 0
    snapshot_count: int = 0
    blob_count: int = 0
    content_count: int = 0
    unowned_count: int = 0
    release_count: int = 0
    findings: list[Finding] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)

    @property
    def repaired(self) -> int:
        """How many findings are repaired now."""
        return self.repairs.total()

    @property
    def ok(self) -> bool:
        """Whether everything is now as it should be."""
        return self.repaired == self.counts.total()

    def add(self, finding: Finding) -> None:
        """Count a finding, and list it unless many of its kind are listed."""
        self.counts[finding.kind] += 1
        if self.counts[finding.kind] <= _LISTED_COUNT:
            self.findings.append(finding)

    def __str__(self) -> str:
        lines = [
            f"{self.edge_count} mappings, {self.snapshot_count} snapshots",
            f"{self.blob_count} held blobs, {self.content_count} in the content store",
            f"{self.unowned_count} blobs there are unknown to the map",
        ]
        lines += (str(item) for item in self.findings)
        unlisted = self.counts.total() - len(self.findings)
        if unlisted:
            lines.append(f"and {unlisted} more")
        lines += self._conclusion()
        return "\n".join(lines)

    def _conclusion(self) -> Iterator[str]:
        count = self.counts.total()
        if not count:
            yield "all is well: names and sizes agree; bytes were not read"
            return
        did = "nothing repaired: dry run" if self.dry_run else f"{self.repaired} repaired"
        yield f"{count} finding{'' if count == 1 else 's'}, {did}"
        for kind, remedy in _REMEDIES.items():
            if self.counts[kind] > self.repairs[kind]:
                yield f"to do about {kind}: {remedy}"
