"""Brings a former primary that has WAL of its own back to where it parted from the next one, by pg_rewind.

pg_rewind changes data in place, and what it leaves after a failure cannot be used. So it works on a copy: the data stays as it is
until the copy is whole and takes its place. (PostgreSQL documentation, *pg_rewind*.)
"""

import json
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import LiteralString

from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tde_replication.errors import CommandFailed, Conflict, UserError
from tde_replication.hosts.base import Host
from tde_replication.postgres.copying import Copy, amount
from tde_replication.postgres.guc import values_in
from tde_replication.postgres.rewind_checks import RewindChecks
from tde_replication.postgres.server import Server
from tde_replication.postgres.session import Session
from tde_replication.postgres.starting import start
from tde_replication.postgres.topology_server import DEMOTED, NOTE as SWITCHOVER, PROMOTING, SIGNAL
from tde_replication.postgres.trial import AUTO_CONF
from tde_replication.postgres.upstream import KEEPALIVE
from tde_replication.progress import note, progress

DEADLINE = 7 * 24 * 3600.0
GRANTED = "pgsql_tmp.tde-replication-rewind"
"""In the data directory, as long as the replication role may read files of the primary: which functions were granted to it."""
FUNCTIONS: tuple[LiteralString, ...] = (
    "pg_catalog.pg_ls_dir(text, boolean, boolean)",
    "pg_catalog.pg_stat_file(text, boolean)",
    "pg_catalog.pg_read_binary_file(text)",
    "pg_catalog.pg_read_binary_file(text, bigint, bigint, boolean)",
)
"""What pg_rewind calls that is not everybody's (PostgreSQL documentation, *pg_rewind*, Notes)."""
OF_THE_DATABASE = {
    *("PG_VERSION", "base", "global", "backup_label", "backup_label.old", "backup_manifest", "current_logfiles"),
    *(
        "pg_commit_ts",
        "pg_dynshmem",
        "pg_logical",
        "pg_multixact",
        "pg_notify",
        "pg_replslot",
        "pg_serial",
        "pg_snapshots",
    ),
    *("pg_stat", "pg_stat_tmp", "pg_subtrans", "pg_tblspc", "pg_tde", "pg_twophase", "pg_wal", "pg_xact"),
    *("postmaster.opts", "postmaster.pid", "tablespace_map", "tablespace_map.old"),
}
"""Names in a data directory. All others are the server's own: its configuration, certificates, the marker of its stack."""
UNCLEAN = "target server must be shut down cleanly"
"""What it says, without --dry-run, of a server that runs or was killed, once all that it asks before is well."""
PASSING = {SIGNAL, "recovery.signal", DEMOTED, SWITCHOVER, PROMOTING, GRANTED}
"""Its own too, but of what it was before."""


@dataclass(frozen=True)
class Rewind(RewindChecks):
    def run(self) -> None:
        if refusal := self.refusal():
            raise Conflict(refusal)
        names, running = self.machine.listing(self.path), self.machine.serves(self.path)
        with self._granted():
            self._try()
        progress(f"{self.what}: it stops")
        self.clone.stop()
        try:
            self._make_copy()
            with self._granted():
                self._rewind_copy()
            self._put_own_files_back()
        except UserError as why:
            raise UserError(self.failed(self._as_before(str(why).rstrip("."), running=running))) from None
        except BaseException:  # a full disk, which no tool put into a sentence
            self._as_before("", running=running)
            raise
        follows = SIGNAL in names and self._is_told_its_primary()
        with self.clone.replaced_by_draft():
            note(f"{self.clone.name} is rewound to {self.source}: it had WAL of its own since {self.fork}")
            if running and follows:  # else its `Server` starts it, with other settings
                self._start()

    @property
    def copy(self) -> PurePosixPath:
        return self.clone.draft

    @property
    def _temporary(self) -> PurePosixPath:
        return temporary(self.path)

    def _try(self) -> None:
        """Have it do all that it does before it changes anything, as long as the server runs: one that has diverged may not start
        again once it is stopped."""
        try:
            self._run_program(self.path, "--dry-run")
        except CommandFailed as failure:
            if UNCLEAN not in failure.output:
                raise UserError(self.failed(_cause(failure))) from None

    def _run_program(self, directory: PurePosixPath, *more: str) -> None:
        clone = self.clone
        source = make_conninfo(clone.upstream.conninfo("tde-replication", self.database), **KEEPALIVE)
        if clone.encrypted:  # pg_tde_rewind puts a copy of the primary's key files there: not where others come by
            self.machine.make_directory(self._temporary)
        try:
            self.machine.run(
                [
                    *(str(self.binaries / self.program), f"--target-pgdata={directory}", f"--source-server={source}"),
                    *("--progress", *more),
                ],
                deadline=DEADLINE,
                directory=directory,  # the token's path counts from the data directory
                environment={"TMPDIR": str(self._temporary)} if clone.encrypted else None,
                on_line=Copy(self.what).tell,
            )
        finally:
            if clone.encrypted:
                self.machine.remove(self._temporary)

    def _make_copy(self) -> None:
        self._discard()
        progress(f"{self.what}: its data is copied ({amount(self.size)})")
        command = ["cp", "--archive", "--reflink=auto", "--", str(self.path), str(self.copy)]
        self.machine.run(command, deadline=DEADLINE)
        # pg_rewind first has an unclean server recover in single-user mode, which no standby does, nor one that seems to run.
        for name in (SIGNAL, "recovery.signal", "postmaster.pid", "postmaster.opts", GRANTED):
            self.machine.remove(self.copy / name)

    def _rewind_copy(self) -> None:
        progress(f"{self.what}: what differs is copied")
        try:
            self._run_program(self.copy)
        except CommandFailed as failure:
            raise UserError(_cause(failure)) from None
        if not self.machine.status(self.copy / "backup_label"):
            raise UserError(f"{self.program} finds nothing to rewind, and the two are not one")

    def _put_own_files_back(self) -> None:
        """pg_rewind has copied the primary's, and removed what the primary has not."""
        for name in self.machine.listing(self.copy):
            if name not in OF_THE_DATABASE:
                self.machine.remove(self.copy / name)
        own = [
            str(self.path / name) for name in self.machine.listing(self.path) if name not in OF_THE_DATABASE | PASSING
        ]
        self.machine.run(["cp", "--archive", "--", *own, f"{self.copy}/"], deadline=DEADLINE)
        self.machine.write(self.copy / SIGNAL, b"", mode=0o600)
        self.machine.run(["sync", "--file-system", "--", str(self.copy)], deadline=DEADLINE)

    def _as_before(self, why: str, *, running: bool) -> str:
        """The sentence of a failure, with what could not be brought back."""
        left = ""
        with suppress(UserError):  # the next run removes it
            self._discard()
        if running:
            try:
                self._start()
            except UserError as problem:
                left = f". {self.clone.name}, which ran, could not be started again ({str(problem).rstrip('.')})"
        return f"{why}{left}"

    def _discard(self) -> None:
        self.machine.remove(self.copy)
        if self.clone.encrypted:
            self.machine.remove(self._temporary)

    def _start(self) -> None:
        clone = self.clone
        server = Server(
            host=clone.host,
            data_directory=clone.data_directory,
            system_identifier=clone.system_identifier or clone.primary_identifier,
            name=clone.name,
            binaries=clone.binaries,
            made_at="",
            settings={},
        )
        start(server, clone.name, clone.binaries)

    def _is_told_its_primary(self) -> bool:
        """Whether its own files lead it to this primary: with others, it would wait in vain until it is consistent."""
        said = values_in((self.machine.read(self.path / AUTO_CONF) or b"").decode(errors="surrogateescape"))
        found = conninfo_to_dict(said.get("primary_conninfo", ""))
        upstream = self.clone.upstream
        return bool(found) and (
            bool(self.clone.sender_directory)
            or (found.get("host"), found.get("port")) == (upstream.host, str(upstream.port))
        )

    @contextmanager
    def _granted(self) -> Iterator[None]:
        """Let the replication role call what pg_rewind calls, and no longer than it runs."""
        role = self.clone.upstream.role
        give_back(
            self.machine, self.path, role, self.on_primary
        )  # a killed one has left them, perhaps in another database
        with self.on_primary(self.database) as primary:
            missing = [one for one in FUNCTIONS if not _may(primary, role, one)]
            content = json.dumps({"functions": missing, "database": self.database})
            self.machine.write(self.path / GRANTED, content.encode(), mode=0o600)
            for function in missing:
                grant = sql.SQL("GRANT EXECUTE ON FUNCTION {} TO {}")
                primary.rows(grant.format(sql.SQL(function), sql.Identifier(role)))
        try:
            yield
        finally:
            give_back(self.machine, self.path, role, self.on_primary)


def _cause(failure: CommandFailed) -> str:
    lines = [line for line in failure.output.splitlines() if "error:" in line or "FATAL:" in line]
    return "; ".join(lines) or failure.output.strip() or str(failure)


def give_back(
    host: Host, path: PurePosixPath, role: str, on_primary: Callable[[str], AbstractContextManager[Session]]
) -> None:
    """Take back from the replication role what a rewind of `path` has granted, where one was killed; `on_primary` opens a session
    in a database.

    The note lies on the standby's machine, which is not trusted: it says nothing of other roles. Another replication role since:
    what was granted to the former one goes with it.
    """
    try:
        noted = json.loads(host.read(path / GRANTED) or b"{}")
        database, functions = str(noted["database"]), list(noted["functions"])
    except (ValueError, KeyError, TypeError):
        return
    with on_primary(database) as primary:
        if primary.row("SELECT 1 FROM pg_roles WHERE rolname = %s", [role]):
            for function in FUNCTIONS:
                if function in functions and _may(primary, role, function):
                    revoke = sql.SQL("REVOKE EXECUTE ON FUNCTION {} FROM {}")
                    primary.rows(revoke.format(sql.SQL(function), sql.Identifier(role)))
    host.remove(path / GRANTED)


def temporary(path: PurePosixPath) -> PurePosixPath:
    """Where pg_tde_rewind has the primary's key files meanwhile."""
    return path.with_name(f".{path.name}.keys")


def _may(primary: Session, role: str, function: str) -> bool:
    return bool(primary.value("SELECT has_function_privilege(%s::name, %s::text, 'EXECUTE')", [role, function]))
