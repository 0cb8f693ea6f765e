"""pgBackRest's stanza of the cluster: what its WAL and backups are kept under, in the repository that all servers share."""

from pathlib import PurePosixPath
from typing import ClassVar, Self

from tde_replication import hosts
from tde_replication.errors import AccessDenied, CommandFailed, Conflict, Unavailable, UserError
from tde_replication.hosts.base import Host
from tde_replication.postgres import pgbackrest
from tde_replication.postgres.data_directory import THIS
from tde_replication.postgres.on_primary import OnPrimary
from tde_replication.progress import note, progress
from tde_replication.unasked import could_not_ask

CREATE_DEADLINE = 300.0
CHECK_DEADLINE = 180.0
"""More than the minute that pgBackRest itself waits for a WAL file (archive-timeout)."""


class Stanza(OnPrimary):
    """Made by stanza-create, which takes over one that is of the same cluster; then proved: a WAL file of the primary arrives."""

    stanza: str
    holds: str = THIS
    """Which cluster it is of: "this cluster", or another one."""

    replaced_by: ClassVar[frozenset[str]] = OnPrimary.replaced_by | {"stanza"}

    @property
    def identity(self) -> str:
        return self.stanza

    def read(self) -> Self | None:
        try:
            found = pgbackrest.stanza(self.machine, self.stanza)
        except (CommandFailed, Unavailable) as why:
            could_not_ask(f"whether stanza {self.stanza} is in the repository", why)
            return self
        if found.problem:
            could_not_ask(f"whether stanza {self.stanza} is in the repository", UserError(found.problem))
            return self
        return None if found.missing else self.replace(holds=self._held(found))

    def _held(self, found: pgbackrest.Stanza) -> str:
        if found.system_identifier == self.system_identifier:
            return THIS
        return f"another cluster (system identifier {found.system_identifier})"

    def refusal(self, live: Self) -> str | None:
        return None if live.holds == THIS else of_another(self.stanza, live.holds)

    def create(self) -> Self:
        machine, data = self.machine, self.data
        found = self._asked(machine)
        if not found.missing and (holds := self._held(found)) != THIS:
            raise Conflict(of_another(self.stanza, holds))
        if found.missing:
            pgbackrest.run(machine, self.stanza, data, "stanza-create", deadline=CREATE_DEADLINE)
        for host, directory in self.others:
            self._expect_same_repository(hosts.host(host), PurePosixPath(directory))
        progress(f"stanza {self.stanza}: waits for a WAL file to arrive in the archive")
        pgbackrest.run(machine, self.stanza, data, "check", deadline=CHECK_DEADLINE)
        return self

    def _asked(self, machine: Host) -> pgbackrest.Stanza:
        try:
            return pgbackrest.stanza(machine, self.stanza)
        except CommandFailed as why:
            words = pgbackrest.told(why.output.splitlines())
            raise UserError(f"stanza {self.stanza}: `pgbackrest info` failed: {words}") from None

    def _expect_same_repository(self, machine: Host, data: PurePosixPath) -> None:
        """Of one that may be the primary next. One that is not there yet, or does not answer, is asked by a later preview."""
        try:
            if self.machine.is_same_place(machine) or not machine.listing(data):
                return
            found = pgbackrest.stanza(machine, self.stanza)
        except (Unavailable, AccessDenied, CommandFailed):
            return
        if found.missing:
            raise UserError(another_repository(self.stanza, f"the server in {data}"))

    def update(self, live: Self) -> Self:
        del live
        return self.create()

    def delete(self) -> None:
        note(f"stanza {self.stanza} stays in its repository, with all WAL and backups: nothing of it is removed")


def of_another(name: str, holds: str) -> str:
    return (
        f"stanza {name} is of {holds}: nothing is changed, and its backups stay. Name another stanza; or, where those backups "
        "are not needed any more, remove that stanza with `pgbackrest stanza-delete`"
    )


def another_repository(name: str, server: str) -> str:
    return (
        f"{server} does not find stanza {name}, which the primary has in its repository: all servers need one repository, which "
        "their pgBackRest configuration names"
    )
