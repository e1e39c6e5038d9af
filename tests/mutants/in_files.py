"""Bugs in which files are in force: manifests, recovery, what is removed, copies, readers."""

from __future__ import annotations

from typing import Final

from mutant import Mutant, mutant

BACKUP: Final = "_engine/backup.py"
COMPACTION: Final = "_engine/compaction.py"
FOLLOWER: Final = "_engine/follower.py"
MANIFEST: Final = "_engine/manifest.py"
RECOVERY: Final = "_engine/recovery.py"
TREE: Final = "_engine/tree.py"

CUT: Final = "test_power_cut.py::test_a_cut_at_every_operation"
ROTATED: Final = f"{CUT}_beside_flushes_and_compactions"
SECOND: Final = "test_power_cut.py::test_a_second_cut_at_every_operation_of_the_recovery"
CACHED: Final = (
    "test_promises.py::"
    "test_what_only_the_cache_holds_is_written_anew_before_anything_is_promised"
)
LEFT: Final = (
    "test_leftovers.py::test_a_call_that_failed_anywhere_leaves_only_what_the_manifest_names"
)

IN_FILES: Final[tuple[Mutant, ...]] = (
    mutant(
        "manifest-not-synced",
        MANIFEST,
        "            file.sync()\n",
        "",
        does="a manifest is renamed into place before its bytes are durable",
        costs="after power loss the manifest is empty",
        hints=[CUT],
    ),
    mutant(
        "rename-not-synced",
        MANIFEST,
        "        fs.sync_directory(directory)\n",
        "",
        does="the directory is not synced after the manifest was renamed",
        costs="the old manifest comes back, and its files are gone",
        hints=[CUT],
    ),
    mutant(
        "manifest-checksum-ignored",
        MANIFEST,
        "        if crc_line != _crc_line(body):",
        "        if not crc_line:",
        does="a manifest is taken without its checksum",
        costs="a flipped digit drops a table, or commits",
        hints=["test_bitflip.py::test_every_byte"],
    ),
    mutant(
        "table-not-synced",
        "_engine/table_writer.py",
        "        self._file.sync()\n",
        "",
        does="the manifest names a table that is not synced",
        costs="the log is removed, and the table is torn",
        hints=[CUT],
    ),
    mutant(
        "table-name-not-synced",
        COMPACTION,
        "        fs.sync_directory(directory)\n",
        "",
        does="the directory is not synced after a table was made",
        costs="the manifest may name a table that is not there",
        hints=[CUT],
    ),
    mutant(
        "recovered-tail-trusted",
        RECOVERY,
        "    if not found.clean or len(manifest.logs)",
        "    if len(manifest.logs)",
        does="what a killed store left in the cache is not written anew",
        costs="later commits are durable, and what they build on is not",
        hints=[CACHED],
    ),
    mutant(
        "number-of-a-leftover-used-again",
        RECOVERY,
        "number = max(manifest.next_number, *used, 0) + 1",
        "number = manifest.next_number",
        does="recovery gives a new table the number of a file that is there",
        costs="a store that lost power twice does not open",
        hints=[SECOND],
    ),
    mutant(
        "leftovers-removed-too-early",
        RECOVERY,
        "        manifest = replace(manifest, epoch=manifest.epoch + 1)\n"
        "        manifest.write(fs, directory)\n",
        "        for name in dead:\n"
        "            with suppress(OSError):\n"
        '                fs.remove(f"{directory}/{name}")\n'
        "        manifest = replace(manifest, epoch=manifest.epoch + 1)\n"
        "        manifest.write(fs, directory)\n",
        does="recovery removes files before the manifest without them is durable",
        costs="the old manifest comes back, and its files are gone",
        hints=[SECOND],
    ),
    mutant(
        "inputs-removed-too-early",
        TREE,
        "        before = self.manifest.names\n        try:",
        "        before = self.manifest.names\n"
        "        kept = {file.name for file in files}\n"
        '        self._remove(name for name in before - kept if name.endswith("tbl"))\n'
        "        try:",
        does="a merge's inputs are removed before the manifest without them is durable",
        costs="the old manifest comes back, and its files are gone",
        hints=[CUT],
    ),
    mutant(
        "dead-files-stay",
        TREE,
        "        self._remove(before - after.names)\n",
        "",
        does="tables and logs that are not needed any more are not removed",
        costs="the disk fills up",
        hints=["test_pieces.py::test_the_room_for_a_merge_is_its_newer_inputs_and_two_pieces"],
    ),
    mutant(
        "failed-table-stays",
        COMPACTION,
        "            fs.remove(path)\n",
        "            pass\n",
        does="a table that could not be finished is not removed",
        costs="a full disk stays full",
        hints=[LEFT],
    ),
    mutant(
        "flush-forgets-newer-logs",
        TREE,
        "logs=tuple(log for log in manifest.logs if log.number > newest.last_log),",
        "logs=(),",
        does="a flush drops the logs of commits made since the freeze",
        costs="acknowledged commits are gone at the next open",
        hints=["test_in_between.py", ROTATED],
    ),
    mutant(
        "wrong-memtable-let-go",
        TREE,
        "frozen[: len(frozen) - flushed]",
        "frozen[flushed:]",
        does="of two frozen memtables a flush lets go of the newer one",
        costs="commits vanish from reads until the next flush",
        hints=["test_in_between.py"],
    ),
    mutant(
        "frozen-in-the-wrong-order",
        TREE,
        "(active, *frozen), tables)",
        "(*frozen, active), tables)",
        does="an older memtable is asked before a newer one",
        costs="old values come back while flushes wait",
        hints=["test_in_between.py"],
    ),
    mutant(
        "numbers-not-noted",
        TREE,
        "                next_number=self._next_number,\n",
        "",
        does="a manifest does not count the file numbers that were used",
        costs="a number is used again, and a newer log is not told from an older one",
        hints=[
            "test_child.py::test_numbers_given_to_a_child_are_used_as_far_as_the_manifest_knows"
        ],
    ),
    mutant(
        "childs-numbers-not-noted",
        TREE,
        "            self._switch(lambda manifest: manifest)\n",
        "",
        does="a child writes under a number that the manifest on disk has free",
        costs="a child that outlives its store writes into a file of the next one",
        hints=[
            "test_child.py::test_numbers_given_to_a_child_are_used_as_far_as_the_manifest_knows"
        ],
    ),
    mutant(
        "entries-not-counted",
        TREE,
        "    if table.footer.entries != entries:",
        "    if entries < 0:",
        does="a new table is put in force without asking whether it holds all entries",
        costs="what a faulty flush or merge has lost is removed for good",
        hints=["test_in_between.py"],
    ),
    mutant(
        "doubtful-manifest-forgiven",
        TREE,
        "                self.poison(error)\n                raise\n            return",
        "                raise\n            return",
        does="a rename or a sync of it that failed does not poison",
        costs="nobody knows which manifest is in force, and files of one of them are removed",
        hints=["test_in_between.py"],
    ),
    mutant(
        "newer-log-removed",
        RECOVERY,
        "    check_unnamed_logs(fs, directory, names, manifest)\n",
        "",
        does="a log that is newer than the manifest is removed as a leftover",
        costs="who put an old manifest back loses what the newer one named",
        hints=[
            "test_promises.py::test_an_older_manifest_put_back_is_refused_and_the_newer_log_stays"
        ],
    ),
    mutant(
        "lost-manifest-made-anew",
        RECOVERY,
        "    _check_not_orphaned(names)\n    Manifest(",
        "    Manifest(",
        does="a store that has lost its manifest is taken for a new one",
        costs="every file is removed",
        hints=["test_torn.py::test_a_store_without_its_manifest_is_not_called_none"],
    ),
    mutant(
        "directory-of-a-new-store-not-synced",
        RECOVERY,
        '    fs.sync_directory(directory.rpartition("/")[0] or "/")\n',
        "",
        does="the name of a new store's directory is not synced",
        costs="the whole store is gone after power loss",
        hints=["test_system_calls.py"],
    ),
    mutant(
        "directory-of-a-backup-not-synced",
        BACKUP,
        '        fs.sync_directory(directory.rpartition("/")[0] or "/")\n',
        "",
        does="the name of a backup's directory is not synced",
        costs="the backup is gone after power loss",
        hints=["test_system_calls.py"],
    ),
    mutant(
        "failed-backup-stays",
        BACKUP,
        "        empty(fs, directory)\n        raise",
        "        raise",
        does="what a failed backup has written is not removed",
        costs="it cannot be made again, and looks like one",
        hints=["test_leftovers.py::test_a_backup_that_failed_anywhere_can_be_made_again"],
    ),
    mutant(
        "older-manifest-not-noticed",
        "_engine/verify.py",
        "            _check_epoch(manifest, epoch)\n",
        "",
        does="`verify` does not compare the manifest's epoch with the one in force",
        costs="an older manifest under an open store is called sound",
        hints=[
            "test_planted_files.py::test_an_older_manifest_under_an_open_store_is_found_by_verify"
        ],
    ),
    mutant(
        "reader-ignores-the-manifest",
        FOLLOWER,
        "if self._identity != self._fs.identity(",
        "if not self._identity and self._fs.identity(",
        does="a reader does not look whether the manifest was replaced",
        costs="it shows an old state for ever",
        hints=[
            "test_follower.py::test_only_new_tables_are_opened_when_the_manifest_was_replaced"
        ],
    ),
    mutant(
        "reader-gives-up",
        RECOVERY,
        "if Manifest.read(fs, directory).epoch == manifest.epoch:",
        "if Manifest.read(fs, directory).epoch >= manifest.epoch:",
        does="a reader takes a file that was just replaced for a lost one",
        costs="it reports corruption beside a busy writer",
        hints=["test_follower.py::test_what_is_written_while_a_store_is_read_is_no_corruption"],
    ),
    mutant(
        "reader-shows-the-unsynced",
        FOLLOWER,
        "        self._tail.sync()\n",
        "",
        does="a reader shows what its writer has not synced yet",
        costs="somebody acts on what power loss takes away",
        hints=["test_follower.py"],
    ),
    mutant(
        "orphan-goes-on",
        "_engine/worker.py",
        "        if self._ended:\n",
        "        if not self._lines:\n",
        does="a child goes on writing when its store has ended",
        costs="files appear in a store that another has opened",
        hints=["test_child.py::test_a_child_ends_within_a_job_when_its_input_has_ended"],
    ),
    mutant(
        "childs-leftover-stays",
        "_engine/builder.py",
        "            self._discard(number)\n            return None\n",
        "            return None\n",
        does="what a killed child had written is not removed",
        costs="the disk fills up until the next open",
        hints=["test_child.py::test_what_a_killed_child_leaves_undone_is_done_here"],
    ),
)
