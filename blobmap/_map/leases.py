"""Leases: blobs that a name keeps until a time, whatever becomes of the process.

    table     key                           value
    --------  ----------------------------  --------------------------------------------------
    lease     scope, lease                  created, expires, labels
    leased    scope, lease, digest          -: the lease holds the blob

A lease outlives the process that made it, and ends by its release or at its expiry: then what
nothing else holds is deleted. It is woken by the clock, not by the next call: the background
sleeps until the earliest expiry. Without a background that falls to the next call that deals
with leases, to `cleanup`, to `reconcile`, and to the next open. Whoever has the map open ends
the expired leases of every scope, for theirs may never be opened again.

Source: containerd's leases, whose expiry waits for somebody else's deletion.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Final, Self

import blobkv
from blobmap import digest as digests
from blobmap import labels as label_rules
from blobmap import locks
from blobmap._map import edges, schema
from blobmap._map.schema import Holder
from blobmap.errors import AlreadyExists, InvalidArgument, NotFound
from blobmap.fields import Fields, encode

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType

    from blobmap._map.audit import Fault
    from blobmap._map.deletions import Deletions
    from blobmap._map.events import Change
    from blobmap._map.parts import Parts
    from blobmap._map.schema import Scope

NAME_SIZE_MAX: Final = 1024
_QUARANTINE: Final = "quarantine"
_EXPIRY: Final = "end leases that have expired"
# The background looks at the clock at least so often, should it be set.
_LOOK_SECONDS_MAX: Final = 60.0


@dataclass(frozen=True, slots=True)
class LeaseInfo:
    """A lease as it is recorded.

    Attributes:
        name: Its name.
        created: When it was made.
        expires: When it ends by itself.
        labels: What its owner noted.
    """

    name: str
    created: datetime
    expires: datetime
    labels: Mapping[str, str] = field(default_factory=dict)


class Leases:
    """The leases of one scope. Safe to call from many threads."""

    def __init__(self, parts: Parts, deletions: Deletions) -> None:
        self._parts = parts
        self._refs = parts.refs
        self._deletions = deletions

    def begin(self, name: str, lifetime: timedelta, labels: Mapping[str, str] | None) -> Lease:
        """See `BlobSnapshotter.lease`."""
        schema.check_name("lease", name, NAME_SIZE_MAX)
        kept = label_rules.checked(labels)
        self.end_expired()
        with self._refs.update(f"lease {name!r}") as change:
            if self._row(name) in change.txn.bucket(schema.LEASE):
                raise AlreadyExists(
                    f"there is a lease {name!r}: take another name, or find it with open_lease"
                )
            info = LeaseInfo(name, change.now, _end(change.now, lifetime), kept)
            change.txn.bucket(schema.LEASE).put(self._row(name), _encode(info))
        self.watch()
        return Lease(self, name, info.created)

    def find(self, name: str) -> Lease:
        """See `BlobSnapshotter.open_lease`."""
        self.end_expired()
        return Lease(self, name, self.info(name).created)

    def all(self) -> Iterator[LeaseInfo]:
        """Yield each lease, by name."""
        for (name,), raw in self._refs.scan(schema.LEASE):
            yield _decode(name, raw)

    def info(self, name: str, created: datetime | None = None) -> LeaseInfo:
        """Return what is recorded of the lease; NotFound if there is none, or not that one."""
        with self._refs.view() as txn:
            return self._info(txn, name, created)

    def digests(self, name: str) -> Iterator[str]:
        """Yield what the lease holds, in order."""
        for (_, digest), _ in self._refs.scan(schema.LEASED, name):
            yield digest

    def hold(self, name: str, created: datetime | None, digest: str) -> None:
        """See `Lease.hold`."""
        digests.validate(digest)
        with self._parts.locks.hold(locks.blob(digest)):
            exists = True
            try:
                self._parts.content.info(digest)
            except NotFound:
                exists = False
            with self._refs.update(f"lease {name!r}") as change:
                txn = change.txn
                self._info(txn, name, created)
                foreign = exists and blobkv.pack(digest) not in txn.bucket(schema.QUEUE)
                edges.link(change, self._holder(name), digest, foreign=foreign)
                txn.bucket(schema.LEASED).put(self._refs.scope.key(name, digest), b"")

    def drop(self, name: str, created: datetime | None, digest: str) -> None:
        """See `Lease.drop`."""
        digests.validate(digest)
        with self._refs.update(f"lease {name!r}") as change:
            row = self._refs.scope.key(name, digest)
            there = row in change.txn.bucket(schema.LEASED)
            if not there or created not in {None, self._info(change.txn, name).created}:
                return
            change.txn.bucket(schema.LEASED).delete(row)
            edges.unlink(change, self._holder(name), digest)
        self._deletions.carry_out(digest)

    def renew(self, name: str, created: datetime | None, lifetime: timedelta) -> None:
        """See `Lease.renew`."""
        with self._refs.update(f"lease {name!r}") as change:
            info = self._info(change.txn, name, created)
            renewed = LeaseInfo(name, info.created, _end(change.now, lifetime), info.labels)
            change.txn.bucket(schema.LEASE).put(self._row(name), _encode(renewed))
        self.watch()

    def repair(self, lifetime: timedelta | None) -> list[Fault]:
        """Make the map's caches agree with the truth; return where they did not.

        Args:
            lifetime: How long to keep the blobs that have no holder left by that; None to
                have them deleted.
        """
        lease = None if lifetime is None else partial(self._quarantine, lifetime)
        faults = self._refs.repair(lease)
        self.watch()
        return faults

    def release(self, name: str, created: datetime | None) -> None:
        """See `Lease.release`."""
        self._end(self._refs.scope, name, f"lease {name!r} released", created=created)

    def end_expired(self) -> None:
        """End each lease, of every scope, whose time has come."""
        now = self._refs.clock()
        for scope, info in self._all():
            if info.expires <= now:
                self._end(scope, info.name, f"lease {info.name!r} expired", expired_by=now)

    def watch(self) -> None:
        """Have the background end leases when their time comes."""
        background = self._parts.background
        earliest = min((info.expires for _, info in self._all()), default=None)
        if background is None or earliest is None:
            return
        seconds = (earliest - self._refs.clock()).total_seconds()
        background.submit(_EXPIRY, self._wake, delay=min(max(seconds, 0.0), _LOOK_SECONDS_MAX))

    def _wake(self) -> bool:
        self.end_expired()
        self.watch()
        return True

    def _quarantine(self, lifetime: timedelta, change: Change) -> Holder:
        """Return the lease that keeps what is doubtful; it lasts at least that long more."""
        leases, row = change.txn.bucket(schema.LEASE), self._row(_QUARANTINE)
        found = leases.get(row)
        info = LeaseInfo(_QUARANTINE, change.now, _end(change.now, lifetime))
        if found is not None:
            old = _decode(_QUARANTINE, found)
            info = replace(old, expires=max(old.expires, info.expires))
        leases.put(row, _encode(info))
        return self._holder(_QUARANTINE)

    def _all(self) -> Iterator[tuple[Scope, LeaseInfo]]:
        for scope, (name,), raw in self._refs.scan_all(schema.LEASE):
            yield scope, _decode(name, raw)

    def _end(
        self,
        scope: Scope,
        name: str,
        cause: str,
        *,
        created: datetime | None = None,
        expired_by: datetime | None = None,
    ) -> None:
        """End the lease, if it is there: the one made then, one that has expired by then."""
        row, holder = scope.key(name), Holder(schema.BY_LEASE, scope, name)
        with self._refs.update(cause) as change:
            txn = change.txn
            raw = txn.bucket(schema.LEASE).get(row)
            if raw is None:
                return
            info = _decode(name, raw)
            if created not in {None, info.created}:
                return
            if expired_by is not None and info.expires > expired_by:
                return
            rows = list(txn.bucket(schema.LEASED).keys(prefix=row))
            released = [schema.text_parts(held)[-1] for held in rows]
            for held, digest in zip(rows, released, strict=True):
                txn.bucket(schema.LEASED).delete(held)
                edges.unlink(change, holder, digest)
            txn.bucket(schema.LEASE).delete(row)
        self._deletions.carry_out(*released)

    def _info(
        self, txn: blobkv.Transaction, name: str, created: datetime | None = None
    ) -> LeaseInfo:
        raw = txn.bucket(schema.LEASE).get(self._row(name))
        info = None if raw is None else _decode(name, raw)
        if info is None or created not in {None, info.created}:
            raise NotFound(f"there is no lease {name!r}: it was released, or has expired")
        return info

    def _row(self, name: str) -> bytes:
        return self._refs.scope.key(name)

    def _holder(self, name: str) -> Holder:
        return self._refs.holder(schema.BY_LEASE, name)


class Lease:
    """One lease. For a with-block, at whose end it is released; or without one.

    It is the one of its name that was made at that time, for a later one of the same name is
    none of its business; or whichever has the name, where no time is given.
    """

    def __init__(self, leases: Leases, name: str, created: datetime | None = None) -> None:
        self._leases = leases
        self._created = created
        self.name: Final = name

    @property
    def info(self) -> LeaseInfo:
        """What is recorded of it. Raises: NotFound, if it has ended."""
        return self._leases.info(self.name, self._created)

    def hold(self, digest: str) -> None:
        """Keep the blob for as long as the lease lasts, whether it is there yet or not.

        Raises:
            NotFound: The lease has ended.
            InvalidArgument: The digest is malformed.
        """
        self._leases.hold(self.name, self._created, digest)

    def drop(self, digest: str) -> None:
        """Keep the blob no longer; it is deleted if nothing else holds it. Idempotent."""
        self._leases.drop(self.name, self._created, digest)

    def digests(self) -> Iterator[str]:
        """Yield the blobs that it holds, in order."""
        return self._leases.digests(self.name)

    def renew(self, lifetime: timedelta) -> None:
        """Let it last for `lifetime` from now.

        Raises:
            NotFound: It has ended.
            InvalidArgument: The lifetime is not positive.
        """
        self._leases.renew(self.name, self._created, lifetime)

    def release(self) -> None:
        """End it; blobs that nothing else holds are deleted. Idempotent."""
        self._leases.release(self.name, self._created)

    def __repr__(self) -> str:
        return f"Lease({self.name!r})"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.release()


def _end(now: datetime, lifetime: timedelta) -> datetime:
    if lifetime <= timedelta(0):
        raise InvalidArgument(f"a lease of {lifetime}: give a time that is positive")
    with suppress(OverflowError):
        return now + lifetime
    raise InvalidArgument(f"a lease of {lifetime} would not end before the calendar does")


def _encode(info: LeaseInfo) -> bytes:
    return encode(
        created=info.created.isoformat(),
        expires=info.expires.isoformat(),
        labels=dict(info.labels),
    )


def _decode(name: str, raw: bytes) -> LeaseInfo:
    fields = Fields(raw, f"lease {name!r}")
    return LeaseInfo(
        name, fields.time("created"), fields.time("expires"), fields.labels("labels")
    )
