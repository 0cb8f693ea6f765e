"""Rewrites tables with another access method, each in a transaction of its own: whatever ends it, a table is as it was, or done.

ALTER TABLE … SET ACCESS METHOD holds an ACCESS EXCLUSIVE lock for the whole rewrite. While such a lock is waited for, everybody
else waits behind it; so it is waited for briefly, and again after a pause.

What the owner of a table has written may run in it: functions of index expressions and predicates, by PostgreSQL itself, as the
owner and restricted to that (`SECURITY_RESTRICTED_OPERATION`); no others, as of generated columns or constraints. Event triggers,
which pg_tde needs, run as the superuser, so all of them must be a superuser's.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tde_replication.errors import SqlError, UserError
from tde_replication.postgres.copying import amount
from tde_replication.postgres.event_triggers import event_triggers
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.session import LONG_SECONDS, Session
from tde_replication.postgres.tables import CLEAR, ENCRYPTED, Table
from tde_replication.progress import note, progress
from tde_replication.waiting import Limit, until

LOCK_SECONDS = 3.0
"""For one attempt to get a lock. It is longer than `session.WAIT_SECONDS`, after which its holder is looked up."""
PAUSE_SECONDS = 10.0
"""Between rounds in which no table could be locked."""
ROUNDS = 18
"""As many such rounds, one after the other, are tried: about four minutes."""
SLOWEST = 2**20
"""Bytes in a second; a rewrite that is slower is given up."""
PACE_SECONDS = 600.0
"""To wait for standbys that are behind, so that their slots are not lost."""
TRIED_AGAIN = {
    psycopg.errors.LockNotAvailable.sqlstate,
    psycopg.errors.DeadlockDetected.sqlstate,
    # Somebody renames or drops it at this moment.
    psycopg.errors.UndefinedTable.sqlstate,
    psycopg.errors.InvalidSchemaName.sqlstate,
}
SETTINGS = {
    # It refuses a change of a partitioned table, and of what is to be in clear.
    "pg_tde.enforce_encryption": "off",
    # The rewrite ends with whoever wanted it.
    "client_connection_check_interval": "10s",
}
NAME = "SELECT nspname::text, relname::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = relnamespace WHERE c.oid = %s"
TIGHTEST_SLOT = (
    "SELECT slot_name::text, safe_wal_size, "
    "(SELECT setting::bigint << 20 FROM pg_settings WHERE name = 'max_slot_wal_keep_size') "
    "FROM pg_replication_slots WHERE safe_wal_size IS NOT NULL ORDER BY safe_wal_size LIMIT 1"
)


def rewrite(server: Session, trees: Sequence[list[Table]]) -> None:
    """Bring the tables of `trees` (see `tables.survey`) to what they are to be, and note what was done.

    Raises `UserError` where some could not be locked, or a standby stayed so far behind that its slot would be lost. What was
    done by then stays.
    """
    if not trees:
        return
    # By them pg_tde also rewrites the sequences that a table owns.
    with event_triggers(server):
        for name, value in SETTINGS.items():
            server.rows("SELECT set_config(%s, %s, false)", [name, value])
        _Rewrite(server, trees).run()


class _Rewrite:
    def __init__(self, server: Session, trees: Sequence[list[Table]]) -> None:
        self._server = server
        self._tde = PgTde(server)
        self._trees = [list(tree) for tree in trees]
        self._tables = [table for tree in trees for table in tree]
        self._done = list[Table]()
        self._waits_for = ""

    def run(self) -> None:
        rounds = 0
        try:
            while self._trees:
                before = len(self._done)
                self._trees = [left for tree in self._trees if (left := self._tree(tree))]
                rounds = 0 if len(self._done) > before else rounds + 1
                if rounds == ROUNDS:
                    raise UserError(
                        f"{self._waits_for}. {len(self._done)} of {len(self._tables)} tables are rewritten; the next `up` goes "
                        "on with the others"
                    )
                if self._trees:
                    until(lambda: False, seconds=PAUSE_SECONDS)
        finally:
            self._tell()

    def _tell(self) -> None:
        for what, wanted in (("encrypted", True), ("in clear again", False)):
            if found := [table for table in self._done if table.wanted is wanted]:
                note(f"{self._server.purpose}: {total(found)} {'is' if len(found) == 1 else 'are'} {what}")

    def _tree(self, tree: list[Table]) -> list[Table]:
        """What is left of it: a parent that could not be locked keeps its children waiting."""
        for number, table in enumerate(tree):
            self._pace(table)
            number_and_size = f"{len(self._done) + 1} of {len(self._tables)}, {amount(table.size)}"
            done, everything = (amount(sum(one.size for one in tables)) for tables in (self._done, self._tables))
            progress(f"{self._server.purpose}: {table.name}, {number_and_size} ({done} of {everything} done)")
            try:
                self._rewrite(table)
            except SqlError as why:
                if why.sqlstate not in TRIED_AGAIN:
                    raise
                self._waits_for = f"{str(why).rstrip('.')} ({table.name})"
                progress(f"{self._server.purpose}: {table.name} is in use, and is tried again later")
                return tree[number:]
            self._done.append(table)
        return []

    def _rewrite(self, table: Table) -> None:
        server = self._server
        wanted = ENCRYPTED if table.wanted else CLEAR
        # One that was made with tde_heap and yet in clear is rewritten by a change of the method alone.
        methods = [CLEAR, wanted] if table.method == wanted else [wanted]
        seconds = LONG_SECONDS + table.size / SLOWEST
        with (
            server.within(seconds, locks=LOCK_SECONDS),
            self._until_interrupted(seconds),
            server.connection.transaction(),
        ):
            for method in methods:
                name = server.row(NAME, [table.oid])
                if name is None:
                    return  # it was dropped meanwhile
                statement = sql.SQL("ALTER TABLE {} SET ACCESS METHOD {}")
                server.rows(statement.format(sql.Identifier(*name), sql.Identifier(method)))
            if table.kind != "p" and self._tde.is_encrypted(table.oid) is not table.wanted:
                raise UserError(
                    f"{server.purpose}: {table.name} is not {'encrypted' if table.wanted else 'in clear'} after its rewrite, "
                    "which was taken back: check whether the event triggers of pg_tde are there and enabled (\\dy in psql)"
                )

    @contextmanager
    def _until_interrupted(self, seconds: float) -> Iterator[None]:
        connection = self._server.connection

        def give_up() -> None:
            connection.limit = float("-inf")

        with Limit(seconds, give_up) as limit:
            try:
                yield
            except UserError:
                limit.expect_not_interrupted(self._server.purpose)
                raise

    def _pace(self, table: Table) -> None:
        """Wait while the WAL of one more table would be too much for a standby that is behind. (One that alone is too much was
        told before.)"""
        said = ""

        def has_room() -> bool:
            nonlocal said
            found = self._server.row(TIGHTEST_SLOT)
            if not table.logged or found is None:
                return True
            slot, room, most = found
            said = f"replication slot {slot} has room for {amount(max(room, 0))} of WAL, of {amount(most)}"
            if room >= min(table.size, most // 2):
                return True
            progress(f"{self._server.purpose}: {table.name} waits for a standby: {said}")
            return False

        if not until(has_room, seconds=PACE_SECONDS):
            raise UserError(
                f"{self._server.purpose}: {said}, and {table.name} ({amount(table.size)}) writes about as much as its size: the "
                f"slot would be lost. {len(self._done)} of {len(self._tables)} tables are rewritten. Make sure that its "
                "standby follows, or drop the slot; the next `up` goes on with the others"
            )


def total(tables: Sequence[Table]) -> str:
    """As "3 tables (1.2 GiB)"."""
    count = "1 table" if len(tables) == 1 else f"{len(tables)} tables"
    return f"{count} ({amount(sum(table.size for table in tables))})"
