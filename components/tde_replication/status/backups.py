"""What pgBackRest's repository says of the declared stanza, and the last restore drill."""

from datetime import datetime
from typing import Literal

from pydantic import AwareDatetime

from tde_replication.status.fact import Fact


class StoredBackup(Fact):
    """The newest backup in the repository."""

    label: str
    """pgBackRest's name of it."""
    type: str
    """full, diff or incr."""
    ended: AwareDatetime
    bytes: int
    """Of the data directory that it holds."""
    damaged: bool = False
    """Whether pages in it had wrong checksums."""


class Drill(Fact):
    """A restore drill, as it was noted on the server that it was made on."""

    time: AwareDatetime
    server: str
    stanza: str = ""
    backup: str = ""
    """Label of the backup that was restored; empty: it did not come to that."""
    recovered_to: AwareDatetime | None = None
    """Time of the last transaction that was recovered, as far as the server says it."""
    seconds: float = 0
    """How long all of it took."""
    databases: int = 0
    tables: int = 0
    """How many were read from their first row to their last."""
    encrypted: int = 0
    """How many of them are encrypted."""
    rows: int = 0
    bytes: int = 0
    problem: str = ""
    """Why it failed; empty: it did not."""


class Stanza(Fact):
    name: str
    server: str = ""
    """The one whose pgBackRest was asked."""
    state: Literal["there", "missing", "of another cluster", "not known"] = "not known"
    problem: str = ""
    """Why it is not known."""
    in_clear: tuple[int, ...] = ()
    """The repositories that are not encrypted."""
    backups: int = 0
    last: StoredBackup | None = None
    drill: Drill | None = None
    """The newest one that a server knows of."""


def age(when: datetime, now: datetime) -> float:
    return max((now - when).total_seconds(), 0)
