"""One line of pg_hba.conf that lets a standby in, before other replication rules.

The parser is the server: ``pg_hba_file_rules`` tells file, line number and fields of the file as it is on disk, before any
reload. Whole lines are put in and taken out by number, the view is asked again, and only then is the file loaded. (PostgreSQL
documentation, *The pg_hba.conf File*; reload says nothing of a rejected file, so errors are looked for first.)
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePosixPath
from typing import ClassVar, Self

from tde_replication import hosts
from tde_replication.errors import Conflict, Unavailable, UserError
from tde_replication.postgres.hba_file import Line, first_rule, quoted, replication_rules, same_address, take_out
from tde_replication.postgres.on_primary import OnPrimary, Place
from tde_replication.postgres.parameters import reload_configuration
from tde_replication.postgres.session import LONG_SECONDS, Session, session
from tde_replication.records import Cost
from tde_replication.unasked import could_not_ask

FIRST = "before other replication rules"
MARK = "# tde-replication"
FOR = "# for"
"""Before the mark, the role and address that the line was made for: an edited one is known by them."""
END_STRANGERS = (
    "SELECT pg_terminate_backend(pid) FROM pg_locks JOIN pg_stat_activity USING (pid) JOIN pg_roles ON rolname = usename "
    "WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) "
    "AND classid = hashtext('tde-replication')::oid AND objid = hashtext('pg_hba.conf')::oid AND objsubid = 2 AND NOT rolsuper"
)
"""Whoever may connect can take an advisory lock: only superusers have anything to do with the one of editors of the file."""


class HbaRule(OnPrimary):
    connection_type: str = "host"
    """"host", or "hostssl" where the replication connection must be encrypted."""
    databases: list[str] = ["replication"]
    """"replication" for streaming; and the database that slots are synchronized from."""
    role: str
    address: str
    """A network in CIDR notation, or a host name."""
    method: str = "scram-sha-256"
    position: str = FIRST
    lines: int = 1
    loaded: bool = True
    """Whether the server has read the file since it was last changed."""
    upstreams: list[str] = []
    """Names of servers that standbys stream from by declaration: they have the line too."""
    upstream_places: dict[str, Place] = {}
    """By these names: host and data directory."""
    wrong: str = ""
    """The line that PostgreSQL would reject the file for at its next start, and why: none is wanted."""

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"role", "address"}
    not_compared: ClassVar[frozenset[str]] = frozenset({"upstream_places"})

    @property
    def identity(self) -> str:
        return f"{self.role} {self.address}"

    @property
    def _purpose(self) -> str:
        return f"pg_hba rule for {self.role} from {self.address}"

    def read(self) -> Self | None:
        if (live := self._read()) is None:
            return None
        return live.replace(upstreams=[name for name in self.upstreams if self._has(name)])

    def _read(self) -> Self | None:
        with session(self, self._purpose) as server:
            rules = replication_rules(server)
            mine = [rule for rule in rules if self._is_for_us(rule)]
            marked = self._marked(server)
            if not mine:
                # A line of ours that was edited for others is ours to put right, or to take away.
                return self.replace(position=f"missing: line {marked[0]} was edited") if marked else None
            first = next((rule for rule in mine if self._is_ours(rule)), mine[0])
            above = self._above(first, rules)
            stale = server.value(
                "SELECT coalesce(bool_or((pg_stat_file(file, true)).modification > pg_conf_load_time()), false) FROM "
                "(SELECT current_setting('hba_file') UNION SELECT file_name FROM pg_hba_file_rules) AS files (file)"
            )
            return self.replace(
                connection_type=first.type,
                databases=self.databases if self._covers(first.databases) else first.databases,
                method=first.method,
                position=f"after line {above[0].number} ({above[0]})" if above else FIRST,
                lines=max(1, len(marked)),
                loaded=not stale,
                wrong=self._wrong_line(server) or "",
            )

    def refusal(self, live: Self) -> str | None:
        return _rejected(live.wrong, "nothing is changed") if live.wrong else None

    def costs(self, live: Self | None) -> Iterator[Cost]:
        owner = self._other_owner() if live is None else None
        yield Cost(kind="by hand", text=owner) if owner else Cost(kind="reload")
        for name in self.upstreams:
            host, directory = self.upstream_places[name]
            yield Cost(kind="reload", server=name, host=host, data_directory=directory)

    def _other_owner(self) -> str | None:
        """Of a file that the server's account may not give back to its owner, a person should know before anything is made."""
        with session(self, self._purpose) as server:
            path = self.machine.real(PurePosixPath(server.value("SHOW hba_file")))
            found = self.machine.status(path)
            if not found or found.owner == self.machine.account or any(map(self._is_ours, replication_rules(server))):
                return None
        return f"{self._purpose}: {path} belongs to {found.owner}: `up` will not change it. {self._by_hand}"

    def create(self) -> Self:
        return self._everywhere()

    def update(self, live: Self) -> Self:
        del live
        return self._everywhere()

    def _everywhere(self) -> Self:
        """A standby that is not made yet gets the line with its base backup."""
        self._put()
        for name in self.upstreams:
            host, directory = self.upstream_places[name]
            if hosts.host(host).serves(PurePosixPath(directory)):
                self._on(name)._put()  # noqa: SLF001 - our own
        return self

    def _on(self, name: str) -> Self:
        """It, on one of the standbys that others stream from."""
        host, directory = self.upstream_places[name]
        return self.replace(host=host, data_directory=directory, others=[], upstreams=[])

    def _has(self, name: str) -> bool:
        """Whether that one has the line, as far as can be asked."""
        wanted = self._on(name)
        try:
            live = wanted.read()
        except Unavailable as why:
            could_not_ask(f"whether {name} has the {self._purpose}", why)
            return True
        return live is not None and not wanted.changed(live)

    def _put(self) -> Self:
        """Put one line of ours above all others, and load the file; what others wrote stays, and is never reached."""
        with self._editing() as (server, lines):
            rules = replication_rules(server)
            first = next((rule for rule in rules if self._is_for_us(rule) and self._is_ours(rule)), None)
            marked = self._marked(server)
            # As declared already, by us before or by somebody else: loading it is all that may be missing.
            if first is None or len(marked) > 1 or self._above(first, rules):
                for number in reversed(marked):
                    take_out(lines, number)
                top = first_rule(lines)
                if lines[:top] and not lines[top - 1].endswith(b"\n"):
                    lines[top - 1] += b"\n"
                lines.insert(top, self._text())
        return self

    @property
    def is_marked(self) -> bool:
        """Whether there is a line of ours."""
        with session(self, self._purpose) as server:
            return bool(self._marked(server))

    def delete(self) -> None:
        with self._editing() as (server, lines):
            for number in reversed(self._marked(server)):
                take_out(lines, number)

    def _marked(self, server: Session) -> list[int]:
        """The numbers of the lines that may be taken out: one without our mark was there before us, and one that says for whom
        it was made is ours whatever has been made of it since."""
        path, content = server.row(
            "SELECT current_setting('hba_file'), coalesce(pg_read_binary_file(current_setting('hba_file'), true), '')"
        ) or ("", b"")
        lines = content.splitlines()
        own = self._mark.encode()
        made = {
            n for n, line in enumerate(lines, 1) if line.rstrip().endswith(own) and not line.lstrip().startswith(b"#")
        }
        for rule in replication_rules(server):
            line = lines[rule.number - 1].rstrip() if self._is_only_for_us(rule, path) else b""
            if line.endswith(MARK.encode()) and FOR.encode() not in line:
                made.add(rule.number)
        return sorted(made)

    @property
    def _mark(self) -> str:
        """At the end of its line: for whom it was made."""
        return f"{FOR} {self.role} from {self.address} {MARK}"

    @contextmanager
    def _editing(self) -> Iterator[tuple[Session, list[bytes]]]:
        """Change the file's lines in place, one editor at a time; then check, and load it."""
        with session(self, self._purpose) as server:
            with server.within(locks=LONG_SECONDS):  # other rules of this stack, over a slow network, take their time
                server.rows(END_STRANGERS)
                server.rows("SELECT pg_advisory_lock(hashtext('tde-replication'), hashtext('pg_hba.conf'))")
            # A link stays, and so does what it leads to.
            path = self.machine.real(PurePosixPath(server.value("SHOW hba_file")))
            self._refuse_errors(server, "nothing was changed")
            before = self.machine.read(path) or b""
            lines = before.splitlines(keepends=True)
            yield server, lines
            after = b"".join(lines)
            if after != before:
                self._replace(path, after)
                try:
                    self._refuse_errors(server, "the file was put back as it was")
                except UserError:
                    self._replace(path, before)
                    raise
            reload_configuration(server)

    def _replace(self, path: PurePosixPath, content: bytes) -> None:
        try:
            self.machine.replace(path, content)
        except Conflict as refused:
            raise Conflict(f"{self._purpose}: {refused}. {self._by_hand}") from None

    @property
    def _by_hand(self) -> str:
        return (
            "Put this line there yourself, above all other replication rules, before `up` (and take it out before `destroy`): "
            f"{self._text().decode().strip()}"
        )

    def _refuse_errors(self, server: Session, consequence: str) -> None:
        if wrong := self._wrong_line(server):
            raise UserError(_rejected(wrong, consequence))

    def _wrong_line(self, server: Session) -> str | None:
        """The first line that PostgreSQL would reject the file for."""
        row = server.row(
            # What cannot match because the server has no TLS is merely told, and matters where ours is such a line.
            "SELECT file_name, line_number, error FROM pg_hba_file_rules "
            "WHERE error NOT LIKE '%% record cannot match because %%' OR starts_with(error, %s) LIMIT 1",
            [f"{self.connection_type} record"],
        )
        return f"line {row[1]} of {row[0]} is wrong ({row[2]})" if row else None

    def _text(self) -> bytes:
        databases = ",".join(["replication", *map(quoted, self.databases[1:])])
        fields = f"{self.connection_type:<7} {databases:<15} {quoted(self.role):<15} {self.address:<23} {self.method}"
        return f"{fields}   {self._mark}\n".encode()

    def _is_for_us(self, rule: Line) -> bool:
        return self.role in rule.users and same_address(rule.address, self.address)

    def _is_ours(self, rule: Line) -> bool:
        return (
            rule.users == [self.role]
            and rule.type == self.connection_type
            and rule.method == self.method
            and self._covers(rule.databases)
        )

    def _covers(self, databases: list[str]) -> bool:
        """Whether a line with these databases is good for what is declared."""
        return {*self.databases} <= {*databases} or ("all" in databases and "replication" in databases)

    def _is_only_for_us(self, rule: Line, path: str) -> bool:
        """Whether it is in the file itself, and lets nobody else in."""
        return (
            rule.file == path
            and rule.users == [self.role]
            and rule.databases == ["replication"]
            and same_address(rule.address, self.address)
        )

    def _above(self, first: Line, rules: list[Line]) -> list[Line]:
        """What is tried before `first`; lines of ours, for other standbys, do not matter."""
        return [rule for rule in rules if rule.rule < first.rule and not self._is_ours(rule)]


def _rejected(wrong: str, consequence: str) -> str:
    return f"{wrong}: PostgreSQL would reject the file, so {consequence}. Correct that line"
