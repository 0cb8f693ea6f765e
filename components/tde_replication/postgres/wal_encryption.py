"""Encrypted WAL on the primary; a standby's own is among its settings. (Percona pg_tde documentation, *WAL encryption*.)"""

from collections.abc import Iterator
from typing import ClassVar, Literal, LiteralString, Self

from tde_replication.errors import Conflict, Unavailable
from tde_replication.postgres.parameters import parameters, reload_configuration
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.rollback import rolled_back
from tde_replication.postgres.session import session
from tde_replication.postgres.starting import restart, restart_cost, restart_objected
from tde_replication.progress import note
from tde_replication.records import Cost


class WalEncryption(OnServer):
    """``pg_tde.wal_encrypt``: needs the server key first, and a restart. Each standby has its own."""

    name: str
    binaries: str
    wal_encrypt: str
    """"on" or "off"; or "on" and what it waits for."""
    restart: Literal["allowed", "refused"] = "allowed"
    adopted: bool = False
    """Whether the server was here before the stack."""
    found: Literal["on", "off"] = "off"
    """How the stack found the WAL of such a server; one that waits to be "off" is."""

    computed: ClassVar[frozenset[str]] = frozenset({"found"})
    not_compared: ClassVar[frozenset[str]] = frozenset({"name", "binaries", "restart", "adopted"})

    @property
    def identity(self) -> str:
        return f"WAL of {self.name}"

    def costs(self, live: Self | None) -> Iterator[Cost]:
        if self._restarts(live):
            yield restart_cost(self.name, ["pg_tde.wal_encrypt"], self.restart)

    def refusal(self, live: Self) -> str | None:
        if self.restart == "refused" and self._restarts(live):
            return restart_objected(self.name, ["pg_tde.wal_encrypt"])
        return None

    def _restarts(self, live: Self | None) -> bool:
        """Whether `live` runs with another value, whatever it waits for."""
        return self.wal_encrypt != (live.wal_encrypt.partition(",")[0] if live else "off")

    def read(self) -> Self:
        with session(self, self.identity) as server:
            [found] = parameters(server, {"pg_tde.wal_encrypt": self.wal_encrypt})
        if not found.source:
            raise Unavailable(f"{self.identity}: server {self.name} has not loaded pg_tde")
        return self.replace(wal_encrypt=f"{found.value}, waiting for a restart" if found.waits else found.value)

    def create(self) -> Self:
        live = self.read()
        if self.adopted and self.wal_encrypt == "off" and live.wal_encrypt.startswith("on"):
            raise Conflict(
                f"{self.identity} is encrypted, and this change would turn that off with a restart: set walEncryption: true, or "
                "set pg_tde.wal_encrypt off and restart the server in your own time"
            )
        made = self.update(live) if self.changed(live) else self
        return made.replace(found="on" if live.wal_encrypt == "on" else "off") if self.adopted else made

    def update(self, live: Self) -> Self:
        if refusal := self.refusal(live):
            raise Conflict(refusal)
        restarts = self._restarts(live)
        with rolled_back(self, self.name, self.binaries, ["pg_tde.wal_encrypt"]):
            self._set(self.wal_encrypt, waits=not restarts)
            if restarts:
                restart(self, self.name, self.binaries)
        return self

    def delete(self) -> None:
        """As it was, from the server's next start on: nothing is worth a restart now."""
        before = self.found if self.adopted else "off"
        if self.wal_encrypt != before:
            self._set(before)
            if self.adopted:
                note(
                    f"{self.identity}: pg_tde.wal_encrypt is {before} again from the next start of server {self.name} on"
                )

    def _set(self, value: str, *, waits: bool = False) -> None:
        """`waits`: another value waits for a restart. PostgreSQL takes that back where the file has the value that it runs with,
        and not where the file has no value."""
        query: LiteralString = "ALTER SYSTEM SET pg_tde.wal_encrypt = on"
        if value == "off":
            query = "ALTER SYSTEM SET pg_tde.wal_encrypt = off" if waits else "ALTER SYSTEM RESET pg_tde.wal_encrypt"
        with session(self, self.identity) as server:
            server.rows(query)
            reload_configuration(server)
