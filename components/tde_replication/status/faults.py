"""Faults of pg_tde that are known of a version. Each row has its source and the date of that source; nothing is guessed."""

import re
from dataclasses import dataclass

Version = tuple[int, ...]


@dataclass(frozen=True)
class Fault:
    text: str
    repaired: Version | None
    """The first version without it; None: there is none yet."""
    source: str


FAULTS = (
    Fault(
        "a key rotation during a base backup can make the backup unusable: never rotate during one",
        (2, 2, 0),
        "PG-1895, release notes of pg_tde 2.2.0, 2026-05; the warning in Percona's documentation stays",
    ),
    Fault(
        "pg_tde_rewind can corrupt encrypted relations: clone a standby anew instead",
        (2, 2, 1),
        "PG-2407, release notes of pg_tde 2.2.1, 2026-07",
    ),
    Fault(
        "processes that are forked may use one Vault connection at the same time",
        (2, 2, 2),
        "PG-2608, release notes of pg_tde 2.2.2, 2026-08",
    ),
    Fault(
        "mlock may fail on Rocky Linux 8 on ARM",
        None,
        "known issues in the release notes of pg_tde 2.2.2, 2026-08",
    ),
)
NEEDS: tuple[tuple[Version, dict[int, int], str], ...] = (
    ((2, 2, 0), {17: 10, 18: 4}, "release notes of pg_tde 2.2.0, 2026-05"),
)
"""From this version of pg_tde on: by major version of PostgreSQL, the oldest minor version of Percona Server that it supports."""


def version(text: str) -> Version | None:
    """The version in what pg_tde says of itself: "pg_tde 2.2.1"."""
    found = re.search(r"\b(\d+)\.(\d+)(?:\.(\d+))?\b", text)
    return tuple(int(part or 0) for part in found.groups()) if found else None


def known_faults(pg_tde: str, postgresql: int) -> list[str]:
    """Sentences, each with its source; `postgresql` is its server_version_num."""
    found = version(pg_tde)
    if found is None:
        return []
    told = [
        f"{fault.text} ({f'repaired in {_dotted(fault.repaired)}' if fault.repaired else 'not repaired yet'}; {fault.source})"
        for fault in FAULTS
        if fault.repaired is None or found < fault.repaired
    ]
    major, minor = divmod(postgresql, 10000)
    for since, oldest, source in NEEDS:
        if found >= since and minor < oldest.get(major, 0):
            told.append(
                f"it needs Percona Server {major}.{oldest[major]} or newer, and this is {major}.{minor} ({source})"
            )
    return told


def _dotted(version: Version) -> str:
    return ".".join(map(str, version))
