"""Bugs in what is there for bad days: the reserve, backups, salvage, and who verifies."""

from __future__ import annotations

from typing import Final

from mutant import Mutant, mutant

BACKUP: Final = "_engine/backup.py"
BALLAST: Final = "_engine/ballast.py"
SALVAGE: Final = "_engine/salvage.py"
SEQUENTIAL: Final = "_engine/sequential.py"
SURVEY: Final = "_engine/survey.py"
WRITER: Final = "_engine/writer.py"

APART: Final = "test_backup.py::test_a_backup_shows_the_state_and_is_apart_from_it"
BIT_BY_BIT: Final = (
    "test_ballast.py::test_deletes_use_it_bit_by_bit_and_what_does_not_fit_any_more_is_refused"
)
FLIPPED: Final = (
    "test_table_damage.py::"
    "test_any_flipped_byte_of_the_block_index_or_the_checksums_is_corruption"
)
FULL: Final = "test_ballast.py::test_a_delete_commits_on_a_full_disk_and_a_put_does_not"
LOOKS_AGAIN: Final = (
    "test_right_checksums.py::test_verify_ends_though_the_manifest_is_gone_when_it_looks_again"
)
STALE: Final = (
    "test_table_damage.py::"
    "test_a_block_of_another_table_is_not_served_though_its_checksum_is_right"
)
ANOTHER: Final = "test_salvage.py::test_what_another_table_says_is_not_taken_for_true"
GUESSES: Final = (
    "test_salvage_guesses.py::test_entries_are_proven_by_a_manifest_whose_files_are_there"
)

IN_RESCUE: Final[tuple[Mutant, ...]] = (
    mutant(
        "reserve-not-synced",
        BALLAST,
        "            file.sync()\n",
        "",
        does="the reserve for deletes is not synced",
        costs="where the disk allots room late there is no reserve",
        hints=["test_ballast.py::test_a_disk_that_tells_at_the_sync_that_it_is_full_gets_less"],
    ),
    mutant(
        "reserve-for-puts",
        WRITER,
        "            if not is_full(error) or not changes.shrinks:",
        "            if not is_full(error):",
        does="any commit may use the reserve for deletes",
        costs="it is gone when something is to be deleted",
        hints=[FULL],
    ),
    mutant(
        "puts-beside-who-uses-the-reserve",
        WRITER,
        "        if self._ballast.in_use and not changes.shrinks:",
        "        if self._ballast.in_use is None:",
        does="puts go on while some work has the reserve",
        costs="they take the room that the work needs",
        hints=["test_ballast.py::test_a_put_waits_for_another_time_while_the_reserve_is_used"],
    ),
    mutant(
        "reserve-not-made-anew",
        BALLAST,
        "                    self.in_use = False\n"
        "                    with self._lock:\n"
        "                        self._restore()\n",
        "                    self.in_use = False\n",
        does="what a delete leaves of the reserve is not kept",
        costs="the next put takes it",
        hints=[BIT_BY_BIT],
    ),
    mutant(
        "reserve-left-in-use",
        BALLAST,
        "                    self.in_use = False\n                    with",
        "                    with",
        does="the reserve is in use for ever, once it was used",
        costs="no put is committed until the store is opened again",
        hints=["test_ballast.py::test_an_interrupt_of_who_uses_it_does_not_leave_it_in_use"],
    ),
    mutant(
        "smaller-reserve-taken",
        BALLAST,
        "max(_SIZE_LEAST, self._size + 1)",
        "_SIZE_LEAST",
        does="a reserve is replaced by one that is smaller",
        costs="each open of a full store leaves less for deletes",
        hints=["test_ballast.py::test_it_is_not_replaced_by_less"],
    ),
    mutant(
        "half-made-reserve-stays",
        BALLAST,
        "            fs.remove(self._aside)\n        self._size",
        "            pass\n        self._size",
        does="what a crash left of a reserve in the making stays",
        costs="its room is lost, and no reserve is made any more",
        hints=["test_ballast.py::test_what_a_crash_left_of_one_goes_at_the_next_open"],
    ),
    mutant(
        "reserve-does-not-grow",
        BALLAST,
        "min(max(table_size // _SIZE_DIVISOR, _SIZE_MIN), _SIZE_MAX)",
        "_SIZE_MIN",
        does="the reserve is as small beside large tables as beside none",
        costs="the merge that gives room back does not fit into it",
        hints=["test_ballast.py::test_it_grows_with_the_store"],
    ),
    mutant(
        "no-reserve-for-a-flush",
        "_engine/maintenance.py",
        "            if not is_full(error) or not self._tree.frozen_shrinks:",
        "            if error:",
        does="a flush of deletes may not use the reserve",
        costs="what was deleted on a full disk never gives room back",
        hints=["test_ballast.py::test_a_flush_may_use_it"],
    ),
    mutant(
        "copied-table-not-synced",
        BACKUP,
        "        file.sync()\n",
        "",
        does="a table that cannot be linked is copied and not synced",
        costs="after power loss the backup names a torn table",
        hints=["test_backup.py::test_what_was_copied_for_want_of_links_survives_power_loss"],
    ),
    mutant(
        "link-that-failed-forgotten",
        BACKUP,
        "target)\n        return\n",
        "target)\n    return\n",
        does="a table that cannot be linked is left out",
        costs="the backup has a manifest, and not what it names",
        hints=["test_backup.py::test_what_cannot_be_linked_is_copied"],
    ),
    mutant(
        "linked-backup-without-the-log",
        BACKUP,
        "        return files if newest is None else [newest, *files]",
        "        return files",
        does="a backup of links leaves out what no table has yet",
        costs="the newest commits are missing in it",
        hints=[APART],
    ),
    mutant(
        "newest-table-below",
        BACKUP,
        "[newest, *files]",
        "[*files, newest]",
        does="a backup of links has its newest table below the others",
        costs="old values hide new ones",
        hints=[APART],
    ),
    mutant(
        "target-not-empty-taken",
        BACKUP,
        "    if names:\n",
        "    if not directory:\n",
        does="a backup or a salvage takes a directory that is not empty",
        costs="what fails removes what was there",
        hints=["test_salvage_targets.py::test_a_target_that_is_not_empty_is_left_alone"],
    ),
    mutant(
        "foreign-block-in-a-get",
        "_engine/table.py",
        "        self.block_index.check_identity(i, layout.block_crc(self._view, offset))\n",
        "",
        does="a block is served without asking whether it is the one that belongs there",
        costs="a write that the disk lost brings old values back",
        hints=[STALE],
    ),
    mutant(
        "foreign-block-read-alone",
        SEQUENTIAL,
        "        self._table.block_index.check_identity(i, layout.block_crc(data, 0))\n",
        "",
        does="a merge that reads single blocks does not ask whether they belong there",
        costs="it decides by old blocks which keys are counted",
        hints=[STALE],
    ),
    mutant(
        "foreign-block-merged",
        SEQUENTIAL,
        "            blocks_crc = crc32(window.data[local : local + 4], blocks_crc)",
        "            blocks_crc = self._footer.blocks_crc + local - local",
        does="a merge does not compare the checksums of the blocks with the footer's",
        costs="it writes old values anew, with good checksums",
        hints=[STALE],
    ),
    mutant(
        "checksums-taken-unchecked",
        "_engine/block_index.py",
        "        if crc32(raw) != footer.blocks_crc:",
        "        if raw is None:",
        does="the checksums of the blocks are read without their own",
        costs="the chain from the manifest to a block has a hole",
        hints=[FLIPPED],
    ),
    mutant(
        "survey-takes-foreign-blocks",
        SURVEY,
        "                    places.check(self.name, at, crc)",
        "                    pass",
        does="a survey takes a block whose checksum is not the one that belongs there",
        costs="salvage takes old values for proven ones",
        hints=[ANOTHER],
    ),
    mutant(
        "survey-trusts-all",
        SURVEY,
        "            self.trusted = counted == footer or checked_each",
        "            self.trusted = True",
        does="blocks are trusted though nothing vouches for their place",
        costs="salvage takes old values for proven ones",
        hints=["test_salvage.py::test_blocks_are_found_without_a_block_index"],
    ),
    mutant(
        "untrusted-table-proven",
        SALVAGE,
        "            if survey is None or not survey.trusted:",
        "            if survey is None:",
        does="a table that is not to be trusted is taken for proven",
        costs="salvage takes another table's values for proven ones",
        hints=["test_salvage.py::test_blocks_are_found_without_a_block_index", ANOTHER],
    ),
    mutant(
        "salvage-drops-range-tombstones",
        SURVEY,
        "        self.ranges = survey.ranges.union(hidden)",
        "        self.ranges = hidden",
        does="salvage leaves out a table's range tombstones",
        costs="cleared keys come back",
        hints=["test_salvage.py::test_a_sound_store_is_salvaged_whole"],
    ),
    mutant(
        "manifest-aside-of-files-that-are-gone",
        SALVAGE,
        "        if manifest.names <= set(names):",
        "        if manifest.names:",
        does="a manifest written aside is taken though files that it names are gone",
        costs="salvage takes a state that never was in force for proven",
        hints=[GUESSES],
    ),
    mutant(
        "guess-taken-for-proven",
        SALVAGE,
        "        if self._named.manifest is None:\n            return",
        "        if self._named is None:\n            return",
        does="without a manifest what is found is taken for proven",
        costs="salvage guesses the order of tables, and says that it knows",
        hints=[GUESSES],
    ),
    mutant(
        "salvage-beside-a-writer",
        SALVAGE,
        "            if now != before:",
        "            if now is None:",
        does="salvage does not notice that somebody writes to the store",
        costs="it mixes the files of two states",
        hints=["test_salvage_targets.py::test_a_store_that_is_written_to_meanwhile_is_refused"],
    ),
    mutant(
        "verify-fails-with-the-manifest",
        "_engine/verify.py",
        "    except (CorruptionError, OSError):",
        "    except CorruptionError:",
        does="`verify` raises when the manifest is gone as it looks again",
        costs="a damaged store is not told of",
        hints=[LOOKS_AGAIN],
    ),
)
