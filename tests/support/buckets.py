"""A plain model of everything a store holds, and how to read the same out of a store."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from blobkv import Bucket, Transaction

Path = tuple[bytes, ...]
Contents = dict[Path, dict[bytes, bytes]]


def entries_at(entries: Transaction | Bucket, path: Path) -> Transaction | Bucket:
    """The mapping at `path`, () being the one given."""
    return entries.bucket(*path) if path else entries


def dump(entries: Transaction | Bucket, path: Path = ()) -> Contents:
    """Everything in `entries` and its buckets, empty ones left out, in key order."""
    found: Contents = {}
    pairs = dict(entries.items())
    assert list(pairs) == sorted(pairs)
    if pairs:
        found[path] = pairs
    names = entries.buckets()
    assert names == sorted(set(names))
    for name in names:
        inner = dump(entries.bucket(name), (*path, name))
        assert inner, "a bucket without entries does not exist"
        found |= inner
    return found


def put(contents: Contents, path: Path, key: bytes, value: bytes) -> None:
    contents.setdefault(path, {})[key] = value


def delete(contents: Contents, path: Path, key: bytes) -> None:
    contents.get(path, {}).pop(key, None)
    _drop_if_empty(contents, path)


def clear(contents: Contents, path: Path, prefix: bytes) -> int:
    doomed = [key for key in contents.get(path, {}) if key.startswith(prefix)]
    for key in doomed:
        del contents[path][key]
    _drop_if_empty(contents, path)
    return len(doomed)


def delete_bucket(contents: Contents, path: Path) -> int:
    doomed = [inner for inner in contents if inner[: len(path)] == path]
    return sum(len(contents.pop(inner)) for inner in doomed)


def names_under(contents: Contents, path: Path) -> list[bytes]:
    """What `buckets()` of the mapping at `path` should list."""
    depth = len(path)
    return sorted({p[depth] for p in contents if len(p) > depth and p[:depth] == path})


def copy(contents: Contents) -> Contents:
    return {path: dict(pairs) for path, pairs in contents.items()}


def _drop_if_empty(contents: Contents, path: Path) -> None:
    if not contents.get(path, True):
        del contents[path]
