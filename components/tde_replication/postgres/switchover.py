"""The way of the primary's part from one server to another: first what is against it, then step by step.

The former primary is fenced before anything else (it would start as a standby), ends by a fast stop, which sends all that it has
written, and only a server that has all of it is promoted. (PostgreSQL documentation, *Failover*, *Server Shutdown*.)
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

from tde_replication.errors import Conflict, UserError
from tde_replication.postgres.hba_rule import HbaRule
from tde_replication.postgres.parameters import alter_system, reload_configuration
from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.server import Server
from tde_replication.postgres.session import Session
from tde_replication.postgres.starting import start
from tde_replication.postgres.switchover_checks import (
    Loss,
    against_demotion,
    against_promotion,
    behind,
    has_all,
    not_following,
)
from tde_replication.postgres.switchover_end import STOP_DEADLINE, drop_slots, inside
from tde_replication.postgres.synchronous import forget
from tde_replication.postgres.topology_server import DEMOTED, NOTE, PROMOTING, SIGNAL, Rule, Standing, TopologyServer
from tde_replication.progress import note, progress
from tde_replication.records import Cost
from tde_replication.waiting import until

RECEIVE_DEADLINE = 10.0
HOSTADDR = " hostaddr="
"""The last word of a connection string, for as long as it is there."""
SECONDS = 1.0
"""For how long no server takes writes: a fast stop after a checkpoint, and a promotion, take no longer."""
PROMOTE_SECONDS = 300
"""For a standby that has much to replay first."""


@dataclass(frozen=True)
class Switchover:
    old: TopologyServer
    new: TopologyServer
    servers: Sequence[TopologyServer]
    """Those that the stack file declares."""
    role: str
    rules: Sequence[Rule]
    database: str
    encryption: bool

    @property
    def _what(self) -> str:
        return f"{'failover' if self._lossy else 'switchover'} from {self.old.name} to {self.new.name}"

    @cached_property
    def _standing(self) -> Standing:
        """The former primary's."""
        return self.old.standing()

    @cached_property
    def _lossy(self) -> bool:
        """Whether what the former primary had written last may be lost: it takes no writes, and the next one has not all."""
        if self._standing == "standby":  # it was started again, and sends what it has as any standby does
            return not until(lambda: has_all(self.old, self.new), seconds=RECEIVE_DEADLINE)
        return self._standing != "primary" and not has_all(self.old, self.new)

    def refusal(self) -> str | None:
        """Why it is not made; nothing is changed then."""
        found = next(against_promotion(self.new, self.old, self.database, encryption=self.encryption), None)
        if not found and self._standing == "primary":
            found = next(against_demotion(self.old, self.new), None)
        elif not found and self._lossy:
            found = Loss(self.old, self.new, self.servers).refusal(self._standing)
        return f"{self._what}: {found}. Nothing is changed" if found else None

    def costs(self) -> Iterator[Cost]:
        """What each server goes through."""
        yield self._of_old()
        late = "" if self._lossy else f"; it is {behind(self.old, self.new)} behind"
        yield self._cost(self.new, "promotion", f"standby → primary{late}")
        others = [one for one in self.servers if one not in {self.old, self.new}]
        moving = [one for one in others if one.follows(self.old.name) == self.old.name]
        away = [] if self._lossy else not_following(self.old, moving)
        for one in moving:
            text = f"follows {self.new.name} instead of {self.old.name}, by a reload"
            if one.name in away:
                text += "; it does not stream now, so it may need a new clone afterwards"
            yield self._cost(one, "follow", text)

    def _of_old(self) -> Cost:
        if self._lossy:
            fenced = (
                "it does not answer: make sure that it cannot start as a primary again"
                if self._standing == "silent"
                else "it is kept from starting as a primary"
            )
            lost = f"what {self.old.name} had written last"
            text = f"{self._what}: {lost} may be lost; {fenced}"
            return self._cost(self.old, "switchover", text, loses=lost)
        stays = self.old in self.servers
        text = (
            f"primary → standby of {self.old.follows(self.new.name)}, without a new clone"
            if stays
            else "primary → taken away"
        )
        if self._standing != "primary":
            return self._cost(self.old, "switchover", f"{text}; it takes no writes now")
        text += (
            f"; writes are refused for about {SECONDS:g} s, while it stops and {self.new.name} is promoted; its clients must "
            "reconnect"
        )
        return self._cost(self.old, "switchover", text, seconds=SECONDS)

    @staticmethod
    def _cost(
        server: TopologyServer,
        kind: Literal["switchover", "promotion", "follow"],
        text: str,
        *,
        seconds: float | None = None,
        loses: str = "",
    ) -> Cost:
        return Cost(
            kind=kind,
            server=server.name,
            host=server.host,
            data_directory=server.data_directory,
            text=f"{server.name}: {text}",
            seconds=seconds,
            loses=loses,
        )

    def run(self) -> None:
        if refusal := self.refusal():
            raise Conflict(refusal)
        self._prepare()
        began = time.monotonic()
        if self._standing == "primary":
            with self.old.machine.stopped_soon():
                began = self._stop_old()
        elif self._standing not in {"silent", "absent"}:
            self._fence()
            # Somebody may have started it since it was looked at.
            if self.old.standing() in {"primary", "silent"} or not (self._lossy or has_all(self.old, self.new)):
                raise Conflict(f"{self._what}: {self.old.name} was started meanwhile. Run this again")
        self._promote()
        note(f"{self.new.name} is the primary: no writes were accepted for {time.monotonic() - began:.1f} s")

    def _prepare(self) -> None:
        """What the next primary needs from its first moment on: who may come in, and a slot for each that follows it."""
        there = inside(self.new)
        progress(f"{self.new.name} gets its pg_hba rules and slots")
        for rule in self.rules:
            HbaRule(**there, role=self.role, **rule.model_dump()).create()
        with self.new.session() as standby:
            # Of the time when it was the primary: no commit waits for those that followed it then.
            forget(standby, ours_alone=self.new.adopted)
            # What streams from it already has its slot there.
            used = {name for (name,) in standby.rows("SELECT slot_name FROM pg_replication_slots WHERE active")}
        for server in self.servers:
            if server != self.new and not server.upstream and server.slot not in used:
                ReplicationSlot(**there, slot=server.slot).create()

    def _keep_found(self) -> None:
        """Have the next primary look up no name while it is promoted: that of a stopped container can take ten seconds to turn
        out to be unknown, and its WAL receiver does not end before. A primary needs none: `Server` takes it away."""
        address = self.old.machine.passing_address(self.new.machine)
        if not address:
            return
        progress(f"{self.new.name} streams from the address of {self.old.name}, which has no name once it is stopped")
        with self.new.session() as standby:
            self._tell_upstream(standby, f"{HOSTADDR}{address}")
            streams = "SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming' AND position(%s IN conninfo) > 0"
            if not until(lambda: standby.row(streams, [f"{HOSTADDR}{address} "]) is not None, seconds=RECEIVE_DEADLINE):
                self._tell_upstream(standby, "")

    @staticmethod
    def _tell_upstream(standby: Session, more: str) -> None:
        known = standby.value("SELECT current_setting('primary_conninfo')")
        wanted = known.partition(HOSTADDR)[0] + more
        if wanted != known:
            alter_system(standby, "primary_conninfo", wanted)
            reload_configuration(standby)

    def _stop_old(self) -> float:
        """Returns when it took its last write. Where it has not sent everything, it goes on as before."""
        self._keep_found()
        with self.old.session() as server, server.within():
            progress(f"{self.old.name} writes a checkpoint, so that it stops quickly")
            server.rows("CHECKPOINT")
        self._fence()
        began = time.monotonic()
        progress(f"{self.old.name} stops")
        why = f"{self.new.name} has not received all that {self.old.name} had written"
        try:
            self.old.machine.stop(self.old.bin, self.old.data, deadline=STOP_DEADLINE)
            if until(lambda: has_all(self.old, self.new), seconds=RECEIVE_DEADLINE):
                return began
        except UserError as problem:
            why = str(problem).rstrip(".")
        raise UserError(f"{self._what}: {why}. {self._gone_back()}")

    def _fence(self) -> None:
        """Whatever starts it from now on, it accepts no writes."""
        for name in (NOTE, DEMOTED, SIGNAL):
            self.old.machine.write(self.old.data / name, b"", mode=0o600)

    def _gone_back(self) -> str:
        """The next primary has not been promoted: the former one goes on; a sentence that says so, or why not."""
        try:
            if self.old.standing() == "standby":  # somebody has started it since
                self.old.machine.stop(self.old.bin, self.old.data, deadline=STOP_DEADLINE)
            self.old.machine.remove(self.old.data / SIGNAL)
            if not self.old.machine.serves(self.old.data):
                server = Server(
                    **inside(self.old), name=self.old.name, binaries=self.old.binaries, made_at="", settings={}
                )
                start(server, self.old.name, self.old.binaries)
            if self.old.standing() != "primary":
                return f"{self.old.name} is not the primary again: run `up` with primary: {self.old.name} to go back"
            for name in (DEMOTED, NOTE):
                self.old.machine.remove(self.old.data / name)
            with self.new.session() as standby:
                self._tell_upstream(standby, "")
            drop_slots(self.new, self.new.strays(self.servers, self.old.name))
        except UserError as why:
            return (
                f"{self.old.name} could not be started again ({str(why).rstrip('.')}): run `up` with primary: {self.old.name} to "
                f"go back, or with primary: {self.new.name} to go on"
            )
        return f"{self.old.name} is the primary again, as before"

    def _promote(self) -> None:
        progress(f"{self.new.name} is promoted")
        # Whoever goes back from here on must stop it first: it may become a primary at any moment.
        self.new.machine.write(self.new.data / PROMOTING, b"", mode=0o600)
        with self.new.session() as server:
            # It says itself that it has waited in vain after a few seconds where its WAL receiver looks up a name meanwhile.
            server.rows("SELECT pg_promote(false)")
            if not until(lambda: not server.value("SELECT pg_is_in_recovery()"), seconds=PROMOTE_SECONDS):
                raise UserError(
                    f"{self._what}: {self.new.name} was promoted, but is still not the primary after {PROMOTE_SECONDS} s: see "
                    f"its log. {self.old.name} is kept from accepting writes; run `up` again to go on"
                )
        self.new.machine.remove(self.new.data / PROMOTING)
