"""A running server with its settings, as a primary or as a standby.

Settings lie in postgresql.auto.conf: written to the file before a start, by ALTER SYSTEM while the server runs, so that a value
set by hand is found and put back. (PostgreSQL documentation, *Parameter Interaction via the Configuration File*.)
"""

import time
from collections.abc import Iterable, Iterator
from typing import Self

from tde_replication.errors import CommandFailed, Conflict, Unavailable, UserError
from tde_replication.hosts.base import LOG
from tde_replication.postgres import rollback
from tde_replication.postgres.cipher import PARAMETER, recodes_wal
from tde_replication.postgres.control import FOLLOWED, control_data, too_low
from tde_replication.postgres.guc import same_value
from tde_replication.postgres.parameters import alter_system, reload_configuration, waiting
from tde_replication.postgres.rollback import recover, rolled_back
from tde_replication.postgres.server_state import ServerState
from tde_replication.postgres.session import Session, session
from tde_replication.postgres.starting import STOP_DEADLINE, refuse_wrong_files, restart_objected, start
from tde_replication.postgres.topology_server import DEMOTED
from tde_replication.postgres.trial import Trial
from tde_replication.progress import note
from tde_replication.records import Fact
from tde_replication.waiting import until

LOWER_DEADLINE = 60.0
DF_DEADLINE = 30.0


class Server(ServerState):
    """How it is made as declared, and taken away."""

    def facts(self) -> Iterator[Fact]:
        """How much WAL its disk has room for. (coreutils, *df invocation*.)"""
        command = ["df", "--output=avail", "--block-size=1", str(self.data / "pg_wal")]
        said = self.machine.run(command, deadline=DF_DEADLINE).split()
        if said and said[-1].isdecimal():
            yield Fact(kind="free", of=self.name, number=int(said[-1]))

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
        known = live if live.running else live.replace(settings={})
        return self.replace(found=self.set_before(self.settings))._bring(known, [])  # noqa: SLF001 - our own

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
            writes = self.recovery == "standby" and not server.value("SELECT pg_is_in_recovery()")
        if writes:  # another server is the primary
            self.machine.stop(self._bin, self.data, deadline=STOP_DEADLINE)
            return self._start_stopped(live.settings)
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
        began = time.monotonic()
        self.machine.stop(self._bin, self.data, deadline=STOP_DEADLINE)
        made = self._start_stopped(live.settings) if low else self._start()
        return made.replace(restart_seconds=round(time.monotonic() - began, 1))

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
                f"server {self.name} has not yet replayed the lower {names} of the primary, and could not start with the "
                "lower value. Run `up` again when it has caught up"
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
        wanted, gone = self.settings, set(former)
        if not self.ours:
            # What its postgresql.conf says already is not written a second time: `destroy` would leave that.
            changed = self._changed_settings(self.replace(settings=former))
            gone = former.keys() - self.settings.keys()
            wanted = {name: self.settings[name] for name in changed - gone}
            wanted |= {name: self.found[name] for name in gone & self.found.keys()}
        rollback.write_stopped(self.machine, self.data, wanted, gone)
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
        if self.recovery == "standby":  # its control file says so from now on
            self.machine.remove(self.data / DEMOTED)
        if live.pending_restart:
            raise UserError(
                f"server {self.name} is always started with another {', '.join(live.pending_restart)} on its command line, "
                f"which overrides what the stack sets: remove that from what starts it (its unit, its container)"
            )
        return self
