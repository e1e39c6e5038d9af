"""How far an import or an export is, told blob by blob."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Stage(Enum):
    """What is being done with a blob."""

    INGEST = "ingest"
    APPLY = "apply"
    CHECK = "check"
    PACK = "pack"
    COPY = "copy"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far one blob is.

    Attributes:
        stage: What is being done with it.
        digest: The blob; while it is packed, and has no digest yet, the snapshot's name.
        done: Its bytes that are done; while it is packed, those of the uncompressed layer.
        total: All its bytes; while it is packed, what the snapshot's usage lets expect.
    """

    stage: Stage
    digest: str
    done: int
    total: int


def ignore(progress: Progress) -> None:
    """Report to nobody."""
