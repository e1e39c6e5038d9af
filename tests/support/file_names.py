"""The files of a store that no manifest names."""

from __future__ import annotations

ALWAYS = {"LOCK", "MANIFEST", "MANIFEST.new", "BALLAST", "BALLAST.new"}
