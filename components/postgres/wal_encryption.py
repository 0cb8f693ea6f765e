"""Encrypted WAL on the primary; a standby's own is among its settings. (Percona pg_tde documentation, *WAL encryption*.)"""

from typing import ClassVar, Literal, LiteralString, Self

from components.errors import Refused
from components.postgres.resource import OnServer
from components.postgres.server import restart, restart_told
from components.postgres.session import session
from components.progress import note


class WalEncryption(OnServer):
    """``pg_tde.wal_encrypt``: needs the server key first, and a restart. Each standby has its own."""

    name: str
    binaries: str
    wal_encrypt: str
    """"on" or "off"; or "on" and what it waits for."""
    restart: Literal["allowed", "refused"] = "allowed"

    unmanaged: ClassVar[frozenset[str]] = frozenset({"name", "binaries", "restart"})

    @property
    def identity(self) -> str:
        return f"WAL of {self.name}"

    def cost(self, live: Self | None) -> str | None:
        if self.wal_encrypt == (live.wal_encrypt if live else "off"):
            return None
        return restart_told(self.name, ["pg_tde.wal_encrypt"], self.restart)

    def read(self) -> Self | None:
        with session(self, self.identity) as server:
            value, pending = server.row(
                "SELECT setting, pending_restart FROM pg_settings WHERE name = 'pg_tde.wal_encrypt'"
            ) or (
                "unknown: pg_tde is not loaded",
                False,
            )
            return self.but(wal_encrypt=f"{value}, waiting for a restart" if pending else value)

    def create(self) -> Self:
        live = self.read()
        return self.update(live) if live and self.changed(live) else self

    def update(self, live: Self) -> Self:
        del live
        self._set()
        return self

    def delete(self) -> None:
        if self.wal_encrypt != "off":
            if self.restart == "refused":
                note(
                    f"{self.identity} goes on being encrypted: that can only change at start, and restarts are refused"
                )
                return
            self.but(wal_encrypt="off")._set()  # noqa: SLF001 - our own

    def _set(self) -> None:
        if self.restart == "refused":
            raise Refused(
                f"{self.identity}: server {self.name} must be restarted for it, and the stack says restart: refused: nothing is "
                "changed. Set pg_tde.wal_encrypt by ALTER SYSTEM and restart the server in your own time, or say restart: allowed"
            )
        query: LiteralString = "ALTER SYSTEM SET pg_tde.wal_encrypt = on"
        if self.wal_encrypt == "off":
            query = "ALTER SYSTEM RESET pg_tde.wal_encrypt"
        with session(self, self.identity) as server:
            server.rows(query)
        restart(self, self.name, self.binaries)
