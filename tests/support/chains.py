"""Chains of snapshots, beside a directory changed in place that must hold the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from support.mounting import tree_of
from support.trees import without_times

from blobmap.contracts import Snapshotter

Layer = Callable[[Path], None]


def write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)


@dataclass
class Trees:
    """The snapshotter under test with what the tests of trees do to it.

    Attributes:
        flat: A directory changed in place, to compare with.
    """

    snapshotter: Snapshotter
    flat: Path

    @contextmanager
    def tree(self, key: str) -> Iterator[Path]:
        with tree_of(self.snapshotter.mounts(key), self.flat.parent) as path:
            yield path

    def require_equal(self, key: str) -> None:
        with self.tree(key) as path:
            assert without_times(path) == without_times(self.flat)

    def chain(self, *layers: Layer) -> str:
        """Apply and commit each layer on the one before; return the last one's name."""
        parent = ""
        for at, layer in enumerate(layers):
            name, key, view = f"layer-{at}", f"active-{at}", f"layer-{at}-view"
            self.snapshotter.prepare(key, parent)
            self.require_equal(key)
            layer(self.flat)
            with self.tree(key) as path:
                layer(path)
            self.require_equal(key)
            self.snapshotter.commit(name, key)
            self.snapshotter.view(view, name)
            self.require_equal(view)
            self.snapshotter.remove(view)
            parent = name
        return parent
