"""Versions of pg_tde, as it says them."""

import re

Version = tuple[int, ...]

REWIND_REPAIRED: Version = (2, 2, 1)
"""The first whose pg_tde_rewind leaves encrypted relations readable (PG-2407, release notes of pg_tde 2.2.1, 2026-07)."""
STAND_IN = "NOT ENCRYPTED"
"""What the contract double says of itself; it has none of pg_tde's faults."""


def version(text: str) -> Version | None:
    """The version in what pg_tde says of itself: "pg_tde 2.2.1"."""
    found = re.search(r"\b(\d+)\.(\d+)(?:\.(\d+))?\b", text)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def dotted(version: Version) -> str:
    return ".".join(map(str, version))


def against_rewind(said: str) -> str | None:
    """Why a pg_tde that says this of itself is not trusted with a rewind."""
    found = version(said)
    if STAND_IN in said or (found and found >= REWIND_REPAIRED):
        return None
    if found is None:
        return "which version of pg_tde is installed cannot be told"
    return (
        f"pg_tde_rewind of pg_tde {dotted(found)} can make encrypted relations unreadable, and {dotted(REWIND_REPAIRED)} is the "
        "first without that fault"
    )
