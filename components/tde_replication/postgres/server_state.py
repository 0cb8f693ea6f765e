"""A server as it is declared and as it is found: how the two are compared, what a change costs, and why it is refused."""

from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import ClassVar, Literal, Self

from tde_replication.errors import Unavailable, UserError
from tde_replication.hosts import facts
from tde_replication.postgres import rollback
from tde_replication.postgres.cipher import PARAMETER, recodes_wal
from tde_replication.postgres.control import look_into, too_low
from tde_replication.postgres.guc import LISTS, elements, same_value, written
from tde_replication.postgres.parameters import parameters
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.session import Session, session
from tde_replication.postgres.settings_checks import unchangeable, without_standbys
from tde_replication.postgres.starting import restart_cost, restart_objected
from tde_replication.postgres.trial import refused_values
from tde_replication.records import Cost
from tde_replication.unasked import could_not_ask


class ServerState(OnServer):
    name: str
    binaries: str
    made_at: str
    """When its data directory was made: another directory is another server."""
    settings: dict[str, str]
    """Parameters by their names in lower case, as postgresql.conf would hold them (units allowed)."""
    recovery: Literal["none", "standby"] = "none"
    """"none" for a primary; "standby" for a server with a standby.signal that replays the primary's WAL."""
    replay: Literal["running", "paused"] = "running"
    running: bool = True
    socket: Literal["there", "removed"] = "there"
    """Whether the file of its socket is there, without which nobody on its machine can connect to it."""
    pending_reload: list[str] = []
    """Parameters that were changed in a file and not loaded: none is wanted."""
    pending_restart: list[str] = []
    """Parameters that were changed and wait for a restart: none is wanted."""
    unfinished: list[str] = []
    """Parameters that an interrupted `up` may have changed: none is wanted."""
    restart: Literal["allowed", "refused"] = "allowed"
    """Whether `up` may restart this server for a parameter that can only change at start."""
    container: str = ""
    """The id of the container that it runs in; another one has yet to be started."""
    networks: list[str] = []
    """Those that this container is on. pulumi-docker does not look: off its cluster's, a server may seem well by the Vault's."""
    ours: bool = True
    """False for a server that was here before the stack: it is not stopped, and gets its own values back in the end."""
    found: dict[str, str] = {}
    """What postgresql.auto.conf of such a server said before of the parameters that the stack sets, where it said something."""
    restart_seconds: float | None = None
    """How long its last restart for a parameter took; None where there was none."""

    replaced_by: ClassVar[frozenset[str]] = OnServer.replaced_by | {"made_at"}
    computed: ClassVar[frozenset[str]] = frozenset({"found", "restart_seconds"})
    not_compared: ClassVar[frozenset[str]] = frozenset({"name", "binaries", "restart", "ours"})

    @property
    def identity(self) -> str:
        return self.name

    @property
    def _bin(self) -> PurePosixPath:
        return PurePosixPath(self.binaries)

    def _differs(self, name: str, old: Self) -> bool:
        if name == "settings":
            return bool(self._changed_settings(old))
        return super()._differs(name, old)

    def _changed_settings(self, old: Self) -> set[str]:
        """The parameters that are set, changed or taken out."""
        both = self.settings.keys() & old.settings.keys()
        changed = {name for name in both if not same_value(name, self.settings[name], old.settings[name])}
        return changed | (self.settings.keys() ^ old.settings.keys())

    def read(self) -> Self | None:
        machine = self.machine
        look_into(machine, self._bin, self.data)
        names = machine.listing(self.data)
        if not names:
            return None
        here = self.replace(networks=machine.on(self.networks)) if self.networks else self
        has_signal = "standby.signal" in names
        unfinished = rollback.unfinished(machine, self.data) if rollback.NOTE in names else []
        if not machine.serves(self.data):
            return here.replace(running=False, recovery="standby" if has_signal else "none", unfinished=unfinished)
        try:
            with session(self, f"server {self.name}") as server:
                live = self._live(server, has_signal=has_signal)
                return live.replace(unfinished=unfinished, networks=here.networks)
        except Unavailable as reason:
            facts.doubt()
            if self._socket_is_gone():
                return here.replace(socket="removed")
            # A process that is there and does not answer is starting or stopping: no drift to repair.
            raise Unavailable(f"server {self.name} runs and does not answer yet: {reason}") from None

    def _live(self, server: Session, *, has_signal: bool) -> Self:
        found = list(parameters(server, self.settings))
        recovering, paused = server.row(
            "SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN pg_is_wal_replay_paused() ELSE false END"
        ) or (False, False)
        return self.replace(
            running=True,
            settings={one.name: one.shown for one in found},
            recovery="standby" if recovering and has_signal else "none",
            replay="paused" if paused else "running",
            pending_reload=sorted(one.name for one in found if one.needs_reload),
            pending_restart=sorted(one.name for one in found if one.needs_restart),
        )

    def _socket_is_gone(self) -> bool:
        """Something that cleans its directory has removed it: only a restart makes it again."""
        found = self.machine.postmaster(self.data)
        if not found or not found.ready or not found.port or not found.socket_directory.startswith("/"):
            return False
        return self.machine.status(PurePosixPath(found.socket_directory) / f".s.PGSQL.{found.port}") is None

    def late(self, server: Session) -> list[str]:
        """The parameters that wait for a restart."""
        return self._live(server, has_signal=False).pending_restart

    def refusal(self, live: Self) -> str | None:
        if self.restart == "refused" and live.socket == "removed":
            return f"{self._no_socket}, and the stack says restart: refused: nothing is changed. Restart it in your own time"
        late = self._late(live)
        if self.restart == "refused" and late:
            return restart_objected(self.name, late)
        if wrong := self._wrong_values(live):
            return wrong
        return unchangeable(self, self.name, restarts=bool(late)) if live.running and self.changed(live) else None

    def _wrong_values(self, live: Self) -> str | None:
        """What PostgreSQL has against the values that are new."""
        new = {name: self.settings[name] for name in self.settings.keys() & self._changed_settings(live)}
        wrong = []
        try:
            wrong = refused_values(self.machine, self._bin, new) if new else []
        except Unavailable as why:
            could_not_ask(f"whether PostgreSQL accepts the new settings of {self.name}", why)
        return f"server {self.name}: {'; '.join(wrong)}: nothing is changed. Correct its settings" if wrong else None

    def refusal_of_adoption(self, live: Self) -> str | None:
        """The same of a server that was here before the stack, as it is: all of it, told together."""
        loaded, wanted = (elements(one.settings.get("shared_preload_libraries", "")) for one in (live, self))
        found: list[str | None] = []
        if lost := sorted(set(loaded) - set(wanted) - {""}):
            found.append(
                f"server {self.name} loads {', '.join(lost)} at its start, and the stack file does not: name all but pg_tde in "
                "settings.shared_preload_libraries, or remove them from the server"
            )
        found += [self.refusal(live), without_standbys(self, self.name, self.settings)]
        return ". ".join(filter(None, found)) or None

    @property
    def _no_socket(self) -> str:
        return f"the socket of server {self.name} was removed, and only a restart creates it again"

    def costs(self, live: Self | None) -> Iterator[Cost]:
        if live and live.socket == "removed":
            yield Cost(kind="restart", server=self.name, text=f"{self._no_socket}: it will be restarted")
        elif late := self._late(live):
            yield restart_cost(self.name, late, self.restart, self.restart_seconds)
        elif live and live.running and self.changed(live) & {"settings", "pending_reload", "pending_restart"}:
            yield Cost(kind="reload", server=self.name)

    def _late(self, live: Self | None) -> list[str]:
        """The changed parameters that can only change at start, or were given at it; those that are set back to what the server
        runs with, where that is spelled in another way; those that a standby has paused itself for; and the cipher of encrypted
        WAL."""
        if live is None or not live.running:
            return []
        if low := self._low(live):
            return low
        changed = self._changed_settings(live)
        back = self.settings.keys() & LISTS & set(live.pending_restart) - changed
        if not changed | back:
            return []
        try:
            with session(self, f"server {self.name}") as server:
                rows = server.rows(
                    "SELECT name, setting FROM pg_settings WHERE lower(name) = ANY(%s) "
                    "AND (context = 'postmaster' OR source = 'command line') ORDER BY name",
                    [list(changed | back)],
                )
                recodes = [PARAMETER] if recodes_wal(server, changed) else []
        except UserError as why:
            could_not_ask(f"whether {self.name} must be restarted", why)
            return []
        late = {name for name, runs in rows if name.lower() in changed or runs != written(name, self.settings[name])}
        return sorted({*late, *recodes})

    def _low(self, live: Self) -> list[str]:
        """What is lower than on the primary, where it has been raised there: replay pauses, and to resume it ends the server."""
        if live.replay != "paused" or self.recovery != "standby":
            return []
        try:
            return sorted(too_low(self.machine, self._bin, self.data))
        except UserError as why:
            could_not_ask(f"what {self.name} is paused for", why)
            return []
