"""A standby's data directory: a clone of the primary by pg_basebackup, and whether it can still follow."""

from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import PurePosixPath
from typing import ClassVar, Self

from psycopg.conninfo import make_conninfo

from tde_replication import hosts
from tde_replication.errors import CommandFailed, Unavailable, UserError
from tde_replication.postgres.archived import Archived
from tde_replication.postgres.cipher import OLDEST
from tde_replication.postgres.control import ControlData
from tde_replication.postgres.copying import Copy, amount
from tde_replication.postgres.data_directory import DataDirectory
from tde_replication.postgres.disk import free_bytes
from tde_replication.postgres.following import ASTRAY, IN_CLEAR, WAL_GONE, Clone
from tde_replication.postgres.inheritance import (
    ACCESS,
    AUTO_CONF,
    conf,
    configuration,
    hindrances,
    left_out,
    refuse_hindrances,
    sentence,
    tablespaces,
)
from tde_replication.postgres.session import Session, server_session
from tde_replication.postgres.upstream import KEEPALIVE, Upstream
from tde_replication.progress import note
from tde_replication.records import Cost, roughly
from tde_replication.unasked import could_not_ask
from tde_replication.values import Cipher
from tde_replication.waiting import until

PRIMARY_ONCE = "it was promoted, or started without standby.signal"
PRIMARY_UNTIL_ITS_END = "it was the primary, and did not stop cleanly: it may have WAL that no other server has"
CLUSTER_SIZE = "SELECT sum(pg_database_size(oid)) FROM pg_database"
TABLESPACE_FULL = (
    "A tablespace is cloned to where the primary has it, and what is there is never written over. Find out whose files these "
    "are, move them to another place"
)
CLONE_DEADLINE = 7 * 24 * 3600.0
SLOT_DEADLINE = 10.0
WAL_ENCRYPTED = b"pg_tde.wal_encrypt = 'on'\n"


class ClonedDirectory(DataDirectory):
    """A clone of the primary by the replication role, with WAL streamed through the standby's slot (checkpoint fast)."""

    origin: str
    """"base backup of" and the primary's name."""
    upstream: Upstream
    slot: str
    encrypted: bool = False
    """Whether pg_tde is used."""
    encrypt_wal: bool = False
    cipher: Cipher = "aes_128"
    """The cipher of the WAL that comes with the clone, where that is encrypted."""
    primary_host: str
    primary_directory: str
    primary_identifier: str
    """The primary's system identifier: a clone of another primary does not belong to this cluster."""
    sender_host: str = ""
    sender_directory: str = ""
    """The standby that it streams from, with its slot; empty: the primary. The base backup is of the primary all the same."""
    demoted: bool = False
    """Whether it was the primary before another server became it."""
    stanza: str = ""
    """What pgBackRest keeps the cluster's WAL under; empty: the stack declares no archive."""
    urn: str = ""
    """Its own, so that progress is shown in its row."""
    follows: str = "the primary"
    """Whom it can follow: "the primary"; else why it cannot."""

    called: ClassVar[str] = "BaseBackup"
    replaced_by: ClassVar[frozenset[str]] = frozenset({"host", "data_directory", "primary_identifier", "follows"})
    not_compared: ClassVar[frozenset[str]] = DataDirectory.not_compared | {
        *("origin", "upstream", "slot", "stanza", "encrypted", "encrypt_wal", "cipher", "urn", "demoted"),
        *("primary_host", "primary_directory", "sender_host", "sender_directory"),
    }

    @property
    def row(self) -> str:
        return self.urn

    def read(self) -> Self | None:
        self.look()
        if not self.machine.listing(self.path):
            return None
        try:
            clone = self.control()
        except CommandFailed:
            return self.replace(follows="nothing: it is not a data directory")
        return self.replace(follows=self._hindrance(clone) or "the primary")

    def costs(self, live: Self | None) -> Iterator[Cost]:
        """How much has to be copied, how long that takes, and what becomes of what is there."""
        if live is None and self.machine.listing(self.path):
            return  # it replaces `live`, of which that is told; or it is taken over
        size, free = self._needed(), None if live and self.disposable else self._free()
        seconds = size / self.backup_rate if self.backup_rate else None
        told = f"{self.name}: a new {self.origin}, {amount(size)}"
        if seconds is not None and self.backup_rate:
            told += f", about {roughly(seconds)} at the {amount(self.backup_rate)}/s of its last base backup"
        if free is not None and free < size:
            told += f" (only {amount(free)} are free there: it will not fit)"
        if live is None and self.machine.postmaster(self.path):
            told += "; its former directory was removed under its server, which is stopped"
        if live:
            told += f"; the old data is {'removed' if self.disposable else 'set aside'}"
            told += f"; {live.machine.leftovers}" if live.machine.leftovers and self._differs("host", live) else ""
        own = live.follows if live and self.disposable and live.follows not in {self.follows, WAL_GONE} else ""
        yield Cost(
            kind="clone",
            server=self.name,
            text=told,
            size=int(size),
            free=free,
            seconds=seconds,
            loses=f"what {self.name} has and the primary has not ({own})" if own else "",
        )

    def refusal(self, live: Self) -> str | None:
        """The old data, which may be the only copy that can still be read, is not set aside for a clone that cannot be made."""
        if live.follows == self.follows or not self.machine.listing(self.path):
            return None
        try:
            with self.primary() as primary:
                hindering = hindrances(primary)
                hindering += [
                    f"tablespace {name} is cloned to {directory}, which is not empty: stop {self.name}, move what is there away"
                    for name, directory in tablespaces(primary).items()
                    if self.machine.listing(PurePosixPath(directory))
                ]
            needed, free = self._needed(), self._free()
        except UserError as why:
            could_not_ask(f"whether a new clone of {self.name} can be made", why)
            return None
        if hindering:
            return f"{self.name} needs a new clone ({live.follows}): {'; '.join(hindering)}. Nothing is changed"
        if self.disposable or free is None or free >= needed:
            return None
        return (
            f"{self.name} needs a new clone ({live.follows}): {amount(needed)} beside its old data in {self.path}, which is set "
            f"aside, and only {amount(free)} are free there. Nothing is changed. Make room: what earlier clones left is in "
            f"{self.path}.set-aside-*"
        )

    def _needed(self) -> float:
        with self.primary() as primary, primary.within():
            return float(primary.value(CLUSTER_SIZE))

    def _free(self) -> int | None:
        return free_bytes(self.machine, self.path)

    def create(self) -> Self:
        return self._create(self._base_backup, self._hindrance)

    def _hindrance(self, clone: ControlData) -> str | None:
        """Why this clone cannot follow the primary by streaming; None where it can, or where the primary cannot be asked."""
        if clone.system_identifier != self.primary_identifier:
            return f"it is a clone of another cluster (system identifier {clone.system_identifier})"
        if clone.left_recovery and not self.machine.status(self.path / "backup_label"):
            if not self.demoted:
                return PRIMARY_ONCE
            if clone.state != "shut down":
                return PRIMARY_UNTIL_ITS_END
        found = self._as_clone(clone)
        try:
            return IN_CLEAR if self.encrypted and found.runs_without_pg_tde else found.missing()
        except Unavailable as why:
            could_not_ask(f"whether {self.name} can follow its primary", why)
            return None

    def _as_clone(self, control: ControlData) -> Clone:
        archived = Archived(self.machine, self.stanza, control.segment_size) if self.stanza else None
        was_primary = self.demoted and control.left_recovery
        return Clone(self.machine, self.path, control, self.slot, self.primary, self._sender, archived, was_primary)

    def fork(self) -> str:
        """Where it has left the way of its primary, where it has WAL of its own since: "0/5000148 of timeline 1"; else empty.

        Raises `Unavailable` where the primary cannot be asked.
        """
        diverged = self.follows in {PRIMARY_ONCE, PRIMARY_UNTIL_ITS_END} or self.follows.startswith(ASTRAY)
        return self._as_clone(self.control()).fork() if diverged else ""

    def primary(self) -> AbstractContextManager[Session]:
        return server_session(
            hosts.host(self.primary_host), PurePosixPath(self.primary_directory), f"the primary of {self.path}"
        )

    def _sender(self) -> AbstractContextManager[Session]:
        """The server that it streams from."""
        if not self.sender_directory:
            return self.primary()
        return server_session(
            hosts.host(self.sender_host), PurePosixPath(self.sender_directory), f"the upstream of {self.path}"
        )

    def _base_backup(self, target: PurePosixPath) -> int | None:
        self.machine.make_directory(target.parent)
        encryption = []
        if self.encrypt_wal:
            # pg_tde_basebackup -E needs the primary's keys in place, and opens them with the token at the path that they
            # name, relative to the directory it runs in.
            origin = hosts.host(self.primary_host)
            keys = PurePosixPath(self.primary_directory) / "pg_tde"
            self.machine.make_directory(target)
            for name in origin.listing(keys):
                self.machine.write(target / "pg_tde" / name, origin.read(keys / name) or b"", mode=0o600)
            # -E alone is the only form that pg_tde before 2.2 has: it takes the cipher of the server key.
            encryption = ["-E" if self.cipher == OLDEST else f"--encrypt-wal={self.cipher}"]
        with self.primary() as primary:
            refuse_hindrances(primary, str(self.path))
        if not self.sender_directory:
            self._wait_for_slot()
        copy = Copy(self.origin)
        try:
            self.machine.run(
                [
                    *(str(PurePosixPath(self.binaries) / self._tool()), "--pgdata", str(target)),
                    *("--dbname", make_conninfo(self.upstream.conninfo("tde-replication"), **KEEPALIVE)),
                    # One that streams from another standby has its slot there, and the backup one of its own.
                    *([] if self.sender_directory else [f"--slot={self.slot}"]),
                    *("--wal-method=stream", "--checkpoint=fast"),
                    f"--label=tde-replication: {self.name}, a {self.origin}",  # the primary's record of backups has it too
                    *("--verbose", "--progress", "--no-password"),
                    *encryption,
                ],
                deadline=CLONE_DEADLINE,
                directory=target if self.encrypt_wal else None,
                on_line=copy.tell,
            )
            rate = copy.rate
        except CommandFailed as failure:
            cause = next((line for line in failure.output.splitlines() if "error:" in line), failure.output.strip())
            left = "Nothing of it is left; `up` tries again"
            if "exists but is not empty" in cause:  # the draft was removed before
                left = f"{TABLESPACE_FULL}, and run `up` again"
            raise UserError(f"the {self.origin} to {self.path} failed: {cause}. {left}") from None
        self._configure(target)
        return rate

    def _configure(self, target: PurePosixPath) -> None:
        """Give it a configuration of its own (see `inheritance`). Who may come in is copied from where the primary has it."""
        machine = hosts.host(self.primary_host)
        with self.primary() as primary:
            found = configuration(primary)
            left = left_out(found, lambda path: self.machine.status(path) is not None, archived=bool(self.stanza))
            settings = {name: value for name, value in found.items() if name not in left}
            self.machine.write(target / "postgresql.conf", conf(self.primary_name, settings), mode=0o600)
            own = AUTO_CONF + (
                WAL_ENCRYPTED if self.encrypt_wal else b""
            )  # before its first start: its WAL is so already
            self.machine.write(target / "postgresql.auto.conf", own, mode=0o600)
            for name, parameter in ACCESS.items():
                place = PurePosixPath(primary.value("SELECT current_setting(%s)", [parameter]))
                if place == PurePosixPath(self.primary_directory) / name:
                    continue  # it came with the backup
                content = machine.read(place, follow=True)
                if content is None:
                    raise UserError(
                        f"{place}, the primary's {parameter}, is not there: the clone would accept no connection"
                    )
                self.machine.write(target / name, content, mode=0o600)
        if told := sentence(left):
            note(
                f"{self.name} does not take over from {self.primary_name}: {told}. Declare it in its settings to have it there"
            )

    @property
    def primary_name(self) -> str:
        return self.origin.removeprefix("base backup of ")

    def _wait_for_slot(self) -> None:
        """Let a clone that was just killed let go of the slot: the server notices within milliseconds."""
        with self.primary() as primary:
            query = "SELECT active_pid FROM pg_replication_slots WHERE slot_name = %s"
            if not until(lambda: primary.value(query, [self.slot]) is None, seconds=SLOT_DEADLINE):
                raise UserError(
                    f"slot {self.slot} is in use by the server process {primary.value(query, [self.slot])} of the primary: "
                    f"something else streams from it. Stop that, and `up` clones {self.path}"
                )

    def _tool(self) -> str:
        names = self.machine.listing(PurePosixPath(self.binaries))
        return "pg_tde_basebackup" if "pg_tde_basebackup" in names else "pg_basebackup"
