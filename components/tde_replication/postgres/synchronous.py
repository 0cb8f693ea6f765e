"""Which standbys commits wait for: synchronous_standby_names on the primary (PostgreSQL documentation, *Synchronous
Replication*)."""

import re
from collections.abc import Iterator, Sequence
from typing import ClassVar, Literal, Self

from psycopg import sql
from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel

from tde_replication.errors import UserError
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.postgres.parameters import alter_system, reload_configuration
from tde_replication.postgres.session import Session, session
from tde_replication.records import Cost

PARAMETER = "synchronous_standby_names"
METHODS = {"quorum": "ANY", "priority": "FIRST"}
OURS = re.compile(r'(ANY|FIRST) \d+ \("[^"]+"(, "[^"]+")*\)')
NUMBER = re.compile(r"^\s*(?:first|any)?\s*(\d+)\s*\(", re.IGNORECASE)
"""In synchronous_standby_names: how many standbys a commit waits for."""
GO_ON, WAIT = "go on", "wait"
STREAMING = "SELECT application_name, sync_state FROM pg_stat_replication WHERE state = 'streaming'"


class Synchronous(BaseModel):
    """What a stack file declares."""

    model_config = ConfigDict(alias_generator=to_camel, populate_by_name=True, frozen=True)

    mode: Literal["quorum", "priority"]
    number: int
    standbys: list[str]
    """Names of the servers, which are the application names of their connections."""
    when_too_few: Literal["wait", "continue"] = "wait"

    def names(self, there: Sequence[str] | None = None) -> str:
        """The parameter's value: for all of `standbys`, or for those of them that are `there`."""
        meant = self.standbys if there is None else [name for name in self.standbys if name in there]
        if not meant:
            return ""
        listed = ", ".join(f'"{name}"' for name in meant)
        return f"{METHODS[self.mode]} {min(self.number, len(meant))} ({listed})"


def wanted(names: str) -> int:
    """How many standbys a commit waits for with this value."""
    if not names.strip():
        return 0
    found = NUMBER.match(names)
    return int(found[1]) if found else 1


def commits_wait(primary: Session) -> bool:
    """Whether fewer standbys stream than commits wait for."""
    there = sum(state in {"sync", "quorum"} for _, state in primary.known(STREAMING))
    [[names]] = primary.known("SELECT current_setting('synchronous_standby_names')")
    return there < wanted(names)


def let_go(primary: Session, declared: Synchronous | None, former: Synchronous | None) -> None:
    """Let commits go on that wait for standbys which are not declared any more, or which do not stream where that is said to be
    no reason to wait."""
    live = _live(primary)
    if declared is None:
        if former and _is_of(live, former.names()) and commits_wait(primary):
            _set(primary, None)
        return
    there = [name for name, _ in primary.rows(STREAMING)]
    weaker = declared.names(there)
    if wanted(weaker) >= declared.number:
        weaker = declared.names()
    elif declared.when_too_few == "wait":
        return
    if live != weaker and commits_wait(primary):
        _set(primary, weaker or None)


def forget(server: Session, *, ours_alone: bool) -> None:
    live = _live(server)
    if OURS.fullmatch(live) if ours_alone else live:
        _set(server, None)


def _is_of(live: str, names: str) -> bool:
    """Whether a value waits for no others than `names` does: as it was made here, or less of it."""
    return not live or bool(OURS.fullmatch(live) and set(_named(live)) <= set(_named(names)))


def _named(names: str) -> list[str]:
    return re.findall(r'"([^"]+)"', names)


def _live(server: Session) -> str:
    return str(server.value(sql.SQL("SELECT current_setting({})").format(sql.Literal(PARAMETER))))


def _set(server: Session, names: str | None) -> None:
    alter_system(server, PARAMETER, names)
    reload_configuration(server)


class SynchronousStandbys(OnPrimary):
    """Comes after all standbys stream: until then, commits would wait for nobody."""

    names: str
    """The value of synchronous_standby_names."""
    when_too_few: Literal["wait", "continue"] = "wait"
    commits: str = GO_ON
    """As `Topology` has it: what lets commits go on takes the parameter away, and it is set again here."""
    found: str = ""
    """What it was before."""

    computed: ClassVar[frozenset[str]] = frozenset({"found"})
    not_compared: ClassVar[frozenset[str]] = frozenset({"when_too_few"})
    # The next primary starts without the parameter: it is set there, also where its value stays the same.
    create_only: ClassVar[frozenset[str]] = OnPrimary.create_only - {"host", "data_directory"}

    @property
    def identity(self) -> str:
        return PARAMETER

    @property
    def _purpose(self) -> str:
        return "synchronous replication"

    def read(self) -> Self:
        with session(self, self._purpose) as primary:
            [[names]] = primary.known("SELECT current_setting('synchronous_standby_names')")
            waits = self.when_too_few == "continue" and commits_wait(primary)
            return self.replace(names=names, commits=WAIT if waits else GO_ON)

    def costs(self, live: Self | None) -> Iterator[Cost]:
        del live
        yield Cost(kind="reload")

    def create(self) -> Self:
        with session(self, self._purpose) as primary:
            before = _live(primary)
            self._bring(primary)
        return self.replace(found="" if before == self.names else before)

    def update(self, live: Self) -> Self:
        with session(self, self._purpose) as primary:
            self._bring(primary)
        return self.replace(found=live.found)

    def _bring(self, primary: Session) -> None:
        _set(primary, self.names)
        if _live(primary) != self.names:
            raise UserError(
                f"{self._purpose}: {PARAMETER} stays {_live(primary)!r}: the server's command line overrides what is set. Remove "
                "it there"
            )

    def delete(self) -> None:
        with session(self, self._purpose) as primary:
            # Another value is somebody else's; one that waits for fewer is ours: commits went on by it.
            if _is_of(_live(primary), self.names):
                _set(primary, self.found or None)
