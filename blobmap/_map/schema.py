"""The map's schema: its tables, and how their keys and values are spelled.

A table is a bucket of the store. A key is `blobkv.pack` of its parts, so no name can reach
into its neighbor, whatever it holds. A value is a JSON object, or nothing where the key
says it all. A *scope* is the two parts (namespace, snapshotter).

    table     key                           value
    --------  ----------------------------  --------------------------------------------------
    edge      scope, snapshot, role         digest, size, diff_id, media_type, annotations,
                                            retains, incarnation: what the blob is to that
                                            committed snapshot
    note      scope, snapshot, name         value, incarnation: metadata of the snapshot
    image     scope, image                  digest, blobs, sizes, snapshots, created
    listing   scope, snapshot, image        -: the image lists the snapshot
    claim     scope, work, kind, subject    -: work in flight holds a blob (kind "blob"), or
                                            has an active snapshot as scratch (kind "scratch")
    lease     scope, lease                  created, expires, labels
    leased    scope, lease, digest          -: the lease holds the blob
    intent    scope, snapshot               incarnation, doubtful: it is being removed
    leftover  scope, image, token           snapshots: what an image that is gone left behind
    holder    digest, kind, scope, name     -: the reverse of edge, image, claim, and leased;
                                            of a snapshot, the name is followed by the role
    mention   digest, scope, snapshot, role -: the reverse of edges that merely know the blob
    tally     digest                        count, size, foreign: how many holders there are
    queue     digest                        since, cause, size: nothing holds the blob; it is to
                                            be deleted
    event     segment, position             the feed; see `events`

Edge, image, claim, and leased are the truth; listing, holder, mention, and tally are caches of
them, changed in the same transaction. Everything recorded in one root shares one content
store, so holders are counted over all scopes. The schema's version stands in the store's top
level, under "schema"; `migration` brings what older versions wrote to this one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

import blobkv
from blobmap.contracts import Blob, Image, Info, Kind, Policy, Reference
from blobmap.errors import DataLoss, FailedPrecondition, InvalidArgument
from blobmap.fields import Fields, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence
    from datetime import datetime

EDGE: Final = "edge"
NOTE: Final = "note"
IMAGE: Final = "image"
LISTING: Final = "listing"
CLAIM: Final = "claim"
LEASE: Final = "lease"
LEASED: Final = "leased"
INTENT: Final = "intent"
LEFTOVER: Final = "leftover"
HOLDER: Final = "holder"
MENTION: Final = "mention"
TALLY: Final = "tally"
QUEUE: Final = "queue"
EVENT: Final = "event"

BY_IMAGE: Final = "image"
BY_LEASE: Final = "lease"
BY_SNAPSHOT: Final = "snapshot"
BY_WORK: Final = "work"
# They hold blobs that may not be there yet, and that may have been there before.
TEMPORARY: Final = frozenset({BY_LEASE, BY_WORK})
CLAIM_BLOB: Final = "blob"
CLAIM_SCRATCH: Final = "scratch"

# In UTF-8, with every NUL counted twice, for that is how `pack` spells it. Together with the
# other parts of the longest key they stay below what blobkv takes, 64 KiB.
SNAPSHOT_SIZE_MAX: Final = 56 * 1024
IMAGE_SIZE_MAX: Final = 4 * 1024
ROLE_SIZE_MAX: Final = 1024

_VERSION_KEY: Final = b"schema"
VERSION: Final = 2
_SCOPE_NAME: Final = re.compile(r"[A-Za-z0-9]+(?:[._-][A-Za-z0-9]+)*")
_SCOPE_NAME_MAX: Final = 76


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose names these are: one snapshotter in one namespace."""

    namespace: str
    snapshotter: str

    def __post_init__(self) -> None:
        for what, name in (("namespace", self.namespace), ("name", self.snapshotter)):
            if len(name) > _SCOPE_NAME_MAX or not _SCOPE_NAME.fullmatch(name):
                raise InvalidArgument(
                    f"{what} {name!r}: give up to {_SCOPE_NAME_MAX} letters and digits, with "
                    "single '.', '_' or '-' between them"
                )

    def key(self, *parts: str) -> bytes:
        """Return the key of what `parts` name here; with no parts, the prefix of them all."""
        return blobkv.pack(self.namespace, self.snapshotter, *parts)


@dataclass(frozen=True, slots=True)
class Holder:
    """What keeps a blob: a snapshot, an image, a lease, or work in flight.

    Attributes:
        kind: Which of them.
        scope: Whose.
        name: Its name.
        role: What the blob is to a snapshot; nothing for the others.
    """

    kind: str
    scope: Scope
    name: str
    role: str = ""

    @classmethod
    def of(cls, parts: Sequence[str]) -> Self:
        """Return the holder of these `parts`."""
        kind, namespace, snapshotter, *names = parts
        return cls(kind, Scope(namespace, snapshotter), *names)

    @property
    def parts(self) -> tuple[str, ...]:
        """What a row of it consists of."""
        role = (self.role,) if self.kind == BY_SNAPSHOT else ()
        return (self.kind, self.scope.namespace, self.scope.snapshotter, self.name, *role)

    def key(self, digest: str) -> bytes:
        """Return the key of this holder's row for `digest`."""
        return blobkv.pack(digest, *self.parts)

    def mention_key(self, digest: str) -> bytes:
        """Return the key of the row that says that this merely knows the blob."""
        return blobkv.pack(digest, *self.parts[1:])

    def __str__(self) -> str:
        where = f"{self.scope.namespace}/{self.scope.snapshotter}"
        role = f" as {self.role}" if self.role else ""
        return f"{self.kind} {self.name!r} of {where}{role}"


@dataclass(frozen=True, slots=True)
class Edge:
    """What a blob is to a snapshot, and which life of the snapshot's key that is about."""

    reference: Reference
    incarnation: str

    @property
    def blob(self) -> Blob:
        """The blob."""
        return self.reference.blob

    @property
    def retains(self) -> bool:
        """Whether the snapshot keeps the blob."""
        return self.reference.policy is Policy.RETAIN

    def is_of(self, info: Info) -> bool:
        """Return whether `info` is the very snapshot the edge was made for."""
        return info.kind is Kind.COMMITTED and self.incarnation == incarnation(info)


@dataclass(frozen=True, slots=True)
class Note:
    """A piece of metadata of a snapshot, and which life of its key that is about."""

    value: object
    incarnation: str


@dataclass(frozen=True, slots=True)
class Intent:
    """A removal that has begun.

    Attributes:
        incarnation: Which life of the key is to end.
        doubtful: Whether the caller saw the removal fail while nobody could tell if it had:
            then it is never tried again, only its outcome is looked up.
    """

    incarnation: str
    doubtful: bool = False


@dataclass(frozen=True, slots=True)
class Tally:
    """How a blob is held.

    Attributes:
        count: The number of holders, at least 1.
        size: The blob's size in bytes, or None while only work in flight holds it.
        foreign: Whether the blob was there before anything of this map held it, and only
            work has held it since: then it is not the map's to delete.
    """

    count: int
    size: int | None
    foreign: bool


@dataclass(frozen=True, slots=True)
class Queued:
    """A blob that is to be deleted.

    Attributes:
        since: Since when.
        cause: What let go of it last.
        size: Its size in bytes, or None if that was never recorded.
    """

    since: datetime
    cause: str
    size: int | None


def incarnation(info: Info) -> str:
    """Return what tells this life of a snapshot's key from an earlier one."""
    return "" if info.created is None else info.created.isoformat()


def check_name(what: str, name: str, size_max: int) -> None:
    """Refuse a name that cannot be recorded.

    Raises:
        InvalidArgument: It is empty, or is larger than `size_max`.
    """
    if not name:
        raise InvalidArgument(f"{what} {name!r}: give a text that is not empty")
    if not fits(name, size_max):
        raise InvalidArgument(
            f"{what} {name[:40]!r}... is larger than the limit of {size_max} bytes"
        )


def fits(name: str, size_max: int = SNAPSHOT_SIZE_MAX) -> bool:
    """Return whether a name is short enough to be recorded."""
    spelled = name.encode("utf-8", "surrogatepass")
    return len(spelled) + spelled.count(0) <= size_max


def set_version(txn: blobkv.Transaction, version: int) -> None:
    """Record which version of the schema the store is of."""
    txn.put(_VERSION_KEY, encode(version=version))


def settle_version(txn: blobkv.Transaction) -> int:
    """Return the schema's version; write it into a new store, refuse a store of another kind.

    Raises:
        FailedPrecondition: A newer blobmap wrote the map, or blobmap never did.
        DataLoss: The version does not read.
    """
    raw = txn.get(_VERSION_KEY)
    if raw is None:
        if any(True for _ in txn) or any(True for _ in txn.buckets()):
            raise FailedPrecondition("the store is not a blob map: give another directory")
        set_version(txn, VERSION)
        return VERSION
    version = Fields(raw, "the schema").number("version")
    if version > VERSION:
        raise FailedPrecondition(
            f"a newer blobmap wrote this map (schema {version}, this one knows {VERSION}): "
            "upgrade blobmap"
        )
    if version < 1:
        raise DataLoss(f"the map's schema is {version}, and no blobmap ever wrote that")
    return version


def version_is_settled(txn: blobkv.Transaction) -> bool:
    """Return whether the store says that it is a map of this very version."""
    return txn.get(_VERSION_KEY) == encode(version=VERSION)


def encode_edge(edge: Edge) -> bytes:
    """Return the value of a row of `edge`."""
    blob = edge.blob
    return encode(
        digest=blob.digest,
        size=blob.size,
        diff_id=blob.diff_id,
        media_type=blob.media_type,
        annotations=dict(edge.reference.annotations),
        retains=edge.retains,
        incarnation=edge.incarnation,
    )


def decode_edge(raw: bytes, snapshot: str, role: str) -> Edge:
    """Return what `encode_edge` spelled; DataLoss if it did not."""
    fields = Fields(raw, f"the edge {role!r} of snapshot {snapshot!r}")
    blob = Blob(
        fields.digest("digest"),
        fields.number("size"),
        fields.text_or_none("diff_id"),
        fields.text_or_none("media_type"),
    )
    policy = Policy.RETAIN if fields.flag("retains") else Policy.KNOW
    reference = Reference(role, blob, policy, fields.labels("annotations"))
    return Edge(reference, fields.text("incarnation"))


def decode_note(raw: bytes, snapshot: str, name: str) -> Note:
    """Return the value of a row of `note`; DataLoss if it does not read."""
    fields = Fields(raw, f"the metadata {name!r} of snapshot {snapshot!r}")
    return Note(fields.value("value"), fields.text("incarnation"))


def encode_image(image: Image, sizes: Mapping[str, int]) -> bytes:
    """Return the value of a row of `image`; its name is the key's."""
    return encode(
        digest=image.digest,
        blobs=image.blobs,
        sizes=[sizes[digest] for digest in image.blobs],
        snapshots=image.snapshots,
        created=image.created.isoformat(),
    )


def decode_image(raw: bytes, name: str) -> Image:
    """Return what `encode_image` spelled; DataLoss if it did not."""
    fields = Fields(raw, f"image {name!r}")
    return Image(
        name,
        fields.digest("digest"),
        fields.digests("blobs"),
        fields.texts("snapshots"),
        fields.time("created"),
    )


def decode_sizes(raw: bytes, name: str) -> dict[str, int]:
    """Return the size of each blob of an image; DataLoss if `encode_image` did not say."""
    fields = Fields(raw, f"image {name!r}")
    blobs, sizes = fields.digests("blobs"), fields.numbers("sizes")
    if len(blobs) != len(sizes):
        raise fields.damage(f"has {len(sizes)} sizes for {len(blobs)} blobs")
    return dict(zip(blobs, sizes, strict=True))


def encode_intent(intent: Intent) -> bytes:
    """Return the value of a row of `intent`."""
    return encode(incarnation=intent.incarnation, doubtful=intent.doubtful)


def decode_intent(raw: bytes, snapshot: str) -> Intent:
    """Return what `encode_intent` spelled; DataLoss if it did not."""
    fields = Fields(raw, f"the intent to remove snapshot {snapshot!r}")
    return Intent(fields.text("incarnation"), fields.flag("doubtful"))


def encode_leftover(snapshots: Iterable[str]) -> bytes:
    """Return the value of a row of `leftover`."""
    return encode(snapshots=tuple(snapshots))


def decode_leftover(raw: bytes, image: str) -> tuple[str, ...]:
    """Return what `encode_leftover` spelled; DataLoss if it did not."""
    return Fields(raw, f"the leftovers of image {image!r}").texts("snapshots")


def encode_tally(tally: Tally) -> bytes:
    """Return the value of a row of `tally`."""
    return encode(count=tally.count, size=tally.size, foreign=tally.foreign)


def decode_tally(raw: bytes, digest: str) -> Tally:
    """Return what `encode_tally` spelled; DataLoss if it did not."""
    fields = Fields(raw, f"the tally of blob {digest}")
    return Tally(fields.number("count"), fields.number_or_none("size"), fields.flag("foreign"))


def encode_queued(queued: Queued) -> bytes:
    """Return the value of a row of `queue`."""
    return encode(since=queued.since.isoformat(), cause=queued.cause, size=queued.size)


def decode_queued(raw: bytes, digest: str) -> Queued:
    """Return what `encode_queued` spelled; DataLoss if it did not."""
    fields = Fields(raw, f"the deletion of blob {digest}")
    return Queued(fields.time("since"), fields.text("cause"), fields.number_or_none("size"))


def text_parts(key: bytes, *counts: int) -> tuple[str, ...]:
    """Return the parts of a packed key: all text, one of `counts` of them; else DataLoss."""
    try:
        parts = blobkv.unpack(key)
    except blobkv.UsageError as cause:
        raise DataLoss(f"the map holds a key that it never wrote: {key!r}") from cause
    texts = tuple(part for part in parts if isinstance(part, str))
    if len(texts) < len(parts) or (counts and len(parts) not in counts):
        raise DataLoss(f"the map holds a key that it never wrote: {key!r}")
    return texts
