"""Proof that a standby does what it is for; an update whose standby does not is a failed update."""

import time
from pathlib import PurePosixPath
from typing import Any, ClassVar, Self

from psycopg import sql

from components import hosts
from components.errors import Problem, Unavailable
from components.postgres.resource import OnServer
from components.postgres.session import Session, server_session, session
from components.waiting import until

STREAM_DEADLINE = 60.0
"""Seconds until a started standby streams."""
RETURN_DEADLINE = 3.0
"""Seconds for a supervisor to start a standby that died."""
RECONNECT_DEADLINE = 3.0
"""Seconds for a running standby to come back after a restart of the primary: it tries every second."""
REPLAY_DEADLINE = 600.0
"""Seconds until it has replayed what the primary had written when asked."""


class ReplicationCheck(OnServer):
    """On the standby (`host`, `data_directory`): it is in recovery, streams from its own slot, and replays; where pg_tde is in
    force it can open the key, and holds a table made with tde_heap on the primary as an encrypted one (where there is a default
    key: without, there can be no such table)."""

    standby: str
    slot: str
    made_at: str
    primary_host: str
    primary_directory: str
    database: str = "postgres"
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

    def _primary(self, database: str = "postgres") -> Any:
        return server_session(
            hosts.host(self.primary_host),
            PurePosixPath(self.primary_directory),
            f"the primary of {self.standby}",
            database,
        )

    def read(self) -> Self:
        """Whether it streams; a standby that is behind streams all the same, and one that is just reconnecting will."""
        with self._primary() as primary:
            wait = RECONNECT_DEADLINE if self.machine.postmaster(self.data) else 0
            streams = until(lambda: self._streams(primary), seconds=wait)
            return self.but(streaming="from its slot" if streams else "no: nothing reads its slot")

    def _streams(self, primary: Session) -> bool:
        state = primary.value(
            "SELECT state FROM pg_stat_replication JOIN pg_replication_slots ON active_pid = pid WHERE slot_name = %s",
            [self.slot],
        )
        return state in {"streaming", "catchup"}

    def _comes_to_stream(self, primary: Session) -> bool:
        """Wait for it; not for a standby that has gone, and that nothing brings back."""
        up = time.monotonic()

        def settled() -> bool:
            nonlocal up
            if self.machine.postmaster(self.data):
                up = time.monotonic()
            return self._streams(primary) or time.monotonic() - up > RETURN_DEADLINE

        return until(settled, seconds=STREAM_DEADLINE) and self._streams(primary)

    def create(self) -> Self:
        with self._primary() as primary:
            if not self._comes_to_stream(primary):
                raise Problem(f"{self._purpose} does not stream from slot {self.slot}: {self._reason()}")
            with session(self, self._purpose) as standby:
                self._replayed(primary, standby)
        if self.encryption:
            with self._primary(self.database) as primary:
                self._check_encryption(primary)
        return self

    def update(self, live: Self) -> Self:
        del live
        return self.create()

    def delete(self) -> None:
        """A proof leaves nothing behind."""

    def _check_encryption(self, primary: Session) -> None:
        """The standby opens the server key by itself; where there is a default key, tables can be encrypted, and arrive so."""
        default, *_ = primary.shown("SELECT key_name FROM pg_tde_default_key_info()") or (None,)
        if default:
            self._check_table(primary)
            return
        with session(self, self._purpose, self.database) as standby:
            self._replayed(primary, standby)
            standby.rows("SELECT pg_tde_verify_server_key()")

    def _check_table(self, primary: Session) -> None:
        """A table made with tde_heap on the primary arrives encrypted, and the standby opens both keys."""
        table = sql.Identifier(f"tde_replication_check_{self.slot}")
        try:
            primary.rows(sql.SQL("DROP TABLE IF EXISTS {}").format(table))
            primary.rows(sql.SQL("CREATE TABLE {} USING tde_heap AS SELECT 42 AS proof").format(table))
            with session(self, self._purpose, self.database) as standby:
                self._replayed(primary, standby)
                standby.rows("SELECT pg_tde_verify_server_key()")
                encrypted = standby.value("SELECT pg_tde_is_encrypted(%s::regclass)", [table.as_string()])
                proof = standby.value(sql.SQL("SELECT proof FROM {}").format(table))
            if not encrypted or proof != 42:  # noqa: PLR2004
                raise Problem(f"{self._purpose}: a table made with tde_heap on the primary is not encrypted there")
        finally:
            primary.rows(sql.SQL("DROP TABLE IF EXISTS {}").format(table))

    def _replayed(self, primary: Session, standby: Session) -> None:
        """Wait until the standby has replayed all that the primary has written by now."""
        # A message of our own: it is flushed, so it is sent at once, and no idle page end can be mistaken for a lag.
        written = primary.value("SELECT pg_logical_emit_message(true, 'tde-replication', 'check')")
        arrived = sql.SQL("SELECT pg_is_in_recovery() AND pg_last_wal_replay_lsn() >= {}::pg_lsn").format(
            sql.Literal(written)
        )
        if not until(lambda: bool(standby.value(arrived)), seconds=REPLAY_DEADLINE):
            raise Problem(f"{self._purpose} has not replayed {written} within {REPLAY_DEADLINE:g} s: {self._reason()}")

    def _reason(self) -> str:
        """Why it does not stream, as the standby itself has it."""
        try:
            with session(self, self._purpose) as standby:
                if not standby.value("SELECT pg_is_in_recovery()"):
                    return "it is not in recovery (promoted, or started without standby.signal)"
                status = standby.row("SELECT status, sender_host, sender_port FROM pg_stat_wal_receiver")
                if status:
                    return f"its WAL receiver is {status[0]} from {status[1]}:{status[2]}"
                return "its WAL receiver does not run: its log says why (password, pg_hba.conf, slot or network)"
        except Unavailable as problem:
            return str(problem)
