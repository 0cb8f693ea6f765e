"""A backup restored beside a server's own data directory, started so that it reaches nobody, and taken away again.

(pgBackRest documentation, *Restore Command*; PostgreSQL documentation, *Continuous Archiving and Point-in-Time Recovery*.)
"""

from collections import deque
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import PurePosixPath

from tde_replication.errors import CommandFailed, UserError
from tde_replication.hosts.base import Host
from tde_replication.postgres import pgbackrest
from tde_replication.postgres.guc import auto_conf
from tde_replication.postgres.session import Session, server_session
from tde_replication.progress import progress
from tde_replication.waiting import until

NAME = "restore-drill"
DEADLINE = 7 * 24 * 3600.0
STOP_DEADLINE = 120.0
SOCKET_BYTES = 107
"""That the path of a socket may have."""
ALONE = {
    "listen_addresses": "",
    # It archives nothing, streams from nobody, subscribes to nothing, and runs no code of others at its start.
    "archive_mode": "off",
    "archive_command": "",
    "primary_conninfo": "",
    "primary_slot_name": "",
    "max_wal_senders": "0",
    "max_logical_replication_workers": "0",
    "autovacuum": "off",
    # Nobody connects before the end of recovery, which then needs no more connections than the primary had.
    "hot_standby": "off",
    "recovery_target_timeline": "latest",
    # It is thrown away.
    "fsync": "off",
    "synchronous_commit": "off",
    "ssl": "off",
    "logging_collector": "off",
    "log_destination": "stderr",
    "lc_messages": "C",
}


def place(data: PurePosixPath) -> PurePosixPath:
    """Beside the data directory, so that pg_tde finds the server's token where it looks for it."""
    return data.with_name(f".{data.name}.{NAME}")


def tablespaces(data: PurePosixPath) -> PurePosixPath:
    return data.with_name(f".{data.name}.{NAME}-tablespaces")


def note_beside(data: PurePosixPath, cluster: str) -> PurePosixPath:
    """Where the last drill on this server is noted."""
    return data.with_name(note_name(cluster))


def note_name(cluster: str) -> str:
    return f"{cluster}.{NAME}.json"


def take_away(machine: Host, binaries: PurePosixPath, data: PurePosixPath) -> bool:
    """Remove what a drill beside `data` has made, or was just making; whether there was anything."""
    names = set(machine.listing(data.parent))
    made = [path for path in (place(data), tablespaces(data)) if path.name in names]
    if place(data) in made and machine.postmaster(place(data)):
        stop(machine, binaries, data)
    for path in made:
        machine.remove(path)
    return bool(made)


def stop(machine: Host, binaries: PurePosixPath, data: PurePosixPath) -> None:
    command = [
        str(binaries / "pg_ctl"),
        "stop",
        "-D",
        str(place(data)),
        "-m",
        "immediate",
        "-t",
        f"{STOP_DEADLINE:.0f}",
    ]
    try:
        machine.run(command, deadline=STOP_DEADLINE + 30)
    except CommandFailed:
        if machine.postmaster(place(data)):
            raise


@dataclass(frozen=True)
class Restore:
    machine: Host
    data: PurePosixPath
    """Of the server beside which it is made."""
    binaries: PurePosixPath
    stanza: str
    settings: Mapping[str, str]
    """Of the server: pg_tde's, and what recovery must have as the primary has it."""
    wrapped: bool
    """Whether WAL comes by pg_tde's wrapper."""
    sockets: str
    """A directory for its socket, where the path of its own is too long."""

    @property
    def path(self) -> PurePosixPath:
        return place(self.data)

    def restore(self, label: str) -> None:
        """The backup of this label. Raises `UserError`."""
        machine = self.machine
        machine.make_directory(self.path)
        machine.make_directory(tablespaces(self.data))
        where = [f"--pg1-path={self.path}", f"--tablespace-map-all={tablespaces(self.data)}", f"--set={label}"]
        # Whatever the configuration says for restores: nothing outside of these two directories is written.
        plain = ["--no-link-all", "--reset-link-map", "--reset-tablespace-map", "--no-delta"]
        try:
            pgbackrest.call(
                machine, self.stanza, [*where, *plain, "--type=default", "--archive-mode=off", "restore"], DEADLINE
            )
        except CommandFailed as why:
            raise UserError(f"pgBackRest did not restore {label}: {pgbackrest.told(why.output.splitlines())}") from None
        self._configure()

    def _configure(self) -> None:
        """As a server of its own: nothing that the backup says of configuration counts."""
        machine, path = self.machine, self.path
        wrapper = self.binaries if self.wrapped else None
        socket = str(path) if len(f"{path}/.s.PGSQL.65535.lock".encode()) <= SOCKET_BYTES else self.sockets
        own = {
            "unix_socket_directories": socket,
            "restore_command": pgbackrest.restore_command(self.stanza, path, wrapper),
            "cluster_name": NAME,
        }
        names = sorted({machine.account, *machine.administrators})
        for name, content in {
            "postgresql.conf": "",
            "postgresql.auto.conf": auto_conf("", {}, {**self.settings, **ALONE, **own}),
            "pg_hba.conf": "local all postgres peer map=owner\n",
            "pg_ident.conf": "".join(f'owner "{name}" postgres\n' for name in names),
            "recovery.signal": "",
        }.items():
            machine.write(path / name, content.encode(), mode=0o600)
        machine.remove(path / "standby.signal")

    @contextmanager
    def started(self) -> Iterator[None]:
        """It runs within, once it has recovered all that is archived. It ends with the process that waits for it."""
        lines: deque[str] = deque(maxlen=50)

        def tell(line: str) -> None:
            lines.append(line)
            if "restored log file" in line:
                progress(f"recovers: {line.partition('LOG:')[2].strip()}")

        command = [str(self.binaries / "postgres"), "-D", str(self.path)]
        with ThreadPoolExecutor(1) as background:
            ended = background.submit(
                copy_context().run, lambda: self.machine.run(command, deadline=DEADLINE, on_line=tell)
            )
            try:
                self._wait(ended, lines)
                yield
            finally:
                if not ended.done():
                    stop(self.machine, self.binaries, self.data)
                ended.exception()  # that it was ended is no error

    def _wait(self, ended: "Future[str]", lines: "deque[str]") -> None:
        def settled() -> bool:
            if ended.done():
                return True
            found = self.machine.postmaster(self.path)
            return found is not None and found.ready

        until(settled, seconds=DEADLINE)
        if ended.done():
            fatal = [line.partition("FATAL:")[2].strip() for line in lines if "FATAL:" in line]
            why = fatal[-1] if fatal else " ".join(list(lines)[-3:]) or str(ended.exception())
            raise UserError(f"the restored server did not start: {why}")

    @contextmanager
    def session(self, database: str | None = None) -> Iterator[Session]:
        with server_session(self.machine, self.path, "the restored server", database) as opened:
            yield opened
