"""Configuration parameters of a running server: what it runs with, what its files say, what has to happen until the two agree,
and how they are set. (PostgreSQL documentation, *pg_settings*, *pg_file_settings*.)"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tde_replication.errors import SqlError, UserError
from tde_replication.postgres.guc import LISTS, elements, same_value
from tde_replication.postgres.session import Session
from tde_replication.waiting import until

OF_A_SESSION = {"global", "database", "user", "database user", "client", "session"}
"""Sources of values that our own session has (ALTER ROLE … SET, application_name): they say nothing of the server's."""
COMMAND_LINE = "command line"
RELOAD_DEADLINE = 10.0


@dataclass(frozen=True)
class Parameter:
    name: str
    """In lower case."""
    declared: str
    value: str
    """What the server runs with, in the parameter's own unit; where our session has a value of its own, what it would have."""
    spelled: str | None
    """How the server writes what is declared, where it had to be asked."""
    kind: str
    """pg_settings.vartype; one that no library has claimed is a string."""
    source: str
    """pg_settings.source; empty for one that no library has claimed."""
    written: str | None
    """What its files say: the last line holds."""
    loaded: bool
    """Whether what they say is what it runs with or waits to run with."""
    waits: bool
    """Whether a changed value waits for a restart."""

    @property
    def shown(self) -> str:
        """As declared where it means the same, so that nothing but a real difference shows."""
        # With archive_mode off, the server shows no archive_command.
        if self._is(self.declared) or self.value in {self.spelled, "(disabled)"}:
            return self.declared
        # Others it puts into words of its own (wal_compression "on" is "pglz", wal_buffers "-1" is what it comes to): what it
        # made of this very text is what was wanted.
        taken = self.loaded and not self.waits and self.source not in {*OF_A_SESSION, COMMAND_LINE}
        return self.declared if taken and self._is_written else _without_secrets(self.name, self.value)

    @property
    def needs_reload(self) -> bool:
        """Whether it runs as declared, and would not after the next reload."""
        if self.waits or self.shown != self.declared:
            return False
        if self.written is None:
            return self.source == "configuration file"
        return not (self._is_written or self._is(self.written) or self.value == "(disabled)")

    @property
    def needs_restart(self) -> bool:
        """Whether it waits for one, or is not as declared because the server's command line outranks its files."""
        return self.waits or (self.source == COMMAND_LINE and self.shown != self.declared)

    def _is(self, text: str) -> bool:
        return same_value(self.name, text, self.value, self.kind)

    @property
    def _is_written(self) -> bool:
        return self.written is not None and same_value(self.name, self.declared, self.written)


def parameters(server: Session, declared: Mapping[str, str]) -> Iterator[Parameter]:
    """The parameters of these names (in any case)."""
    # The files first: to look at them tells the session which parameters wait for a restart.
    files = {
        name: others
        for name, *others in server.rows(
            "SELECT DISTINCT ON (lower(name)) lower(name), setting, "
            "coalesce((pg_stat_file(sourcefile, true)).modification <= pg_conf_load_time(), true) "
            "FROM pg_file_settings WHERE name IS NOT NULL ORDER BY lower(name), seqno DESC"
        )
    }
    found = server.rows(
        "SELECT wanted, coalesce(setting, current_setting(wanted, true), ''), boot_val, unit, coalesce(vartype, 'string'), "
        "coalesce(context, ''), coalesce(source, ''), coalesce(pending_restart, false) "
        "FROM unnest(%s::text[]) AS wanted LEFT JOIN pg_settings ON lower(name) = lower(wanted)",
        [list(declared)],
    )
    for name, setting, default, unit, kind, context, source, waits in found:
        written, unchanged = files.get(name.lower(), (None, True))
        value = setting if source not in OF_A_SESSION else default if written is None else written
        number = value.lstrip("-").replace(".", "", 1).isdigit()
        yield Parameter(
            name,
            declared[name],
            value + (_unit(unit) if unit and number else ""),
            None if unchanged else _spelled(server, name, declared[name], context),
            kind,
            source,
            written,
            unchanged or context == "postmaster",  # of which it would be known that it waits
            waits,
        )


def _spelled(server: Session, name: str, text: str, context: str) -> str | None:
    """How the server writes a value; None where a session may not set it. Local to the statement's own transaction."""
    if context not in {"user", "superuser"}:
        return None
    try:
        return str(server.value("SELECT set_config(%s, %s, true)", [name, text]))
    except SqlError:  # the server refuses the value; one that is gone has not answered
        return None


def _without_secrets(name: str, value: str) -> str:
    """What somebody else wrote into it may hold a password, as what pg_basebackup --write-recovery-conf writes does."""
    if name != "primary_conninfo":
        return value
    try:
        found = conninfo_to_dict(value)
    except psycopg.ProgrammingError:
        return "no connection string"
    return make_conninfo("", **{key: "(hidden)" if "password" in key else text for key, text in found.items()})


def _unit(unit: str) -> str:
    """pg_settings' unit as it is written behind a number: "8kB" counts blocks, which no number is written in."""
    return f"*{unit}" if unit[0].isdigit() else unit


def alter_system(server: Session, name: str, value: str | None) -> None:
    """Set a parameter in postgresql.auto.conf; None takes it out of there."""
    parameter = sql.SQL(".").join(sql.Identifier(part) for part in name.split("."))
    if value is None:
        server.rows(sql.SQL("ALTER SYSTEM RESET {}").format(parameter))
        return
    values = sql.SQL(", ").join(sql.Literal(part) for part in (elements(value) if name.lower() in LISTS else [value]))
    server.rows(sql.SQL("ALTER SYSTEM SET {} = {}").format(parameter, values))


def waiting(server: Session, names: Sequence[str]) -> list[str]:
    """Which of these parameters wait for a restart (names in lower case)."""
    rows = server.rows("SELECT name FROM pg_settings WHERE pending_restart AND lower(name) = ANY(%s)", [list(names)])
    return [name for (name,) in rows]


def reload_configuration(server: Session) -> None:
    """Reload, and wait until this session's server process has seen it: pg_reload_conf() only sends a signal."""
    before = server.value("SELECT pg_conf_load_time()")
    server.rows("SELECT pg_reload_conf()")
    if not until(lambda: server.value("SELECT pg_conf_load_time()") != before, seconds=RELOAD_DEADLINE):
        wrong = server.row(
            "SELECT sourcefile, sourceline, error FROM pg_file_settings WHERE error IS NOT NULL AND NOT applied"
        )
        why = f"line {wrong[1]} of {wrong[0]} is wrong ({wrong[2]}): correct that line" if wrong else "see its log"
        raise UserError(f"the server did not take up its configuration within {RELOAD_DEADLINE:g} s: {why}")
