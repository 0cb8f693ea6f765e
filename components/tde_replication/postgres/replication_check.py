"""Proof that a standby does what it is for; an update whose standby does not is a failed update."""

import time
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import PurePosixPath
from typing import ClassVar, Self

from psycopg import sql

from tde_replication import hosts
from tde_replication.errors import Unavailable, UserError
from tde_replication.hosts import facts
from tde_replication.postgres.control import position
from tde_replication.postgres.encryption_proof import EncryptionProof
from tde_replication.postgres.following import OLDEST_WAL, WAL_GONE, beyond, end_of
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.principal_key import SCOPES
from tde_replication.postgres.resource import OnServer
from tde_replication.postgres.session import Session, server_session, session
from tde_replication.progress import note, progress
from tde_replication.unasked import could_not_ask
from tde_replication.waiting import until

STREAM_DEADLINE = 60.0
"""Seconds until a started standby streams."""
RETURN_DEADLINE = 3.0
"""Seconds for a supervisor to start a standby that died."""
RETRY_SECONDS = 1.5
"""More than the second in which a standby asks again, see `wal_retrieve_retry_interval`."""
RECONNECT_DEADLINE = 3.0
"""Seconds for a running standby to come back after a restart of the primary: it tries every second."""
STREAMING = (
    "SELECT slot_name FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid "
    "WHERE state IN ('streaming', 'catchup')"
)
REPLAY_DEADLINE = 600.0
"""Seconds for a standby that is behind to replay anything at all: how long it takes to the end is for its size to say."""


class ReplicationCheck(OnServer):
    """On the standby (`host`, `data_directory`): it is in recovery, streams from its own slot, and replays; where pg_tde is in
    force it can open the key, and holds a table made with tde_heap on the primary as an encrypted one (where there is a default
    key: without, there can be no such table)."""

    standby: str
    slot: str
    made_at: str
    primary_host: str
    primary_directory: str
    sender_host: str = ""
    sender_directory: str = ""
    """The standby that it streams from; empty: the primary."""
    database: str = "postgres"
    """Where the table is made that must arrive encrypted."""
    encryption: bool = False
    key: str = ""
    vault: str = ""
    """The URL of the key provider: by another, it is proved anew that the standby can open the key."""
    streaming: str = "from its slot"
    """"from its slot", or what it does instead."""

    replaced_by: ClassVar[frozenset[str]] = OnServer.replaced_by | {"made_at", "slot"}

    @property
    def identity(self) -> str:
        return self.standby

    @property
    def _purpose(self) -> str:
        return f"standby {self.standby}"

    def _primary(self, database: str | None = None) -> AbstractContextManager[Session]:
        return server_session(
            hosts.host(self.primary_host),
            PurePosixPath(self.primary_directory),
            f"the primary of {self.standby}",
            database,
        )

    def _sender(self) -> AbstractContextManager[Session]:
        """The server that it streams from."""
        if not self.sender_directory:
            return self._primary()
        return server_session(
            hosts.host(self.sender_host), PurePosixPath(self.sender_directory), f"the upstream of {self.standby}"
        )

    def read(self) -> Self:
        """Whether it streams; a standby that is behind streams all the same, and one that is just reconnecting, or that
        replays what it has itself, will."""
        try:
            running = self.machine.serves(self.data)
        except Unavailable as why:
            could_not_ask(f"whether {self.standby} runs", why)
            running = False  # as far as anybody knows; the primary sees whether it streams
        try:
            with self._sender() as sender:
                streams = self._streams(sender)
                if not streams:
                    facts.doubt()
                    streams = until(lambda: self._streams(sender), seconds=RECONNECT_DEADLINE if running else 0)
        except Unavailable as why:
            could_not_ask(f"whether {self.standby} streams", why)
            return self.replace(
                streaming=f"not known: {'its upstream' if self.sender_directory else 'the primary'} does not answer"
            )
        streams = streams or (running and self._replays_its_own())
        return self.replace(streaming="from its slot" if streams else "no: nothing reads its slot")

    def _replays_its_own(self) -> bool:
        """Whether it replays WAL that it has: before it has done so, a standby that was started asks the primary for none.
        (PostgreSQL documentation, *Wait Events*: one that waits for the primary says so, for a second between two tries.)"""
        query = (
            "SELECT wait_event IS DISTINCT FROM 'RecoveryRetrieveRetryInterval' AND wait_event IS DISTINCT FROM "
            "'RecoveryWalStream' FROM pg_stat_activity WHERE backend_type = 'startup'"
        )
        with session(self, self._purpose) as standby:
            return not until(lambda: not standby.value(query), seconds=RETRY_SECONDS)

    def _streams(self, sender: Session) -> bool:
        return (self.slot,) in sender.known(STREAMING)

    def _comes_to_stream(self, sender: Session) -> bool:
        """Wait for it; not for a standby that has gone, and that nothing brings back."""
        up = time.monotonic()

        def settled() -> bool:
            nonlocal up
            if self.machine.serves(self.data):
                up = time.monotonic()
            return self._streams(sender) or time.monotonic() - up > RETURN_DEADLINE

        last, since = None, time.monotonic()
        try:
            if not until(settled, seconds=RECONNECT_DEADLINE) and (self._held_back(sender) or self._wal_gone(sender)):
                return False
            while not until(settled, seconds=STREAM_DEADLINE):
                if self._held_back(sender) or not self._replays_its_own():
                    return False
                if (replayed := self._position()) != last:
                    last, since = replayed, time.monotonic()
                if time.monotonic() - since > REPLAY_DEADLINE:
                    return False
                progress(
                    f"{self._purpose} replays WAL (its own, or the archive's) before it streams, to {replayed} by now"
                )
        except Unavailable:
            return False  # it went meanwhile
        return self._streams(sender)

    def _wal_gone(self, sender: Session) -> bool:
        """Whether what it asks for next is older than all WAL that is there, as on an upstream that was cloned again. Where it
        looks into an archive, it may get that there."""
        with session(self, self._purpose) as standby:
            if standby.value("SELECT current_setting('restore_command')"):
                return False
            asked = standby.value("SELECT pg_last_wal_receive_lsn()::text")
        if asked is None:  # it has yet to replay what it has itself
            return False
        size = sender.value("SELECT setting::bigint FROM pg_settings WHERE name = 'wal_segment_size'")
        [[oldest]] = sender.rows(OLDEST_WAL)
        first = position(f"{oldest[:8]}/{int(oldest[8:], 16) * size:X}")
        return bool(position(asked) // size < first // size)

    def _position(self) -> str:
        with session(self, self._purpose) as standby:
            return str(standby.value("SELECT pg_last_wal_replay_lsn()"))

    def _held_back(self, sender: Session) -> str | None:
        """How its delay keeps it from streaming, where it is told to replay late: it asks `sender` for nothing before it has
        replayed what it has, after a start, after a promotion of its upstream, and where that is another one by now."""
        query = (
            "SELECT current_setting('recovery_min_apply_delay'), (SELECT concat(sender_host, ':', sender_port) "
            "FROM pg_stat_wal_receiver WHERE status = 'streaming') FROM pg_stat_activity WHERE backend_type = 'startup' "
            "AND wait_event = 'RecoveryApplyDelay'"
        )
        with suppress(Unavailable), session(self, self._purpose) as standby:
            found = standby.row(query)
            if not found or self._streams(sender):
                return None
            late, former = found
            if former:
                return f"it streams from {former} for its delay of {late} (recovery_min_apply_delay) before it changes over"
            return f"it replays its local WAL with a delay of {late} (recovery_min_apply_delay) before it streams"
        return None

    def create(self) -> Self:
        with self._sender() as sender:
            if not self._comes_to_stream(sender):
                if late := self._held_back(sender):
                    note(f"{self._purpose} was not verified: {late}")
                    return self
                raise UserError(f"{self._purpose} does not stream from slot {self.slot}: {self._reason()}")
            source = self._primary() if self.sender_directory else nullcontext(sender)
            with source as primary, session(self, self._purpose) as standby:
                self._replayed(primary, standby)
        if self.encryption:
            with self._primary(self.database) as primary:
                self._check_encryption(primary)
        return self

    def update(self, live: Self) -> Self:
        del live
        return self.create()

    def delete(self) -> None:
        """Take away what a killed run may have left of its proof."""
        if self.encryption:
            with suppress(UserError), self._primary(self.database) as primary:
                EncryptionProof(self.slot).remove(primary)

    def _check_encryption(self, primary: Session) -> None:
        """The standby opens the server key by itself; where there is a default key, tables can be encrypted, and arrive so."""
        default = SCOPES["default"].bound(PgTde(primary))
        with session(self, self._purpose, self.database) as standby:
            if default and not _is_delayed(standby):
                self._check_table(primary, standby)
                return
            self._replayed(primary, standby)
            PgTde(standby).call(SCOPES["server"].verify)

    def _check_table(self, primary: Session, standby: Session) -> None:
        """A table made with tde_heap on the primary arrives encrypted, and the standby opens both keys."""
        proof = EncryptionProof(self.slot)
        with proof.made(primary):
            self._replayed(primary, standby)
            PgTde(standby).call(SCOPES["server"].verify)
            proof.check(primary, standby)

    def _replayed(self, primary: Session, standby: Session) -> None:
        """Wait until the standby has replayed all that the primary has written by now; has received it, where it replays late
        because it is told to."""
        # A message of our own: it is flushed, so it is sent at once, and no idle page end can be mistaken for a lag.
        written = primary.value("SELECT pg_logical_emit_message(true, 'tde-replication', 'check')")
        place = "receive" if _is_delayed(standby) else "replay"
        query = sql.SQL("SELECT pg_is_in_recovery(), {}::pg_lsn - pg_last_wal_{}_lsn()").format(
            sql.Literal(written), sql.SQL(place)
        )
        last, since = None, time.monotonic()

        def settled() -> bool:
            nonlocal last, since
            recovering, behind = standby.row(query) or (False, None)
            if behind != last:
                last, since = behind, time.monotonic()
            if recovering and behind is not None and behind > 0:
                progress(f"{self._purpose} is {behind / 2**20:.0f} MiB behind")
            return bool(recovering and behind is not None and behind <= 0)

        while not until(settled, seconds=1):
            if astray := self._astray(primary, standby):
                raise UserError(
                    f"{self._purpose} {astray}: it cannot follow. Run `up` again, which clones it again, or rewinds it where the "
                    "stack file says rejoin: rewind"
                )
            if time.monotonic() - since > REPLAY_DEADLINE:
                raise UserError(
                    f"{self._purpose} made no progress towards {written} for {REPLAY_DEADLINE:g} s: {self._reason()}"
                )

    def _astray(self, primary: Session, standby: Session) -> str | None:
        """What it has that the primary has not, as a former one does that was given up: it asks in vain again and again."""
        found = standby.row("SELECT received_tli, pg_last_wal_replay_lsn()::text FROM pg_stat_wal_receiver")
        now = primary.value("SELECT left(pg_walfile_name(pg_current_wal_insert_lsn()), 8)")
        if not found or found[0] is None or found[0] >= int(now, 16):
            return None
        mine, reached = found
        end = end_of(primary, mine, int(now, 16))
        return beyond(reached, mine, end) if position(reached) > position(end) else None

    def _reason(self) -> str:
        """Why it does not stream, as the standby itself has it."""
        try:
            with session(self, self._purpose) as standby:
                if not standby.value("SELECT pg_is_in_recovery()"):
                    return "it is not in recovery (promoted, or started without standby.signal)"
                status = standby.row("SELECT status, sender_host, sender_port FROM pg_stat_wal_receiver")
                if status:
                    return f"its WAL receiver is {status[0]} from {status[1]}:{status[2]}"
                why = "its WAL receiver does not run: its log says why (password, pg_hba.conf, slot or network)"
                with self._sender() as sender:
                    return f"{WAL_GONE}: run `up` again, which clones it again" if self._wal_gone(sender) else why
        except Unavailable as problem:
            return str(problem)


def _is_delayed(standby: Session) -> bool:
    return bool(standby.value("SELECT setting <> '0' FROM pg_settings WHERE name = 'recovery_min_apply_delay'"))
