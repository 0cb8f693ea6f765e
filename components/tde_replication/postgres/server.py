"""A running server with its settings, as a primary or as a standby.

Settings lie in postgresql.auto.conf: written to the file before a start, by ALTER SYSTEM while the server runs, so that a value
set by hand is found and put back. (PostgreSQL documentation, *Parameter Interaction via the Configuration File*.)
"""

from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import ClassVar, Literal, Self

from tde_replication.errors import CommandFailed, Conflict, Unavailable, UserError
from tde_replication.hosts.base import LOG
from tde_replication.postgres import rollback
from tde_replication.postgres.cipher import PARAMETER, recodes_wal
from tde_replication.postgres.control import FOLLOWED, control_data, too_low
from tde_replication.postgres.guc import LISTS, elements, same_value, written
from tde_replication.postgres.parameters import alter_system, parameters, reload_configuration, waiting
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.rollback import recover, rolled_back
from tde_replication.postgres.session import Session, session
from tde_replication.postgres.settings_checks import unchangeable, without_standbys
from tde_replication.postgres.starting import (
    STOP_DEADLINE,
    refuse_wrong_files,
    restart_objected,
    restart_told,
    start,
)
from tde_replication.postgres.trial import Trial, refused_values
from tde_replication.progress import note
from tde_replication.unasked import could_not_ask
from tde_replication.waiting import until

LOWER_DEADLINE = 60.0


class Server(OnServer):
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
    """The id of the container that it runs in; one that was made anew has yet to be started."""
    networks: list[str] = []
    """Those that this container is on. pulumi-docker does not look: off its cluster's, a server may seem well by the Vault's."""
    ours: bool = True
    """False for a server that was here before the stack: it is not stopped, and gets its own values back in the end."""
    found: dict[str, str] = {}
    """What postgresql.auto.conf of such a server said before of the parameters that the stack sets, where it said something."""

    replaced_by: ClassVar[frozenset[str]] = OnServer.replaced_by | {"made_at"}
    computed: ClassVar[frozenset[str]] = frozenset({"found"})
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
        if self.recovery == "none" and live.recovery == "standby":
            return f"server {self.name} is declared as the primary and is a standby now: nothing is changed"
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

    def cost(self, live: Self | None) -> str | None:
        if live and live.socket == "removed":
            return f"{self._no_socket}: it will be restarted"
        late = self._late(live)
        return restart_told(self.name, late, self.restart) if late else None

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

    def create(self) -> Self:
        """Start it with its settings; a server that an interrupted run left running is brought to them instead."""
        if not self.ours:
            return self._adopt()
        recover(self)
        if self.machine.serves(self.data):
            # What it runs with already is not set again: in another spelling, it would wait for a restart.
            live = self.replace(running=True, pending_reload=[], pending_restart=[])
            return self.update(live.read() or live)
        return self._bring(self.replace(settings={}), [])

    def _adopt(self) -> Self:
        # What postgresql.conf says as declared is not written a second time: destroy would have to know whose it is.
        recover(self)
        live = self.replace(pending_reload=[], pending_restart=[], unfinished=[]).read() or self
        if refusal := self.refusal_of_adoption(live):
            raise Conflict(refusal)
        return self.replace(found=self.set_before(self.settings))._bring(live, [])  # noqa: SLF001 - our own

    def set_before(self, names: Iterable[str]) -> dict[str, str]:
        """What somebody has set by ALTER SYSTEM."""
        found = rollback.values_before(self.machine, self.data, names)
        return {name: value for name, value in found.items() if value is not None}

    def update(self, live: Self) -> Self:
        for network in sorted(set(self.networks) - set(live.networks)):
            self.machine.join(network)
        if live.socket == "removed":
            if self.restart == "refused":
                raise Conflict(f"{self._no_socket}: the stack says restart: refused")
            self.machine.stop(self._bin, self.data, deadline=STOP_DEADLINE)
            start(self, self.name, self.binaries)
            live = self.read() or self
        if back := recover(self):
            note(f"server {self.name}: an interrupted `up` had changed {', '.join(back)}: that is put back first")
            live = live.read() or live
        added = () if self.ours else self.settings.keys() - live.settings.keys()
        return self.replace(found=self.found | self.set_before(added))._bring(live, back)  # noqa: SLF001 - our own

    def _bring(self, live: Self, back: list[str]) -> Self:
        """`back`: parameters that an interrupted `up` had changed; it may run with values that are in no file any more."""
        names = {*self.settings, *live.settings, *(FOLLOWED.values() if self.recovery == "standby" else ())}
        doubt = None
        running = self.machine.serves(self.data)
        if running:
            try:
                with session(self, f"server {self.name}") as server:
                    doubt = self._try(server, live)
            except Unavailable:
                self._ended_meanwhile()
                running = False
        if not running and not self.ours and self.restart == "refused":
            raise Conflict(
                f"server {self.name} is down, and the stack says restart: refused. Start it, and run `up` again"
            )
        with rolled_back(self, self.name, self.binaries, names):
            if running:
                try:
                    return self._change(live, back, doubt)
                except Unavailable:
                    self._ended_meanwhile()
            return self._start_stopped(live.settings)

    def _ended_meanwhile(self) -> None:
        """Go on with a server of ours that has ended by itself, as a standby without pg_tde does when it replays pg_tde's WAL;
        to be called for an `Unavailable`, which is raised again where it has not."""
        if self.machine.serves(self.data) or not (self.ours or self.restart == "allowed"):
            raise  # noqa: PLE0704 - the caller handles one

    def _try(self, server: Session, live: Self) -> str | None:
        """Refuse new values with which it would not start; where it would not with what it has either, say why."""
        machine = self.machine
        trial = Trial.of(server, machine, self._bin, self.data)
        gone = live.settings.keys() - self.settings.keys()
        former = {name: self.found[name] for name in gone if name in self.found}
        why = trial.refusal(rollback.with_settings(machine, self.data, self.settings | former, live.settings))
        if why and trial.refusal(rollback.with_settings(machine, self.data, {}, ())) is None:
            names = ", ".join(sorted(self._changed_settings(live)))
            raise Conflict(
                f"server {self.name} would not start with its new {names or 'settings'}: {why}. Nothing is changed, and it runs "
                "as before: correct its settings"
            )
        return why

    def _change(self, live: Self, back: list[str], doubt: str | None) -> Self:
        """Set what differs on the running server, and restart it where that takes one, unless there is `doubt` that it starts."""
        if self.recovery == "standby":
            # A running standby that lost its signal file would come up as a primary at its next start.
            self.machine.write(self.data / "standby.signal", b"", mode=0o600)
        with session(self, f"server {self.name}") as server:
            recodes = [PARAMETER] if recodes_wal(server, self._changed_settings(live)) else []
            self._alter(server, live)
            # One that is no longer declared waits for a restart too.
            late = self.replace(settings=live.settings | self.settings).late(server) + recodes
            if back and self.restart == "allowed":
                late = sorted({*late, *waiting(server, back)})
            paused = self.recovery == "standby" and not late and server.value("SELECT pg_is_wal_replay_paused()")
            # Paused by itself because a parameter is lower than the primary's: to go on without a restart would end it.
            low = too_low(self.machine, self._bin, self.data) if paused else {}
            if paused and not low:
                server.rows("SELECT pg_wal_replay_resume()")
            if low or late:
                refuse_wrong_files(server, self.name)
        if not (low or late):
            return self
        needs = sorted(low) or late
        if self.restart == "refused":
            raise Conflict(restart_objected(self.name, needs))
        if doubt:
            raise Conflict(f"server {self.name} must be restarted for {', '.join(needs)}, and would not start: {doubt}")
        if not low and self.recovery == "standby" and set(FOLLOWED.values()).intersection(late):
            self._wait_for_lower()
        self.machine.stop(self._bin, self.data, deadline=STOP_DEADLINE)
        return self._start_stopped(live.settings) if low else self._start()

    def _start_stopped(self, former: dict[str, str]) -> Self:
        """Start it, a standby with at least what its primary had: without, it would not start.

        What the stack does not declare stays so; the rest is as declared once the standby has replayed that the primary has less.
        """
        self._configure_stopped(former)
        least = too_low(self.machine, self._bin, self.data) if self.recovery == "standby" else {}
        if not least:
            return self._start()
        higher = self.replace(settings=self.settings | least)
        higher._configure_stopped(former)  # noqa: SLF001 - our own
        higher._start()  # noqa: SLF001
        kept = {name: value for name, value in least.items() if name not in self.settings}
        self.replace(settings=self.settings | kept)._change(higher, [], None)  # noqa: SLF001
        return self

    def _wait_for_lower(self) -> None:
        """A standby with less than its primary had cannot start before it has replayed that the primary has less too."""
        if not until(lambda: not too_low(self.machine, self._bin, self.data), seconds=LOWER_DEADLINE):
            names = ", ".join(too_low(self.machine, self._bin, self.data))
            raise UserError(
                f"server {self.name} has not replayed yet that the primary's {names} is lower: with less it would not start. Run "
                "`up` again when it has caught up"
            )

    def delete(self) -> None:
        if not self.ours:
            self._give_back()
            return
        if self.machine.listing(self.data) and (found := self._found_instead()):
            note(f"{self.data_directory} holds {found}, and not server {self.name}: it is left as it is")
            return
        self.machine.stop(self._bin, self.data, deadline=STOP_DEADLINE)
        recover(self, may_start=False)  # what is set aside starts as it is
        self.machine.remove(self.data.with_name(LOG))

    def _found_instead(self) -> str | None:
        """What the directory holds where that is not this server's cluster."""
        try:
            found = control_data(self.machine, self._bin, self.data).system_identifier
        except CommandFailed:
            return "no cluster"
        return None if found == self.system_identifier else f"another cluster (system identifier {found})"

    def give_back_left(self) -> list[str]:
        """Set back what still is as the stack has set it, after an `up` that was killed meanwhile; the names of that."""
        recover(self)
        now = self.set_before(self.settings)
        left = [
            name
            for name in sorted(now.keys() - {"shared_preload_libraries"})
            if same_value(name, self.settings[name], now[name]) and now[name] != self.found.get(name)
        ]
        if left:
            self._set_back(left)
        return left

    def _give_back(self) -> None:
        """Set what was set before. pg_tde stays loaded: without it, tables that are encrypted by now could not be read."""
        recover(self)
        self._set_back(self.settings.keys() - {"shared_preload_libraries"})

    def _set_back(self, names: Iterable[str]) -> None:
        with session(self, f"server {self.name}") as server:
            for name in names:
                alter_system(server, name, self.found.get(name))
            reload_configuration(server)

    def _configure_stopped(self, former: dict[str, str]) -> None:
        """Bring the file of a server that is down to the declared settings, before its first start too."""
        rollback.write_stopped(self.machine, self.data, self.settings, former)
        if self.recovery == "standby":
            self.machine.write(self.data / "standby.signal", b"", mode=0o600)

    def _alter(self, server: Session, live: Self) -> None:
        for name in sorted(live.settings.keys() - self.settings.keys()):
            alter_system(server, name, self.found.get(name))
        for name, value in sorted(self.settings.items()):
            if (
                name not in live.settings
                or not same_value(name, value, live.settings[name])
                or name in {*live.pending_reload, *live.pending_restart}
            ):
                alter_system(server, name, value)
        reload_configuration(server)

    def _start(self) -> Self:
        """Start, and make sure that it came up as what it should be."""
        start(self, self.name, self.binaries)
        live = self.read()
        if live is None or live.recovery != self.recovery:
            raise UserError(
                f"server {self.name} came up as {'a standby' if live and live.recovery == 'standby' else 'a primary'}, not as "
                "declared; it is left running for inspection"
            )
        if live.pending_restart:
            raise UserError(
                f"server {self.name} is always started with another {', '.join(live.pending_restart)} on its command line, "
                f"which overrides what the stack sets: remove that from what starts it (its unit, its container)"
            )
        return self
