"""How standbys log in and what they may hold back, and whether commits wait for them."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field

from tde_replication.host_settings import Settings
from tde_replication.values import TLS_REQUIRED, AbsolutePath, Label, Role, Size, distinct


class Replication(Settings):
    role: Role = "replicator"
    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """libpq's sslmode for the standbys' connections; from "require" on, pg_hba takes encrypted connections only."""
    max_slot_wal_keep_size: Size = "4GB"
    """The WAL that a slot may hold back on the primary before its standby is given up ("-1": until the disk is full)."""
    root_certificate: AbsolutePath | None = None
    """The CA certificate, on each standby, that signed the primary's: for "verify-ca" and "verify-full"."""
    password_version: Annotated[int, Field(ge=1)] = 1
    """Count up to have another password."""

    @property
    def encrypted(self) -> bool:
        return self.tls in TLS_REQUIRED


class Synchronous(Settings):
    """Commits wait until standbys have them on disk (PostgreSQL documentation, *Synchronous Replication*)."""

    mode: Literal["quorum", "priority"] = "quorum"
    """Whether any `number` of `standbys` will do, or the first ones of the list that stream."""
    number: Annotated[int, Field(ge=1)] = 1
    """How many standbys a commit waits for."""
    standbys: Annotated[list[Label], Field(min_length=1), AfterValidator(distinct)] | None = None
    """Names of servers, for "priority" in that order; the one that is the primary does not count. Default: all that stream
    from the primary without a delay, by their names."""
    when_too_few: Literal["wait", "continue"] = "wait"
    """PostgreSQL lets commits wait while fewer stream. "continue": the next `up` lets them go on before it does anything else,
    and has them wait again at its end, once enough stream."""
