"""A server's data directory, however it came to be: made by initdb (here) or cloned by a base backup (base_backup).

It is made in a draft directory beside it and renamed when whole, so that a directory under its own name is never half made. One
that this stack did not make is never written to, and what is taken away is set aside by rename unless the stack says that it is
disposable.
"""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import PurePosixPath
from typing import ClassVar, Self

from tde_replication.errors import CommandFailed, Conflict, UserError
from tde_replication.postgres.control import ControlData, control_data, look_into
from tde_replication.postgres.marker import MARKER, marker, of_another_stack, why_not_ours
from tde_replication.postgres.resource import OnHost
from tde_replication.progress import note

INITDB_DEADLINE = 600.0
STOP_DEADLINE = 60.0
THIS, NOTHING = "this cluster", "nothing"
SET_ASIDE = ".set-aside-"
"""Between the name of a directory that was set aside and the time of that."""


class DataDirectory(OnHost):
    """What both kinds share: a path, whose it is, and what becomes of it in the end."""

    data_directory: str
    binaries: str
    """The directory of initdb, postgres and pg_basebackup on the host."""
    stack: str
    """Whose this directory is; written into it, so that an interrupted run knows its own work again."""
    name: str = ""
    """Which of the stack's servers it is of; written into it too, so that no other one takes it for its own."""
    disposable: bool = False
    """Whether to remove it on destroy or replacement; else it is set aside by rename."""
    system_identifier: str = ""
    made_at: str = ""
    """Tells a directory from another that was at the same path before (ISO 8601, UTC)."""
    backup_rate: int | None = None
    """Bytes a second of the base backup that made it; None where none did, or an earlier version that did not measure it."""

    called: ClassVar[str] = "DataDirectory"
    replaced_by: ClassVar[frozenset[str]] = frozenset({"host", "data_directory"})
    computed: ClassVar[frozenset[str]] = frozenset({"system_identifier", "made_at", "backup_rate"})
    not_compared: ClassVar[frozenset[str]] = frozenset({"binaries", "stack", "name", "disposable"})

    @property
    def identity(self) -> str:
        return f"{self.system_identifier} {self.made_at}"

    @property
    def place(self) -> tuple[str, str]:
        return self.host, self.data_directory

    @property
    def path(self) -> PurePosixPath:
        return PurePosixPath(self.data_directory)

    @property
    def draft(self) -> PurePosixPath:
        return self.path.with_name(f".{self.path.name}.unfinished")

    def control(self) -> ControlData:
        return control_data(self.machine, PurePosixPath(self.binaries), self.path)

    def look(self) -> None:
        look_into(self.machine, PurePosixPath(self.binaries), self.path)

    def _marker(self) -> dict[str, str]:
        return marker(self.machine, self.path)

    def _is_ours(self, made: dict[str, str]) -> bool:
        return made.get("stack") == self.stack and made.get("name", self.name) == self.name

    def _mark(self, directory: PurePosixPath, made_at: str) -> None:
        written = json.dumps({"stack": self.stack, "name": self.name, "madeAt": made_at, "kind": self.called})
        self.machine.write(directory / MARKER, written.encode(), mode=0o600)

    def _create(self, make: Callable[[PurePosixPath], int | None], wanted: Callable[[ControlData], str | None]) -> Self:
        """Take over a directory that this stack made and that is as `wanted` (None: it is; else why not); set aside one of
        ours that is not; refuse anybody else's; make a new one if the path is empty. `make` says how fast it copied."""
        machine = self.machine
        if (running := machine.postmaster(self.path)) and running.lost:
            note(f"{self.data_directory} was removed under its server (process {running.pid}), which is stopped")
            self.stop()
        if machine.listing(self.path):
            made = self._marker()
            if made.get("stack") != self.stack:
                raise Conflict(f"{self.data_directory} {why_not_ours(made, self.stack)}")
            found = self.control()
            if not self._is_ours(made):
                raise Conflict(
                    f"{self.data_directory} is that of this stack's server {made['name']}, and not of {self.name}: name another "
                    "dataDirectory"
                )
            reason = wanted(found)
            if reason is None:
                if made.get("kind") != self.called:
                    self._mark(self.path, made["madeAt"])
                return self.replace(system_identifier=found.system_identifier, made_at=made["madeAt"])
            note(f"{self.data_directory}: an earlier run left it unfinished; it is created again ({reason})")
            self.take_away()
        machine.remove(self.draft)
        made_at = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        try:
            rate = make(self.draft)
            self._mark(self.draft, made_at)
        except Exception:  # also a full disk, which no tool put into a sentence
            machine.remove(self.draft)
            raise
        if not machine.listing(self.path):
            machine.remove(self.path)  # an empty directory, as packages leave it
        machine.rename(self.draft, self.path)
        return self.replace(system_identifier=self.control().system_identifier, made_at=made_at, backup_rate=rate)

    def update(self, live: Self) -> Self:
        """Nothing in it is changed in place."""
        del live
        return self

    def _found(self) -> str:
        """Which cluster the directory holds now."""
        if not self.machine.listing(self.path):
            return NOTHING
        try:
            found = self.control().system_identifier
        except CommandFailed:
            return "something that is not a data directory"
        if found == self.system_identifier:
            return THIS
        return f"another cluster (system identifier {found}, and not {self.system_identifier})"

    def _wrong_cluster(self, holds: str) -> str | None:
        if holds == THIS:
            return None
        return (
            f"{self.data_directory} holds {holds}: it is not this stack's cluster, and nothing is changed. Bring that back, or "
            "promote a standby; to start over without its data, destroy the stack first"
        )

    def is_among(self, beside: Collection[str]) -> bool:
        """Whether the parent directory, with these names in it, contains this data directory, finished or partial."""
        return self.draft.name in beside or (self.path.name in beside and self._is_ours(self._marker()))

    def delete(self) -> None:
        if self._marker().get("kind", self.called) == self.called:
            self.take_away()  # else it was taken over: a promoted standby's, by the primary's resource

    def take_away(self) -> None:
        """Remove it, or set it aside, whichever kind made it."""
        machine = self.machine
        machine.remove(self.draft)
        if not machine.listing(self.path):
            return
        if not self._is_ours(self._marker()):
            return  # somebody put another one there: not ours to touch
        self.stop()
        if self.disposable:
            # Out of the way under another name first: a removal that is interrupted leaves no half directory behind.
            machine.rename(self.path, self.draft)
            machine.remove(self.draft)
        else:
            note(f"{self.data_directory} is set aside as {self._set_aside()}")

    def _set_aside(self) -> PurePosixPath:
        aside = self.path.with_name(f"{self.path.name}{SET_ASIDE}{datetime.now(UTC):%Y%m%dT%H%M%S}")
        self.machine.rename(self.path, aside)
        return aside

    @contextmanager
    def replaced_by_draft(self) -> Iterator[None]:
        """Put the draft, which is whole, in the place of what is there; that is set aside, or removed after the block."""
        aside = self._set_aside()
        try:
            self.machine.rename(self.draft, self.path)
        except UserError:
            self.machine.rename(aside, self.path)
            raise
        if not self.disposable:
            note(f"{self.data_directory}, as it was, is set aside as {aside}")
        yield
        if self.disposable:
            self.machine.remove(aside)

    def stop(self) -> None:
        """Stop its server, and be sure that none is left. Raises `Unavailable` where that cannot be told."""
        self.machine.stop(PurePosixPath(self.binaries), self.path, deadline=STOP_DEADLINE)
        if found := self.machine.postmaster(self.path):
            raise Conflict(
                f"a server runs on {self.data_directory} again (process {found.pid}): nothing is changed there. Something starts "
                "it: stop that, and run this again"
            )


class InitializedDirectory(DataDirectory):
    """A new cluster, by initdb: data checksums on, SCRAM only, the superuser ``postgres`` by peer authentication.

    The accounts that may be ``postgres`` by peer are its owner and the one that runs Pulumi, in pg_ident.conf.
    """

    origin: str = "initdb"
    holds: str = THIS
    """Whether the directory still holds what was made: "this cluster", or what it holds now."""

    def read(self) -> Self | None:
        self.look()
        found = self._found()
        # Where a disk is not mounted, a new and empty primary would replace the copies that its standbys have.
        return None if self.disposable and found == NOTHING else self.replace(holds=found)

    def refusal(self, live: Self) -> str | None:
        if live.stack != self.stack and (former := of_another_stack(live.stack, self.stack)):
            return f"the cluster in {live.data_directory} {former}"
        if self.changed(live) & self.replaced_by:
            return (
                f"the primary's data is in {live.data_directory} of {live.host}, and its new place would be an empty cluster: "
                "all standbys would be cloned from it. Nothing is changed. Set dataDirectory back; to start over without "
                "its data, destroy the stack first"
            )
        return self._wrong_cluster(live.holds)

    def refusal_while_unknown(self, live: Self, fields: Collection[str]) -> str | None:
        if "host" not in fields:
            return None
        return (
            f"the address of the primary's machine is not known yet, and if that is replaced, the data in {live.data_directory} "
            "stays behind: all standbys would be cloned from an empty cluster. Nothing is changed. If the machine is changed "
            "and not replaced, bring it up first: `pulumi up --target` with its URN. To start over without its data, destroy "
            "the stack first"
        )

    def create(self) -> Self:
        return self._create(self._initdb, lambda _: None)

    def _initdb(self, target: PurePosixPath) -> None:
        machine = self.machine
        machine.make_directory(target.parent)
        machine.run(
            [
                *(str(PurePosixPath(self.binaries) / "initdb"), "--pgdata", str(target), "--username", "postgres"),
                *("--auth-local", "peer", "--auth-host", "scram-sha-256", "--encoding", "UTF8"),
                *("--locale-provider", "builtin", "--locale", "C.UTF-8"),
                "--data-checksums",
            ],
            deadline=INITDB_DEADLINE,
        )
        rules = machine.read(target / "pg_hba.conf") or b""
        owner = b"local   all             postgres                                peer map=owner\n"
        machine.write(target / "pg_hba.conf", _before_first_rule(rules, owner), mode=0o600)
        names = sorted({machine.account, *machine.administrators})
        lines = "".join(f'owner "{name}" postgres\n' for name in names)
        ident = (machine.read(target / "pg_ident.conf") or b"") + lines.encode()
        machine.write(target / "pg_ident.conf", ident, mode=0o600)


def _before_first_rule(rules: bytes, line: bytes) -> bytes:
    lines = rules.splitlines(keepends=True)
    first = next((n for n, text in enumerate(lines) if text.strip() and not text.lstrip().startswith(b"#")), len(lines))
    return b"".join([*lines[:first], line, *lines[first:]])
