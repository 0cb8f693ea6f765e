"""What is against a switchover: asked before anything is touched, and each a sentence."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tde_replication.errors import AccessDenied, CommandFailed, Unavailable, UserError
from tde_replication.postgres.control import position
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.principal_key import SCOPES
from tde_replication.postgres.session import Session
from tde_replication.postgres.topology_server import Standing, TopologyServer

ACCEPT_LOSS = "TDE_REPLICATION_ACCEPT_LOSS"
"""An environment variable: the name of the server that may be promoted without what the former primary had written last."""
RECEIVED = "SELECT greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn())::text"
STATE = (
    "SELECT pg_is_wal_replay_paused(), current_setting('wal_level'), setting <> '0', current_setting(name) "
    "FROM pg_settings WHERE name = 'recovery_min_apply_delay'"
)
MOST_UNARCHIVED = 16
"""WAL files that a fast stop may have to archive first: a second or two."""
UNARCHIVED = """
SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name ~ '[.]ready$' AND current_setting('archive_mode') <> 'off'
"""
LOGICAL = "SELECT slot_name FROM pg_replication_slots WHERE slot_type = 'logical'"


def against_promotion(new: TopologyServer, old: TopologyServer, database: str, *, encryption: bool) -> Iterator[str]:
    """Why the next primary cannot be one."""
    standing = new.standing()
    if standing != "standby":
        why = {
            "primary": "also accepts writes: stop the one that must not, and run this again",
            "absent": f"is not there yet: run `up` with primary: {old.name} first, so that it is cloned",
            "silent": "does not answer: repair that, and run this again once it streams",
        }
        yield f"{new.name} {why.get(standing, 'does not run: start it, and run this again once it streams')}"
        return
    try:
        with new.session() as server:
            paused, wal_level, is_delayed, delay = server.row(STATE) or (False, "", False, "")
        if is_delayed:
            yield f"{new.name} replays {delay} late (recovery_min_apply_delay): it would first have to catch up"
        if paused:
            yield f"replay is paused on {new.name}: run SELECT pg_wal_replay_resume() there"
        if wal_level == "minimal":
            yield f"{new.name} has wal_level = minimal: no standby could follow it"
        if encryption:
            with new.session(database) as server:
                yield from _blind(new, server)
    except (Unavailable, AccessDenied) as why_not:
        yield f"{new.name} cannot be asked whether it can be the primary ({str(why_not).rstrip('.')})"


def _blind(new: TopologyServer, server: Session) -> Iterator[str]:
    """Whether it could not open the keys: its own check is what pg_tde goes by."""
    tde = PgTde(server)
    for name, scope in SCOPES.items():
        try:
            if scope.bound(tde):
                tde.call(scope.verify)
        except UserError as why:
            yield f"{new.name} cannot open the {name} key ({str(why).rstrip('.')}): repair its way to Vault first"


def against_demotion(old: TopologyServer, new: TopologyServer) -> Iterator[str]:
    """Why the running primary should not give up its part now."""
    if new.follows(old.name) != old.name:
        yield (
            f"{new.name} streams from {new.upstream}, and not from {old.name}: take upstream out of its settings, and run `up` "
            "before this"
        )
        return
    if old.restart == "refused":
        yield f"{old.name} must be stopped for it, and the stack says restart: refused: set restart: allowed for {old.name}"
    try:
        with old.session() as server:
            streams = server.row(
                "SELECT 1 FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid "
                "WHERE state = 'streaming' AND slot_name = %s",
                [new.slot],
            )
            backup = server.row("SELECT 1 FROM pg_stat_progress_basebackup")
            logical = {name for (name,) in server.rows(LOGICAL)}
            unarchived = int(server.value(UNARCHIVED))
        if not streams:
            yield f"{new.name} does not stream from {old.name}: what is written now would not be there. Repair that first"
        if backup:
            yield f"a base backup of {old.name} is running: run this again when it has ended"
        if unarchived > MOST_UNARCHIVED:
            yield (
                f"{unarchived} WAL files of {old.name} are not archived yet, and it archives them before it stops, while no "
                "server takes writes: repair its archive, or wait until it has caught up"
            )
        if logical:
            with new.session() as server:
                logical -= {name for (name,) in server.rows(LOGICAL)}
    except (Unavailable, AccessDenied) as why:
        yield f"{old.name} cannot be asked whether it can be stopped ({str(why).rstrip('.')})"
        return
    if logical:
        yield (
            f"{', '.join(sorted(logical))}: logical replication slots of {old.name} that {new.name} does not have: their "
            "subscribers would lose changes. Synchronize them (failover slots), or drop them"
        )


def behind(old: TopologyServer, new: TopologyServer) -> str:
    """How much WAL the next primary has yet to replay."""
    try:
        with old.session() as primary:
            now = primary.value("SELECT pg_current_wal_insert_lsn()::text")
        with new.session() as standby:
            count = standby.value("SELECT greatest(0, %s::pg_lsn - pg_last_wal_replay_lsn())::bigint", [now])
    except (Unavailable, AccessDenied):
        return "0 bytes" if old.standing() != "primary" else "an unknown amount"
    return f"{count} bytes" if count < 2**20 else f"{count / 2**20:.1f} MiB"


def not_following(old: TopologyServer, others: Sequence[TopologyServer]) -> list[str]:
    """Which of these do not stream from the primary: the next one holds no WAL for them from before."""
    try:
        with old.session() as primary:
            active = {name for (name,) in primary.rows("SELECT slot_name FROM pg_replication_slots WHERE active")}
    except (Unavailable, AccessDenied):
        return []
    return [server.name for server in others if server.slot not in active]


def has_all(old: TopologyServer, new: TopologyServer) -> bool:
    """Whether the next primary has received all that the former one has, up to the record that it wrote at its end."""
    lsn = received(new)
    match old.standing():
        case "standby":
            has = _at_its_end(old)
            return bool(lsn and has) and position(lsn or "") >= position(has or "")
        case "down" | "demoted":
            try:
                control = old.control()
            except (Unavailable, CommandFailed):
                return False
            # "reached" is where its last record begins.
            return bool(lsn) and control.state == "shut down" and position(lsn or "") > position(control.reached)
        case _:
            return False


def _at_its_end(server: TopologyServer) -> str | None:
    """The LSN that a standby has replayed to, where that is all that it has: else None.

    (PostgreSQL documentation, *Wait Events*: the startup process then waits for more.)
    """
    try:
        with server.session() as standby:
            found: str | None = standby.value(
                "SELECT pg_last_wal_replay_lsn()::text FROM pg_stat_activity WHERE backend_type = 'startup' "
                "AND wait_event IN ('RecoveryRetrieveRetryInterval', 'RecoveryWalStream')"
            )
            return found
    except (Unavailable, AccessDenied):
        return None


def received(server: TopologyServer) -> str | None:
    """The LSN up to which a standby has WAL; None where it does not say."""
    try:
        with server.session() as standby:
            found: str | None = standby.value(RECEIVED)
            return found
    except (Unavailable, AccessDenied):
        return None


@dataclass(frozen=True)
class Loss:
    """What may be lost with a primary that takes no writes any more, and has not sent everything."""

    old: TopologyServer
    new: TopologyServer
    servers: Sequence[TopologyServer]

    def refusal(self, standing: Standing) -> str | None:
        """Why it is not given up; None where a person has said so for this run."""
        others = [server for server in self.servers if server != self.old]
        own = [one for one in others if one.follows(self.old.name) == self.old.name]
        if standing == "silent" and (fed := [one.name for one in own if _is_fed(one)]):
            return (
                f"{self.old.name} does not answer here, and {', '.join(fed)} still receives WAL: it is alive. Make it reachable, "
                "and run this again"
            )
        if os.environ.get(ACCEPT_LOSS) == self.new.name:
            return None
        known = {server.name: lsn for server in others if (lsn := received(server))}
        mine = position(known[self.new.name]) if self.new.name in known else 0
        told = ", ".join(f"{name} has received WAL up to {lsn}" for name, lsn in known.items())
        most = max(known, key=lambda name: position(known[name]), default=self.new.name)
        more = position(known[most]) - mine if most in known else 0
        if more > 0:
            told += f". {most} has {more} bytes more than {self.new.name}: make {most} the primary instead"
        why = {"silent": "does not answer", "standby": "is a standby that has not sent all that it has"}
        return (
            f"{self.old.name} {why.get(standing, 'does not run')}, and what it had written last may be on no other server: "
            f"{told}. Start {self.old.name}, and run this again; or accept that loss for one run: "
            f"{ACCEPT_LOSS}={self.new.name} pulumi up"
        )


def _is_fed(server: TopologyServer) -> bool:
    try:
        with server.session() as standby:
            return standby.row("SELECT 1 FROM pg_stat_wal_receiver WHERE status = 'streaming'") is not None
    except (Unavailable, AccessDenied):
        return False
