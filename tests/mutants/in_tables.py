"""Bugs in tables: their checksums, their indexes, and merges."""

from __future__ import annotations

from typing import Final

from mutant import Edit, Mutant, mutant

BLOCK_INDEX: Final = "_engine/block_index.py"
COMPACTION: Final = "_engine/compaction.py"
HASH_INDEX: Final = "_engine/hash_index.py"
MAINTENANCE: Final = "_engine/maintenance.py"
MERGE: Final = "_engine/merge.py"
TABLE: Final = "_engine/table.py"
TABLES: Final = "_engine/tables.py"
TABLE_FORMAT: Final = "_engine/table_format.py"
VERIFY: Final = "_engine/verify.py"

FLIPPED: Final = "test_bitflip.py::test_every_byte"
FOUND: Final = "test_tables.py::test_every_entry_is_found_and_no_other"
STATES: Final = "test_pieces.py::test_every_state_between_two_pieces_is_right_for_every_reader"
CLEARED: Final = (
    "test_pieces.py::test_what_was_cleared_stays_so_between_two_pieces_and_past_the_last"
)
LAYERED: Final = "test_layers_of_data.py"

IN_TABLES: Final = (
    mutant(
        "block-checksum-ignored",
        TABLE_FORMAT,
        "    if found != crc:",
        "    if found < 0:",
        does="a block is read without its checksum",
        costs="rot is served as data",
        hints=["test_golden.py::test_a_block_elsewhere_is_corruption", FLIPPED],
    ),
    Mutant(
        "block-place-not-in-the-checksum",
        "blocks are not bound to their place",
        "a block written to the wrong place is served",
        (
            Edit(TABLE_FORMAT, "crc32(head, offset & _U32_MAX)", "crc32(head)"),
            Edit(TABLE_FORMAT, "at + size], offset & _U32_MAX)", "at + size])"),
        ),
        ("test_golden.py::test_a_block_elsewhere_is_corruption",),
    ),
    mutant(
        "index-page-checksum-ignored",
        HASH_INDEX,
        "        if found != self._crcs[page]:",
        "        if found < 0:",
        does="a page of the hash index is searched without its checksum",
        costs="a flipped tag makes a key vanish from gets, and an old value may show",
        hints=[FLIPPED],
    ),
    mutant(
        "index-page-checksum-too-short",
        HASH_INDEX,
        "(page + 1 << PAGE_SHIFT) + PROBE_MAX + 1",
        "(page + 1 << PAGE_SHIFT)",
        does="a page's checksum leaves out the slots that a search reads beyond it",
        costs="rot there is not noticed",
        hints=["test_table_damage.py"],
    ),
    mutant(
        "block-index-checksum-ignored",
        BLOCK_INDEX,
        "        if crc32(raw) != footer.index_crc:",
        "        if not raw:",
        does="the block index is read without its checksum",
        costs="a flipped separator hides a block from scans",
        hints=["test_table_damage.py"],
    ),
    mutant(
        "another-table-accepted",
        TABLE,
        "        if crc != file.crc:",
        "        if crc < 0:",
        does="a table is opened without asking whether it is the one the manifest means",
        costs="a file put back from elsewhere brings old values",
        hints=[
            "test_planted_files.py::test_two_tables_that_changed_places_are_corruption_not_old_values"
        ],
    ),
    mutant(
        "page-taken-for-verified",
        TABLE,
        "        for offset in (first, last):",
        "        for offset in (first,):",
        does="of two blocks that share a page the first is verified only",
        costs="rot in the second is served by gets",
        hints=["test_table_damage.py"],
    ),
    mutant(
        "run-of-slots-too-long",
        HASH_INDEX,
        "    if is_too_full(tags):\n        return bytearray()",
        "    if hashes and not tags:\n        return bytearray()",
        does="a hash index may have more full slots in a row than a checksum covers",
        costs="a search runs on into what was not verified, or past the end",
        hints=["test_tables.py::test_a_hash_index_has_no_run_that_its_checksums_do_not_reach"],
    ),
    mutant(
        "place-written-at-home",
        HASH_INDEX,
        "        slots[at] = place",
        "        slots[home] = place",
        does="an entry that found its home taken puts its place there all the same",
        costs="one key's slot is stale, the other's is empty",
        hints=[FOUND],
    ),
    mutant(
        "search-ends-too-early",
        TABLES,
        "                    at += 1\n",
        "                    at += 1\n"
        "                    if at > (crc * homes >> 32) + 4:\n"
        "                        break\n",
        does="a search of the hash index ends after a few slots",
        costs="some keys are not found, or an older value of them is",
        hints=[FOUND],
    ),
    mutant(
        "tag-taken-for-the-key",
        TABLES,
        "                        if data[start:end] == key:",
        "                        if start:",
        does="a slot with the right tag is taken without comparing the key",
        costs="a get returns another key's value",
        hints=[FOUND],
    ),
    mutant(
        "longer-key-taken-for-the-key",
        TABLES,
        "place >> KEY_SHIFT == size < KEY_LONG",
        "size < KEY_LONG",
        does="a key is taken for one that it is the start of",
        costs="a get returns another key's value",
        hints=["test_table_damage.py"],
    ),
    mutant(
        "long-value-cut",
        TABLES,
        "if room < VALUE_LONG and",
        "if room <= VALUE_LONG and",
        does="a value too large for its slot's bits is read by them",
        costs="large values are cut",
        hints=[FOUND],
    ),
    mutant(
        "last-block-out-of-reach",
        BLOCK_INDEX,
        "        last = min(first + (1 << _GROUP_SHIFT), self.count)",
        "        last = min(first + (1 << _GROUP_SHIFT), max(self.count - 1, first + 1))",
        does="the last block is not among the separators of its group",
        costs="its keys are missing from ranges",
        hints=["test_tables.py::test_every_range_is_read_and_counted"],
    ),
    mutant(
        "separator-too-short",
        BLOCK_INDEX,
        "    return first[: size + 1]",
        "    return first[:size]",
        does="a separator is not past what is before it",
        costs="a range begins a block too late and misses keys",
        hints=["test_tables.py::test_a_separator_is_past_what_is_before_it"],
    ),
    mutant(
        "keys-out-of-order-written",
        "_engine/table_writer.py",
        "        if not ordered or (",
        "        if not keys and (",
        does="a table takes keys that are not in order",
        costs="a fault elsewhere becomes lost keys for good",
        hints=["test_tables.py::test_entries_out_of_order_reach_no_table"],
    ),
    mutant(
        "merge-drops-tombstones-early",
        MAINTENANCE,
        "            bottom=not self.rest,",
        "            bottom=True,",
        does="a merge drops tombstones though older tables are left",
        costs="deleted keys come back",
        hints=[f"{LAYERED}::test_a_merge_above_older_tables_keeps_what_hides_them"],
    ),
    mutant(
        "flush-drops-tombstones-early",
        MAINTENANCE,
        "        bottom = not self._tree.layers.tables\n        piece",
        "        bottom = True\n        piece",
        does="a flush drops tombstones though older tables are there",
        costs="deleted keys come back",
        hints=[f"{LAYERED}::test_point_reads"],
    ),
    mutant(
        "ranges-begin-with-the-piece",
        COMPACTION,
        "        start = self._start\n        size_max",
        "        start = self._next[0][0] if self._next else self._start\n        size_max",
        does="a range tombstone has a hole between two pieces of a merge",
        costs="cleared keys come back",
        hints=[CLEARED],
    ),
    mutant(
        "ranges-end-with-the-last-key",
        COMPACTION,
        "self._ranges.within(start, None if self._next is None else self._start)",
        "self._ranges.within(start, self._start)",
        does="the last piece of a merge has no range tombstone past its last key",
        costs="cleared keys come back",
        hints=[CLEARED],
    ),
    mutant(
        "input-let-go-too-early",
        COMPACTION,
        "if consumed and (staying is None or (stop is not None and stop <= staying)):",
        "if consumed:",
        does="an input goes though an older one is left that it hides something in",
        costs="deleted keys come back for the time of a merge, or for good after a crash",
        hints=["test_pieces.py::test_an_input_stays_while_what_it_deletes_stays", STATES],
    ),
    mutant(
        "half-read-input-let-go",
        COMPACTION,
        "consumed = end is None or (stop is not None and stop <= end)",
        "consumed = end is None or start < end",
        does="an input goes when the merge has begun to read it",
        costs="the rest of its keys is lost",
        hints=[STATES],
    ),
    mutant(
        "merge-takes-the-older",
        MERGE,
        "    for keys, values in reversed(parts):",
        "    for keys, values in parts:",
        does="where several sources have a key the oldest decides",
        costs="old values come back",
        hints=[f"{LAYERED}::test_scans_both_ways"],
    ),
    mutant(
        "merge-counts-nothing",
        "_engine/sequential.py",
        "        if counted != self._footer:",
        "        if blocks < 0:",
        does="a merge does not ask at the end whether it has read every block",
        costs="what it has missed is removed with the inputs",
        hints=["test_table_damage.py"],
    ),
    mutant(
        "pieces-above-newer-tables",
        MAINTENANCE,
        "[*(table for table in above if table not in gone), *added, *progress.rest]",
        "[*added, *(table for table in above if table not in gone), *progress.rest]",
        does="a piece is put above its inputs and what was flushed meanwhile",
        costs="old values hide new ones",
        hints=[STATES],
    ),
    mutant(
        "runs-compared-with-one-table",
        TABLES,
        "    for (first, last), _ in run:",
        "    for (first, last), _ in run[-1:]:",
        does="a table joins a run if it is apart from one table of it",
        costs="a get asks the wrong table of the run",
        hints=["test_tables.py::test_a_table_that_overlaps_any_of_a_run_is_none_of_it"],
    ),
    mutant(
        "extent-without-ranges",
        TABLE,
        "        ranges = list(self.ranges)\n        keys",
        "        ranges = []\n        keys",
        does="a table's extent leaves out its range tombstones",
        costs="cleared keys come back where tables are sorted into runs",
        hints=[
            "test_tables.py::test_tables_apart_are_one_run_and_tables_that_overlap_are_not",
            STATES,
        ],
    ),
    mutant(
        "short-range-hides-nothing",
        MERGE,
        "        if source.ranges:",
        "        if not source:",
        does="a short range is read without looking at range tombstones",
        costs="cleared keys show in small scans",
        hints=["test_short_ranges.py::test_what_was_cleared_is_in_no_short_range"],
    ),
    mutant(
        "verify-compares-no-digest",
        VERIFY,
        "    if digest != file.sha256:",
        "    if not digest:",
        does="`verify` does not compare a table's digest",
        costs="a table that was forged with good checksums is called sound",
        hints=["test_table_damage.py"],
    ),
    mutant(
        "verify-asks-no-hash-index",
        VERIFY,
        "            if find(key) != value:",
        "            if not keys:",
        does="`verify` does not look keys up",
        costs="keys that no get finds are called sound",
        hints=["test_crafted_bytes.py"],
    ),
)
