"""What pg_controldata says of a data directory, with or without a server on it."""

import re
from dataclasses import dataclass
from pathlib import PurePosixPath

from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.hosts.base import Host

DEADLINE = 30.0


@dataclass(frozen=True)
class ControlData:
    system_identifier: str
    state: str
    timeline: int
    redo_wal_file: str
    """The WAL file from which this server would replay."""
    segment_size: int
    """Bytes of one WAL file."""
    reached: str
    """The LSN up to which it surely has WAL: "0/3000158"."""

    def segment(self, wal_file: str) -> int:
        """The number of a WAL file, counted from the first one ever, whatever its timeline."""
        return int(wal_file[8:16], 16) * (2**32 // self.segment_size) + int(wal_file[16:], 16)

    @property
    def left_recovery(self) -> bool:
        """Whether it has been a primary: a clone that was started is "in archive recovery" or "shut down in recovery"."""
        return self.state in {"in production", "shut down", "shutting down", "in crash recovery"}


def position(lsn: str) -> int:
    """An LSN, as PostgreSQL writes it, as a number of bytes."""
    found = re.fullmatch(r"([0-9A-F]{1,8})/([0-9A-F]{1,8})", lsn, re.ASCII | re.IGNORECASE)
    if not found:
        raise UserError(f"{lsn[:40]!r} is not a position in WAL")
    return int(found[1], 16) << 32 | int(found[2], 16)


def control_command(binaries: PurePosixPath, data: PurePosixPath) -> list[str]:
    return [str(binaries / "pg_controldata"), "--pgdata", str(data)]


def control_data(host: Host, binaries: PurePosixPath, data: PurePosixPath) -> ControlData:
    """Read global/pg_control by the server's own tool.

    Raises `CommandFailed` if the file is missing (then this is not a data directory), and `Unavailable` if it cannot be read now.
    """
    try:
        output = host.output(control_command(binaries, data))
    except CommandFailed as failure:
        # A program that is missing or a disk that hangs says nothing of what is there.
        if host.status(data / "global" / "pg_control"):
            raise Unavailable(f"{data}: {failure}") from None
        raise
    lines = dict(re.findall(r"^([^:\n]+):\s*(.*)$", output, re.MULTILINE))
    try:
        found = ControlData(
            system_identifier=lines["Database system identifier"],
            state=lines["Database cluster state"],
            timeline=int(lines["Latest checkpoint's TimeLineID"]),
            redo_wal_file=lines["Latest checkpoint's REDO WAL file"],
            segment_size=int(lines["Bytes per WAL segment"]),
            reached=max(lines["Latest checkpoint location"], lines["Minimum recovery ending location"], key=position),
        )
        readable = re.fullmatch(r"[0-9A-F]{24}", found.redo_wal_file) and found.segment_size > 0
    except KeyError as missing:
        raise UserError(f"pg_controldata does not report {missing} of {data}") from None
    except ValueError:
        readable = None
    if not readable:
        raise UserError(f"pg_controldata printed something unreadable about {data}: check the programs in {binaries}")
    return found


def look_into(host: Host, binaries: PurePosixPath, data: PurePosixPath) -> None:
    """Ask in one script what the resources of one server want to know of its data directory, where a refresh reads them."""
    host.look(listings=[data, data / "pg_wal"], servers=[data], outputs=[control_command(binaries, data)])


EACH = 'data=$1; shift; for name; do "$0" -D "$data" -C "$name" || exit; done'
"""A script: the values of these parameters with which a server would start."""
FOLLOWED = {
    "max_connections": "max_connections",
    "max_worker_processes": "max_worker_processes",
    "max_wal_senders": "max_wal_senders",
    "max_prepared_xacts": "max_prepared_transactions",
    "max_locks_per_xact": "max_locks_per_transaction",
}
"""Parameters that a standby cannot have lower than its primary, by their names in pg_controldata."""


def too_low(host: Host, binaries: PurePosixPath, data: PurePosixPath) -> dict[str, str]:
    """What a standby must at least have to start, where the next start would give it less: its primary had that when it wrote
    what is replayed now."""
    output = host.output(control_command(binaries, data))
    least = {
        FOLLOWED[name]: int(value)
        for name, value in re.findall(r"^(\w+) setting:\s+(\d{1,9})$", output, re.MULTILINE | re.ASCII)
        if name in FOLLOWED
    }
    starts_with = host.output(["/bin/sh", "-c", EACH, str(binaries / "postgres"), str(data), *least]).split()
    try:
        return {
            name: str(value) for (name, value), now in zip(least.items(), starts_with, strict=True) if int(now) < value
        }
    except ValueError:
        raise UserError(
            f"the parameters that {data} would start with cannot be read: check the programs in {binaries}"
        ) from None
