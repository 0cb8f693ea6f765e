"""Declared configuration parameters as a running server has them: what it runs with, what its files say, what has to happen
until the two agree. (PostgreSQL documentation, *pg_settings*, *pg_file_settings*.)"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from components.postgres.guc import same_value
from components.postgres.session import Session

OF_A_SESSION = {"global", "database", "user", "database user", "client", "session"}
"""Sources of values that our own session has (ALTER ROLE … SET, application_name): they say nothing of the server's."""


@dataclass(frozen=True)
class Parameter:
    name: str
    """In lower case."""
    value: str
    """What the server runs with, in the parameter's own unit; where our session has a value of its own, what it would have."""
    kind: str
    """pg_settings.vartype; one that no library has claimed is a string."""
    source: str
    written: str | None
    """What its files say: the last line holds."""
    loaded: bool
    """Whether that file is as it was when the server last read it."""
    waits: bool
    """Whether a changed value waits for a restart."""

    def shown(self, declared: str) -> str:
        """As declared where it means the same, so that nothing but a real difference shows."""
        if same_value(self.name, declared, self.value, self.kind):
            return declared
        # With archive_mode off, the server shows no archive_command. Others it puts into words of its own (wal_compression
        # "on" is "pglz", wal_buffers "-1" is what it comes to): what it made of this very text is what was wanted.
        taken = self.loaded and not self.waits and self.source != "command line"
        as_written = self.written is not None and same_value(self.name, declared, self.written)
        return declared if self.value == "(disabled)" or (taken and as_written) else self.value

    def needs_reload(self, declared: str) -> bool:
        """Whether it runs as declared, and would not after the next reload."""
        if self.waits or self.shown(declared) != declared:
            return False
        if self.written is None:
            return self.source == "configuration file"
        return not (
            same_value(self.name, declared, self.written)
            or same_value(self.name, self.written, self.value, self.kind)
            or self.value == "(disabled)"
        )

    def needs_restart(self, declared: str) -> bool:
        """Whether it waits for one, or is not as declared because the command line of the server outranks its files."""
        return self.waits or (self.source == "command line" and self.shown(declared) != declared)


def parameters(server: Session, names: Iterable[str]) -> Iterator[Parameter]:
    """The parameters of these names (in lower case; PostgreSQL's own may be in any: TimeZone)."""
    # The files first: to look at them tells the session which parameters wait for a restart.
    written = {
        name: others
        for name, *others in server.rows(
            "SELECT DISTINCT ON (lower(name)) lower(name), setting, "
            "coalesce((pg_stat_file(sourcefile, true)).modification <= pg_conf_load_time(), true) "
            "FROM pg_file_settings WHERE name IS NOT NULL ORDER BY lower(name), seqno DESC"
        )
    }
    found = server.rows(
        "SELECT wanted, coalesce(setting, current_setting(wanted, true), ''), boot_val, unit, coalesce(vartype, 'string'), "
        "coalesce(source, ''), coalesce(pending_restart, false) "
        "FROM unnest(%s::text[]) AS wanted LEFT JOIN pg_settings ON lower(name) = wanted",
        [list(names)],
    )
    for name, setting, default, unit, kind, source, waits in found:
        text, loaded = written.get(name, (None, True))
        value = setting if source not in OF_A_SESSION else text if text is not None else default
        number = value.lstrip("-").replace(".", "", 1).isdigit()
        yield Parameter(name, value + (_unit(unit) if unit and number else ""), kind, source, text, loaded, waits)


def _unit(unit: str) -> str:
    """pg_settings' unit as it is written behind a number: "8kB" counts blocks, which no number is written in."""
    return f"*{unit}" if unit[0].isdigit() else unit
