"""Bugs in memory: old versions, views, overlays, keys; and who may have the store at all."""

from __future__ import annotations

from typing import Final

from mutant import Mutant, mutant

BATCH: Final = "batch.py"
FS: Final = "_engine/fs.py"
MEMTABLE: Final = "_engine/memtable.py"
SALVAGE: Final = "_engine/salvage.py"
STATE: Final = "_engine/state.py"
SURVEY: Final = "_engine/survey.py"
WRITER: Final = "_engine/writer.py"

VERSIONS: Final = "test_views.py::test_every_reader_sees_its_own_version_whatever_was_dropped"
DAMAGED: Final = ["test_salvage.py"]

IN_MEMORY: Final[tuple[Mutant, ...]] = (
    mutant(
        "older-read-before-newest",
        STATE,
        "            value = newest.get(key, ABSENT)\n"
        "            if older:\n"
        "                # Read after `newest`, see there.\n"
        "                link = older.get(key)\n",
        "            link = older.get(key)\n"
        "            value = newest.get(key, ABSENT)\n"
        "            if older:\n",
        does="a get looks for what was replaced before it reads what is there",
        costs="a view beside a commit sees what came after it",
        hints=["test_in_between.py"],
    ),
    mutant(
        "scan-looks-for-older-first",
        MEMTABLE,
        "        values: list[Found] = [self.newest[key] for key in keys]\n"
        "        if self.older:",
        "        older = bool(self.older)\n"
        "        values: list[Found] = [self.newest[key] for key in keys]\n"
        "        if older:",
        does="a scan asks whether anything was replaced before it reads what is there",
        costs="a view beside a commit sees a part of it",
        hints=["test_in_between.py"],
    ),
    mutant(
        "forgotten-while-read",
        WRITER,
        "        oldest = min(self._views.sequences(), default=self.visible)",
        "        oldest = self.visible",
        does="old versions are dropped though a view reads them",
        costs="an open view changes",
        hints=["test_views.py"],
    ),
    mutant(
        "chain-dropped-whole",
        MEMTABLE,
        "            if until <= oldest:\n",
        "            if until:\n",
        does="the versions of a key are dropped though it was changed again since",
        costs="an open view changes",
        hints=[VERSIONS],
    ),
    mutant(
        "link-dropped-though-read",
        MEMTABLE,
        "readers[bisect_left(readers, since) :][:1]",
        "readers[bisect_left(readers, since + 1) :][:1]",
        does="a version is dropped that a view at its very first commit reads",
        costs="an open view changes",
        hints=[VERSIONS],
    ),
    mutant(
        "ranges-seen-too-early",
        MEMTABLE,
        "        count = bisect_right(self._ranges, sequence, key=itemgetter(0))\n",
        "        count = len(self._ranges)\n",
        does="a range tombstone hides keys from views older than it",
        costs="an open view changes",
        hints=["test_in_between.py"],
    ),
    mutant(
        "new-views-get-the-old-state",
        WRITER,
        "                self._views.renew()\n                self._forget()\n\n",
        "                self._forget()\n\n",
        does="views opened after a commit share the state of before",
        costs="nobody reads his own writes",
        hints=["test_views.py"],
    ),
    mutant(
        "tombstones-counted",
        STATE,
        "if len(self._sources) == len(runs) == 1 and not runs[0].tombstones:",
        "if len(self._sources) == len(runs) == 1:",
        does="`len` counts tombstones",
        costs="a mapping says that it has keys that it has not",
        hints=["test_in_between.py"],
    ),
    mutant(
        "another-range-kept",
        STATE,
        "recent[0] == start and recent[1] == stop:",
        "recent[0] == start:",
        does="a short range is answered with another that begins at the same key",
        costs="a scan shows keys past its end, or misses some",
        hints=["test_short_ranges.py"],
    ),
    mutant(
        "clear-leaves-own-puts",
        "_engine/overlay.py",
        "        for key in covered:\n            del self.entries[key]\n",
        "",
        does="`clear` of many keys leaves those that the same update has put",
        costs="they are there after the commit",
        hints=["test_layers_of_data.py"],
    ),
    mutant(
        "prefix-end-without-carry",
        "keys.py",
        "    return stem[:-1] + bytes((stem[-1] + 1,))",
        "    return prefix[:-1] + bytes((prefix[-1] + 1 & 0xFF,))",
        does="the end of a prefix that ends in 0xff is before it",
        costs="the keys of such a prefix are not found",
        hints=["test_keys.py"],
    ),
    mutant(
        "names-not-escaped",
        "keys.py",
        r'    return name.replace(b"\x00", _ZERO) + _END',
        "    return name + _END",
        does="a name inside a key may hold what ends it",
        costs="one bucket reaches into another",
        hints=["test_keys.py"],
    ),
    mutant(
        "called-after-it-gave-up",
        BATCH,
        "        if call.take() is None:",
        "        if not call.waiting:",
        does="an interrupted caller of `batch` does not take its function back",
        costs="it is called though its caller was told that it was not",
        hints=["test_batch_calls.py"],
    ),
    mutant(
        "called-twice",
        BATCH,
        "            self.result.append(fn(transaction))",
        "            fn(transaction)\n            self.result.append(fn(transaction))",
        does="`batch` calls a function twice",
        costs="a counter counts twice",
        hints=[
            "test_threads.py::test_batch_calls_each_function_once_and_one_that_raises_fails_alone"
        ],
    ),
    mutant(
        "failed-function-changes-all-the-same",
        BATCH,
        "            self.error = error\n        else:",
        "            self.error = error\n            below.absorb(changes)\n        else:",
        does="what a function has changed before it raised is committed",
        costs="half a transaction",
        hints=["test_batch_calls.py"],
    ),
    mutant(
        "failed-commit-told-as-done",
        BATCH,
        "        if error is not None:\n            raise error\n",
        "",
        does="callers of a batch whose commit failed are told that all is well",
        costs="acknowledged and lost",
        hints=["test_batch_calls.py"],
    ),
    mutant(
        "claim-not-taken",
        FS,
        "            _claim(fd, path, timeout)\n",
        "",
        does="the lock file is opened, not locked",
        costs="two writers destroy each other's store",
        hints=["test_fs.py::test_a_lock_is_held_until_released"],
    ),
    mutant(
        "claim-of-the-wrong-kind",
        FS,
        "fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        "fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)",
        does="the claim is one that closing any other descriptor of the file drops",
        costs="two writers destroy each other's store",
        hints=["test_fs.py::test_a_lock_is_held_until_released"],
    ),
    mutant(
        "fork-drops-the-claim",
        FS,
        "claim stays the parent's.\n        self._file.close()",
        "claim stays the parent's.\n        self.release()",
        does="a forked child gives its parent's claim up",
        costs="two writers destroy each other's store",
        hints=["test_processes.py"],
    ),
    mutant(
        "fork-keeps-the-claim",
        FS,
        "            fcntl.flock(self._file, fcntl.LOCK_UN)\n",
        "",
        does="a claim is given up by closing its descriptor, of which a fork has a copy",
        costs="the store cannot be opened again",
        hints=["test_system_calls.py"],
    ),
    mutant(
        "forked-store-lives",
        "store.py",
        "        on_fork(self)\n",
        "",
        does="a forked child may go on using its parent's store",
        costs="two writers in one log",
        hints=[
            "test_processes.py::test_the_store_of_a_forked_child_is_dead_and_the_parent_goes_on"
        ],
    ),
    mutant(
        "gap-before-the-first-block-lost",
        SURVEY,
        r'start = last + b"\x00" if self._blocks else b""',
        r'start = last + b"\x00" if self._blocks else first or b""',
        does="a gap at a table's start hides nothing in older tables",
        costs="salvage takes old values for proven ones",
        hints=DAMAGED,
    ),
    mutant(
        "gap-at-the-end-lost",
        SURVEY,
        "        elif gap is not None:\n            self._note(gap, last, None)",
        "        elif gap is not None:\n            pass",
        does="a gap at a table's end is not noted",
        costs="salvage takes old values for proven ones",
        hints=["test_salvage.py::test_a_gap_hides_the_keys_of_its_block_and_no_others"],
    ),
    mutant(
        "gap-too-narrow",
        SURVEY,
        "self.problems.append(Problem(self.name, *gap, (start, first)))",
        "self.problems.append(Problem(self.name, *gap, (start, first and first[:-1])))",
        does="a gap ends before the first key behind it, at a start of that key",
        costs="salvage takes old values for proven ones",
        hints=["test_salvage.py::test_a_gap_hides_the_keys_of_its_block_and_no_others"],
    ),
    mutant(
        "gap-hides-nothing",
        SALVAGE,
        "Remains(survey, survey.lost)",
        "Remains(survey, Ranges())",
        does="what a gap may have held hides nothing in older tables",
        costs="salvage takes old values for proven ones",
        hints=DAMAGED,
    ),
    mutant(
        "missing-table-hides-nothing",
        SALVAGE,
        "                sources.append(_Nothing())",
        "                continue",
        does="a table that is gone hides nothing in older tables",
        costs="salvage takes old values for proven ones",
        hints=DAMAGED,
    ),
    mutant(
        "commits-behind-damage-taken",
        SALVAGE,
        "                    replay(self._later, [frame])",
        "                    replay(self._kept, [frame])",
        does="commits behind a damaged one are taken for the state",
        costs="salvage gives a state that never was",
        hints=DAMAGED,
    ),
)
