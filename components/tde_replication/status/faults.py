"""Faults of pg_tde that are known of a version. Each row has its source and the date of that source; nothing is guessed."""

from dataclasses import dataclass

from tde_replication.pg_tde_version import Version, dotted, version


@dataclass(frozen=True)
class Fault:
    text: str
    repaired: Version | None
    """The first version without it; None: every version has it."""
    source: str


FAULTS = (
    Fault(
        "a key rotation during a base backup can make the backup unusable: never rotate during one",
        (2, 2, 0),
        "PG-1895, release notes of pg_tde 2.2.0, 2026-05; the warning in Percona's documentation stays",
    ),
    Fault(
        "pg_tde_rewind can corrupt encrypted relations: make a new clone of the standby instead",
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


def known_faults(pg_tde: str, postgresql: int, *, repaired: bool = False) -> list[str]:
    """Sentences, each with its source; `postgresql` is its server_version_num. `repaired`: without what no version repairs."""
    found = version(pg_tde)
    if found is None:
        return []
    told = [
        f"{fault.text} ({f'repaired in {dotted(fault.repaired)}' if fault.repaired else 'not repaired yet'}; {fault.source})"
        for fault in FAULTS
        if (fault.repaired is None and not repaired) or (fault.repaired and found < fault.repaired)
    ]
    major, minor = divmod(postgresql, 10000)
    for since, oldest, source in NEEDS:
        if found >= since and minor < oldest.get(major, 0):
            told.append(
                f"it needs Percona Server {major}.{oldest[major]} or newer, and this is {major}.{minor} ({source})"
            )
    return told
