"""Versions of pg_tde, as it says them."""

import re

Version = tuple[int, ...]


def version(text: str) -> Version | None:
    """The version in what pg_tde says of itself: "pg_tde 2.2.1"."""
    found = re.search(r"\b(\d+)\.(\d+)(?:\.(\d+))?\b", text)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def dotted(version: Version) -> str:
    return ".".join(map(str, version))
