"""What is against a rewind, and what it costs: asked before anything is touched, and each a sentence."""

import re
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from pathlib import PurePosixPath

from tde_replication import hosts
from tde_replication.errors import CommandFailed, UserError
from tde_replication.hosts.base import Host
from tde_replication.pg_tde_version import against_rewind
from tde_replication.postgres.base_backup import ClonedDirectory
from tde_replication.postgres.control import ControlData, control_command, position
from tde_replication.postgres.copying import amount
from tde_replication.postgres.disk import free_bytes
from tde_replication.postgres.following import OLDEST_WAL, WAL_FILE
from tde_replication.postgres.pg_tde import PgTde
from tde_replication.postgres.session import Session, server_session
from tde_replication.records import Cost

LIBRARIES = ("lib/pg_tde.so", "lib/postgresql/pg_tde.so")
"""Where pg_tde's library is installed, from the directory above that of the programs."""
NAMES_ITSELF = r"pg_tde [ -~]*[0-9]+\.[0-9]+\.[0-9]+"
TEXTS = """exec tr -cs '[:print:]' '\\n' <"$1" """
"""A script: all texts in a file. Not by grep, which an image with coreutils alone lacks."""
SIZE_DEADLINE = WAL_DEADLINE = 600.0
END_OF_WAL = re.compile(r"\bat ([0-9A-F]{1,8}/[0-9A-F]{1,8})")
"""In what pg_waldump says at the end of WAL: the last record, and where the next one would begin."""
WAL_GONE_HERE = "the WAL from which pg_rewind reads what has changed is gone from {}"


def program(*, encrypted: bool) -> str:
    return "pg_tde_rewind" if encrypted else "pg_rewind"


def against_programs(host: Host, binaries: PurePosixPath, *, encrypted: bool) -> str | None:
    """Why the programs there cannot rewind."""
    if program(encrypted=encrypted) not in host.listing(binaries):
        return f"there is no {program(encrypted=encrypted)} in {binaries}"
    return against_rewind(_installed(host, binaries)) if encrypted else None


def _installed(host: Host, binaries: PurePosixPath) -> str:
    """What the library of pg_tde there says of itself, whether a server runs or not; empty: nothing."""
    for place in (host.real(binaries / "postgres").parents[1] / name for name in LIBRARIES):
        if host.status(place):
            found = re.search(NAMES_ITSELF, host.output(["/bin/sh", "-c", TEXTS, "sh", str(place)]))
            return found[0] if found else ""
    return ""


@dataclass(frozen=True)
class RewindChecks:
    """Of the data directory of a server that has WAL which its primary has not."""

    clone: ClonedDirectory
    fork: str
    """Where the two parted: "0/5000148 of timeline 1"."""
    database: str
    """Where the queries of pg_rewind go, on the primary."""

    @property
    def machine(self) -> Host:
        return self.clone.machine

    @property
    def path(self) -> PurePosixPath:
        return self.clone.path

    @property
    def binaries(self) -> PurePosixPath:
        return PurePosixPath(self.clone.binaries)

    @property
    def program(self) -> str:
        return program(encrypted=self.clone.encrypted)

    @property
    def source(self) -> str:
        """The primary's name."""
        return self.clone.primary_name

    @property
    def what(self) -> str:
        return f"the rewind of {self.clone.name} to {self.source}"

    @property
    def _since(self) -> int:
        return position(self.fork.partition(" ")[0])

    @cached_property
    def size(self) -> int:
        """Bytes that a copy of the data takes."""
        said = self.machine.run(
            ["du", "--summarize", "--block-size=1", "--", str(self.path)], deadline=SIZE_DEADLINE
        ).split()
        if not said or not said[0].isdecimal():
            raise UserError(f"the size of {self.path} cannot be read: du printed something else")
        return int(said[0])

    def on_primary(self, database: str) -> AbstractContextManager[Session]:
        clone = self.clone
        return server_session(
            hosts.host(clone.primary_host), PurePosixPath(clone.primary_directory), self.what, database
        )

    def cost(self) -> Cost:
        clone, alone = self.clone, self._alone()
        has = "WAL" if alone is None else f"{amount(alone)} of WAL"
        own = f"{has} that no other server has (diverged since {self.fork})"
        becomes = "removed" if clone.disposable else "set aside"
        return Cost(
            kind="rewind",
            server=clone.name,
            text=f"{clone.name}: is rewound to {self.source} by {self.program}, because it has {own}; that is done on a copy of "
            f"its data ({amount(self.size)}), and the data as it is now is {becomes}",
            size=self.size,
            free=free_bytes(self.machine, self.path),
            loses=f"{own}, on {clone.name}" if clone.disposable else "",
        )

    def refusal(self) -> str | None:
        try:
            found = next(self._objections(), None)
        except UserError as unknown:
            found = f"it cannot be asked now whether that is possible ({str(unknown).rstrip('.')})"
        return self.refused(found) if found else None

    def refused(self, why: str) -> str:
        return (
            f"{self.what} (rejoin: rewind) cannot be made: {why}. Nothing is changed. Write rejoin: clone, and `up` clones "
            f"{self.clone.name} again"
        )

    def failed(self, why: str) -> str:
        return (
            f"{self.what} (rejoin: rewind) failed: {why}. Its data is as it was. Run `up` again; or write rejoin: clone, and "
            "`up` clones it again"
        )

    def _objections(self) -> Iterator[str]:
        clone = self.clone
        if why := against_programs(self.machine, self.binaries, encrypted=clone.encrypted):
            yield why
        if not self._tells_changes():
            yield f"{clone.name} has neither data checksums nor wal_log_hints, and its WAL does not hold all that has changed"
        if why := self._outside():
            yield why
        yield from self._against_wal(clone.control())
        with self.on_primary(self.database) as primary:
            if clone.encrypted and (why := against_rewind(PgTde(primary).version())):
                yield f"of {self.source}, {why}"
            if primary.value("SHOW full_page_writes") != "on":
                yield f"full_page_writes is off on {self.source}: set it to on there, and run this again"
        free = free_bytes(self.machine, self.path)
        if free is not None and free < self.size:
            yield (
                f"it is made on a copy of the data ({amount(self.size)}), and only {amount(free)} are free there. What was set "
                f"aside before is in {self.path}.set-aside-*"
            )

    def _tells_changes(self) -> bool:
        said = self.machine.output(control_command(self.binaries, self.path))
        found = dict(re.findall(r"^([^:\n]+):\s*(.*)$", said, re.MULTILINE))
        return found.get("Data page checksum version", "0") != "0" or found.get("wal_log_hints setting") == "on"

    def _outside(self) -> str | None:
        """A copy of the directory has its links too, and would be rewound in the very files that are to stay as they are."""
        links = [
            self.path / "pg_wal",
            *(self.path / "pg_tblspc" / oid for oid in self.machine.listing(self.path / "pg_tblspc")),
        ]
        for link in links:
            found = self.machine.status(link)
            if found and found.kind != "directory":
                return f"{link} is a link to a place outside of the data directory, of which no copy is made"
        return None

    def _against_wal(self, control: ControlData) -> Iterator[str]:
        names = self.machine.listing(self.path / "pg_wal")
        held = {control.segment(name) for name in names if re.fullmatch(WAL_FILE, name)}
        needed = {self._since // control.segment_size, (self._since - 1) // control.segment_size}
        if not needed <= held:
            yield WAL_GONE_HERE.format(self.clone.name)
        with self.clone.primary() as primary:
            [[oldest]] = primary.known(OLDEST_WAL)
        if max(needed) < control.segment(f"{control.timeline:08X}{oldest}"):
            yield f"the WAL that {self.clone.name} would need to follow is gone from {self.source}"

    def _alone(self) -> int | None:
        """Bytes of WAL since the two parted; None where that cannot be told."""
        clone = self.clone
        try:
            reached = position(clone.control().reached)
            if self.machine.serves(self.path):
                with server_session(self.machine, self.path, f"server {clone.name}") as server:
                    now = server.value(
                        "SELECT CASE WHEN pg_is_in_recovery() THEN greatest(pg_last_wal_receive_lsn(), pg_last_wal_replay_lsn()) "
                        "ELSE pg_current_wal_insert_lsn() END::text"
                    )
                reached = max(reached, position(now)) if now else reached
            elif not clone.encrypt_wal:  # what it wrote after its last checkpoint, before it ended without one
                reached = max(reached, self._end_of_wal())
        except UserError:
            return None
        return reached - self._since if reached > self._since else None

    def _end_of_wal(self) -> int:
        lsn, _, timeline = self.fork.partition(" of timeline ")
        command = [str(self.binaries / "pg_waldump"), "--quiet", f"--path={self.path / 'pg_wal'}"]
        try:
            self.machine.run([*command, f"--timeline={timeline}", f"--start={lsn}"], deadline=WAL_DEADLINE)
        except CommandFailed as end:  # there is always one, and it says where
            return max(map(position, END_OF_WAL.findall(end.output)), default=0)
        return 0
