"""pgBackRest as servers call it: the commands that archive WAL and fetch it, and what its repository says of a stanza.

Where the repository is, and how it is encrypted, is in its own configuration on each server, which nothing here reads or writes.
(pgBackRest documentation, *Command Reference*, *Info Command*; pg_tde documentation, *pg_tde_archive_decrypt*.)
"""

import re
import shlex
from collections.abc import Sequence
from pathlib import PurePosixPath

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.hosts.base import Host

PROGRAM = "pgbackrest"
MODE, COMMAND, LIBRARY, RESTORE = "archive_mode", "archive_command", "archive_library", "restore_command"
PARAMETERS = (MODE, COMMAND, LIBRARY, RESTORE)
"""Those that `archive` of the stack file decides, on every server."""
DECRYPT, ENCRYPT = "pg_tde_archive_decrypt", "pg_tde_restore_encrypt"
"""pg_tde's wrappers: each server has WAL keys of its own, so WAL leaves it decrypted, and is encrypted by who fetches it."""
QUIET = ("--log-level-console=off", "--log-level-stderr=error")
# An error in its configuration comes before these levels are known, and goes to standard output.
TOLD = r"""said=$("$@") || { status=$?; printf '%s\n' "$said" >&2; exit "$status"; }; printf '%s\n' "$said" """
OLDEST = {17: (2, 53), 18: (2, 55)}
"""By major version of PostgreSQL: the first pgBackRest that knows it. (pgBackRest documentation, *Release Notes*.)"""
READY, MISSING = frozenset({0, 2}), frozenset({1, 3})
"""Codes of a repository's status: the stanza is there, with backups or without; or it is not."""


class _Said(BaseModel):
    model_config = ConfigDict(populate_by_name=True, frozen=True, extra="ignore", hide_input_in_errors=True)


class Status(_Said):
    code: int
    message: str = ""


class Repository(_Said):
    key: int = 1
    cipher: str = "none"
    status: Status


class Cluster(_Said):
    """One that the stanza holds, or has held."""

    id: int
    repository: int = Field(1, alias="repo-key")
    system_identifier: int = Field(alias="system-id")
    version: str = ""


class Reference(_Said):
    """To one of them."""

    id: int
    repository: int = Field(1, alias="repo-key")


class Archive(_Said):
    id: str
    """The name of its directory: "18-1"."""
    database: Reference


class Times(_Said):
    start: int
    stop: int


class Sizes(_Said):
    size: int = 0
    """Bytes of the data directory."""


class Backup(_Said):
    label: str
    type: str
    timestamp: Times
    info: Sizes = Sizes()
    error: bool | None = None
    """Whether pages had wrong checksums."""


class Stanza(_Said):
    """What `pgbackrest info` says."""

    status: Status
    repositories: list[Repository] = Field(default=[], alias="repo")
    clusters: list[Cluster] = Field(default=[], alias="db")
    archives: list[Archive] = Field(default=[], alias="archive")
    backups: list[Backup] = Field(default=[], alias="backup")

    @property
    def missing(self) -> bool:
        """Whether a repository lacks it."""
        return any(one.status.code in MISSING for one in self.repositories)

    @property
    def problem(self) -> str:
        """Why its state is not known; empty where it is."""
        wrong = [one.status for one in self.repositories if one.status.code not in READY | MISSING]
        return wrong[0].message if wrong else "" if self.repositories else self.status.message

    @property
    def system_identifier(self) -> str:
        """Of the cluster that it is of now; empty: of none."""
        return str(max(self.clusters, key=lambda one: one.id).system_identifier) if self.clusters else ""

    @property
    def in_clear(self) -> list[int]:
        """The repositories that are not encrypted."""
        return [one.key for one in self.repositories if one.cipher == "none"]


def stanza(machine: Host, name: str) -> Stanza:
    """Raises `CommandFailed`, with pgBackRest's own words; and `Unavailable` where they cannot be understood."""
    said = machine.output(_telling(f"--stanza={name}", *QUIET, "info", "--output=json"))
    try:
        [found] = [Stanza.model_validate(one) for one in _json(said)]
    except (ValidationError, ValueError):
        raise Unavailable(f"pgBackRest's account of stanza {name} is not as expected") from None
    return found


def listing(machine: Host, name: str, repository: int, path: str) -> list[str]:
    """The names in a directory of a repository; none where it is not there. Raises `CommandFailed`."""
    where = [f"--repo={repository}", path]
    return machine.output(_telling(f"--stanza={name}", *QUIET, "repo-ls", *where)).splitlines()


def _json(said: str) -> list[object]:
    class Document(BaseModel):
        root: list[object]

    return Document.model_validate_json(f'{{"root": {said}}}').root


def version(machine: Host) -> tuple[int, int] | None:
    """Of the program on that machine; None where it is not installed."""
    try:
        said = machine.output([PROGRAM, "version"])
    except CommandFailed as why:
        if why.status in {126, 127}:
            return None
        raise
    found = re.search(r"(\d+)\.(\d+)", said)
    if not found:
        raise UserError(f"`pgbackrest version` does not say its version: {said.strip()[:100]}")
    return int(found[1]), int(found[2])


def archive_command(name: str, data: PurePosixPath, wrapper: PurePosixPath | None) -> str:
    """As `archive_command`; `wrapper`: the directory of pg_tde's programs, where WAL is encrypted."""
    return _command(name, data, "archive-push", '"%p"', wrapper and wrapper / DECRYPT)


def restore_command(name: str, data: PurePosixPath, wrapper: PurePosixPath | None) -> str:
    """As `restore_command`."""
    return _command(name, data, "archive-get", '%f "%p"', wrapper and wrapper / ENCRYPT)


def _command(name: str, data: PurePosixPath, what: str, arguments: str, wrapper: PurePosixPath | None) -> str:
    # PostgreSQL, and the wrapper like it, replaces what stands behind "%" and gives the rest to a shell.
    words = [PROGRAM, f"--stanza={name}", f"--pg1-path={data}"]
    inner = f"{_literal(shlex.join(words))} {what} {arguments}"
    return inner if wrapper is None else f"{_literal(shlex.quote(str(wrapper)))} %f %p {_literal(shlex.quote(inner))}"


def _literal(text: str) -> str:
    return text.replace("%", "%%")


def call(machine: Host, name: str, arguments: Sequence[str], deadline: float) -> None:
    """Raises `CommandFailed`, with pgBackRest's own words."""
    machine.run(_telling(f"--stanza={name}", *QUIET, *arguments), deadline=deadline)


def run(machine: Host, name: str, data: PurePosixPath, command: str, *, deadline: float) -> None:
    """One that asks the running server. Raises `UserError`, with pgBackRest's own words."""
    found = machine.postmaster(data)
    if found is None or not found.port:
        raise Unavailable(f"no server runs on {data}")
    place = [f"--pg1-path={data}", f"--pg1-port={found.port}", f"--pg1-socket-path={found.socket_directory}"]
    try:
        call(machine, name, [*place, "--pg1-user=postgres", command], deadline)
    except CommandFailed as why:
        raise UserError(f"stanza {name}: `pgbackrest {command}` failed: {told(why.output.splitlines())}") from None


def _telling(*arguments: str) -> list[str]:
    """A command whose errors are in its standard error, all of them."""
    return ["/bin/sh", "-c", TOLD, "sh", PROGRAM, *arguments]


def told(lines: Sequence[str]) -> str:
    """Its own words, on one line: without time, process and number."""
    texts = (re.sub(r"^.*?(ERROR|WARN): (\[\d+\]: )?", "", line).strip() for line in lines)
    return "; ".join(text.rstrip(".") for text in texts if text) or "it printed nothing"
