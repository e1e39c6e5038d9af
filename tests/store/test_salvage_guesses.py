"""Without a manifest that can be read nothing is proven, whatever else lies about.

Method: the manifest of a small store is spoiled, and one that was written aside lies beside it
that names what is there, or what is not.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
from support.pairs import flush_only, pairs, put

import blobkv
from blobkv._engine.manifest import MANIFEST_ASIDE, Manifest
from blobkv.testing import SimulatedDisk


@pytest.mark.parametrize("aside", ["none", "as good", "names a missing file"])
@pytest.mark.parametrize("wanted", [True, False])
def test_entries_are_proven_by_a_manifest_whose_files_are_there(
    aside: str, *, wanted: bool
) -> None:
    disk = SimulatedDisk()
    with blobkv.open("/db", fs=disk) as store:
        for key in (b"first", b"second"):
            put(store, key)
            flush_only(store)
        put(store, b"log")
        expected = pairs(store)
    manifest = Manifest.read(disk, "/db")
    if aside != "none":
        if aside != "as good":
            gone = manifest.tables[0]._replace(number=99)
            tables = (gone, *manifest.tables)
            manifest = replace(manifest, tables=tables, next_number=100)
        file = disk.create(f"/db/{MANIFEST_ASIDE}")
        file.append(manifest.encode())
        file.close()
    disk.set_contents("/db/MANIFEST", b"rot")

    found = blobkv.salvage("/db", "/new", doubtful="/doubtful" if wanted else None, fs=disk)

    proven = expected if aside == "as good" else {}
    assert (found.entries, found.doubtful) == (len(proven), len(expected) - len(proven))
    with blobkv.open("/new", fs=disk, create=False) as store:
        assert pairs(store) == proven
    if wanted:
        with blobkv.open("/doubtful", fs=disk, create=False) as store:
            assert pairs(store) == (expected if not proven else {})
    else:
        assert "doubtful" not in disk.names("/")
