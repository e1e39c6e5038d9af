"""What the conformance suites run over: a line an implementation.

An implementation is a name and how it is opened in a directory. Each snapshotter is also run
as `BlobSnapshotter` shows it. To have another one tested here, add a line to the table; to
have one's own tested from outside, name its factory:

    python -m pytest tests/conformance --snapshotter my.module:factory
    python -m pytest tests/conformance --content my.module:factory

A factory takes a directory and returns what it opened in it. What it made there and closed
must be there when it is called for that directory again, unless it is said to lack that:
`--lacks reopening`, and `--lacks trees` if its mounts cannot be mounted. Each of these options
may be given several times.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import pytest
from support.fakes import FakeContentStore, FakeSnapshotter
from support.local_kinds import require_overlays
from support.namespaces import FakeNamespaces

from blobmap import BlobSnapshotter
from blobmap.clock import Ticker
from blobmap.contracts import ContentStore, Snapshotter
from blobmap.local import LocalContent, NativeSnapshotter, OverlaySnapshotter

T = TypeVar("T")

# What an implementation may lack. A test that is marked as in need of one is left out for it.
FEATURES = {
    "trees": "snapshots have trees, which can be mounted",
    "reopening": "what was closed is there when it is opened again",
    "isolation": "`namespace(name)` gives content stores that keep their blobs apart",
    "sharing": "`namespace(name)` gives content stores that share their blobs",
}
NO_NAMESPACES = frozenset({"isolation", "sharing"})


@dataclass(frozen=True)
class Implementation(Generic[T]):
    """One implementation.

    Attributes:
        name: How it is called in the names of tests and in the table.
        open: Opens it in a directory.
        lacks: Which of `FEATURES` it does not have.
    """

    name: str
    open: Callable[[Path], T]
    lacks: frozenset[str] = frozenset()


def _plain_snapshotters() -> list[Implementation[Snapshotter]]:
    in_memory = frozenset({"trees", "reopening"})
    return [
        Implementation("native", NativeSnapshotter),
        Implementation("overlay", _open_overlay),
        Implementation("fake", lambda _: FakeSnapshotter(clock=Ticker().now), in_memory),
    ]


def _open_overlay(directory: Path) -> Snapshotter:
    directory.mkdir(exist_ok=True)
    require_overlays(directory)
    return OverlaySnapshotter(directory)


def _plain_contents() -> list[Implementation[ContentStore]]:
    in_memory = frozenset({"reopening"})
    return [
        Implementation("local", LocalContent, NO_NAMESPACES),
        Implementation(
            "fake",
            lambda _: FakeContentStore(clock=Ticker().now),
            in_memory | NO_NAMESPACES,
        ),
        Implementation("shared", lambda _: FakeNamespaces(), in_memory | {"isolation"}),
        Implementation(
            "isolated", lambda _: FakeNamespaces(isolated=True), in_memory | {"sharing"}
        ),
    ]


def snapshotters(
    factories: Sequence[str], lacks: Sequence[str]
) -> list[Implementation[Snapshotter]]:
    """Return the snapshotters to test: those that the factories make, or all of ours."""
    plain = [
        Implementation(factory, _named(factory), frozenset(lacks)) for factory in factories
    ] or _plain_snapshotters()
    return [*plain, *map(_wrapped, plain)]


def contents(
    factories: Sequence[str], lacks: Sequence[str]
) -> list[Implementation[ContentStore]]:
    """Return the content stores to test, likewise."""
    return [
        Implementation(factory, _named(factory), NO_NAMESPACES | frozenset(lacks))
        for factory in factories
    ] or _plain_contents()


def _wrapped(plain: Implementation[Snapshotter]) -> Implementation[Snapshotter]:
    def open_wrapped(directory: Path) -> Snapshotter:
        inner = plain.open(directory / "inner")
        return BlobSnapshotter(inner, FakeContentStore(), directory / "map")

    return Implementation(f"blobmap over {plain.name}", open_wrapped, plain.lacks)


def _named(factory: str) -> Callable[[Path], T]:
    module, _, name = factory.partition(":")
    try:
        found: Callable[[Path], T] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise pytest.UsageError(f"{factory!r} names no factory: {error}") from error
    return found
