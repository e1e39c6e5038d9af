"""Labels: the one part of a snapshot's or a blob's record that callers may change.

A label is a key and a value, both text, at most `LABEL_SIZE_MAX` bytes together. A label
with an empty value does not exist: setting it so removes it.

Source: containerd's pkg/labels and the update rules of its metadata stores.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from blobmap.errors import InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

LABEL_SIZE_MAX: Final = 4096

_ALL: Final = "labels"
_ONE: Final = "labels."


def checked(labels: Mapping[str, str] | None) -> dict[str, str]:
    """Return the labels as they are to be kept: those with a value.

    Raises:
        InvalidArgument: A key and its value are too large together.
    """
    kept: dict[str, str] = {}
    for key, value in (labels or {}).items():
        size = len((key + value).encode("utf-8", "surrogatepass"))
        if size > LABEL_SIZE_MAX:
            raise InvalidArgument(
                f"label {key[:64]!r} is {size} bytes with its value, limit {LABEL_SIZE_MAX}"
            )
        if value:
            kept[key] = value
    return kept


def updated(
    current: Mapping[str, str], given: Mapping[str, str], fieldpaths: Sequence[str]
) -> dict[str, str]:
    """Return `current` changed to `given` at `fieldpaths`.

    Args:
        current: The labels before.
        given: The labels to take values from; one missing or empty is removed.
        fieldpaths: `labels` for all of them, `labels.<key>` for one, whose key is everything
            after the first dot; none means all.

    Raises:
        InvalidArgument: A path names anything else, or a label is too large.
    """
    wanted = checked(given)
    labels = dict(current) if fieldpaths else wanted
    for path in fieldpaths:
        if path == _ALL:
            labels = dict(wanted)
        elif path.startswith(_ONE) and path != _ONE:
            key = path.removeprefix(_ONE)
            labels.pop(key, None)
            if key in wanted:
                labels[key] = wanted[key]
        else:
            raise InvalidArgument(
                f"cannot update field {path!r}; only labels and labels.<key> can change"
            )
    return labels
