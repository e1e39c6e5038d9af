"""Recorded histories of transactions, and whether they could have run one after another.

A call has a beginning and an end; in between it read some keys and wrote some. A history is
*linearizable* if its calls can be put in an order such that each reads what those before it
wrote, and no call stands before one that had ended when it began. `linearizes` looks for such
an order and knows nothing of how a store works; what that costs grows quickly with the number
of calls at a time. `check_counted` takes the order from the history itself, where every writing
call counts up one key, and so judges long histories.

Source: Wing and Gong's search, with the memory that Lowe added to it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

Value = int | None


@dataclass(frozen=True)
class Call:
    """One call: when it began and ended, on a clock that all calls share; what it did.

    Attributes:
        reads: What the keys held that it read, before its own writes.
        writes: What it wrote; None deletes.
        known: Whether it is known to have happened; else it may have, or not, and no later
            than anything at all.
    """

    began: int
    ended: int
    reads: Mapping[str, Value] = field(default_factory=dict)
    writes: Mapping[str, Value] = field(default_factory=dict)
    known: bool = True


def linearizes(calls: Sequence[Call], start: Mapping[str, Value] | None = None) -> bool:
    """Return whether some order of the calls explains what they read."""
    seen: set[tuple[frozenset[int], frozenset[tuple[str, int]]]] = set()
    stack = [(frozenset(range(len(calls))), _alive(start or {}))]
    while stack:
        left, state = stack.pop()
        if not any(calls[i].known for i in left):
            return True
        if (left, state) in seen:
            continue
        seen.add((left, state))
        held = dict(state)
        # Whoever comes next must have begun before any that is left has ended.
        first_end = min(calls[i].ended for i in left if calls[i].known)
        for i in left:
            call = calls[i]
            if call.began < first_end and _reads_of(held, call.reads) == dict(call.reads):
                stack.append((left - {i}, _alive({**held, **call.writes})))
    return False


def check_counted(calls: Iterable[Call], counter: str = "n") -> None:
    """Assert that a history is linearizable in the order that its counter tells.

    Every call read the counter, and every call that wrote anything wrote the next number.

    Args:
        calls: The history. All of its calls are known to have happened.
        counter: The key that is counted up.
    """
    order = sorted(calls, key=lambda call: (_place(call, counter), not call.writes, call.began))
    state: dict[str, Value] = {counter: None}
    newest_begin = 0
    for call in order:
        count = call.reads[counter]
        if call.writes:
            assert call.writes[counter] == (count or 0) + 1
        assert _reads_of(state, call.reads) == dict(call.reads), f"{call} after {state}"
        # All that stand before it must have begun before it ended.
        assert newest_begin < call.ended, f"{call} stands behind a call that began later"
        newest_begin = max(newest_begin, call.began)
        state.update(call.writes)


def check_followed(calls: Sequence[Call], views: Sequence[Call], counter: str = "n") -> None:
    """Assert that views from outside show whole states, none older than what had ended.

    They may be ahead of the calls: who follows a log may know of a commit, and have made it
    durable, before the one who wrote it does.

    Args:
        calls: The history; it passed `check_counted`.
        views: Those of one reader, one after another.
        counter: The key that is counted up.
    """
    writers = sorted((call for call in calls if call.writes), key=lambda c: _place(c, counter))
    states: list[dict[str, Value]] = [{}]
    for call in writers:
        states.append(states[-1] | dict(call.writes))
    shown = 0
    for view in views:
        count = view.reads[counter] or 0
        assert _reads_of(states[count], view.reads) == dict(view.reads)
        ended = [_place(call, counter) for call in writers if call.ended < view.began]
        assert count >= max([shown, *ended]), f"{view} is behind"
        assert count == 0 or writers[count - 1].began < view.ended, f"{view} is ahead of all"
        shown = count


def _place(call: Call, counter: str) -> int:
    count = call.reads[counter] or 0
    return count + bool(call.writes)


def _reads_of(held: Mapping[str, Value], keys: Iterable[str]) -> dict[str, Value]:
    return {key: held.get(key) for key in keys}


def _alive(state: Mapping[str, Value]) -> frozenset[tuple[str, int]]:
    return frozenset((key, value) for key, value in state.items() if value is not None)
