"""What was found, as plain data. `--json` shows it with these names, in camel case."""

from typing import Literal

from pydantic import AwareDatetime

from tde_replication.status.fact import Fact

InVault = Literal["held", "deleted", "replaced", "gone", "not looked up", "unknown"]
Use = Literal["in use", "set aside", "given"]
ALL_HELD, LACKING, UNKNOWN = 0, 1, 3


class NeededKey(Fact):
    """A principal key that some data was encrypted with last."""

    scope: Literal["server", "default", "database"]
    database_oid: int | None = None
    database: str | None = None
    """Its name, where a running server tells it."""
    name: str
    provider: str
    """Its name, where a running server tells it; else its id."""
    since: AwareDatetime
    """When it was set there."""
    vault: InVault
    problem: str = ""
    """What `vault` means."""


class Data(Fact):
    """A data directory, or a backup of one."""

    server: str | None = None
    path: str
    use: Use
    keys: tuple[NeededKey, ...] = ()
    problem: str = ""
    """Why its key files, or some of them, could not be read."""


class Needed(Fact):
    stack: str
    mount: str
    data: tuple[Data, ...]
    others: tuple[str, ...] = ()
    """Keys of this cluster in Vault that open none of these: other backups may need them."""

    @property
    def code(self) -> int:
        keys = [key for one in self.data for key in one.keys]
        if any(key.vault in {"deleted", "replaced", "gone"} for key in keys):
            return LACKING
        if any(one.problem for one in self.data) or any(key.vault in {"not looked up", "unknown"} for key in keys):
            return UNKNOWN
        return ALL_HELD
