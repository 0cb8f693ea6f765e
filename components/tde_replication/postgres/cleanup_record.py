"""Write-ahead record of everything that a stack may create for one server.

What a killed `up` was just making is in no state, so that no resource's `delete` is called for it: a half-made clone, a slot that
would fill a disk. The record is there before all that and taken away after it, and looks for what is left.
"""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import PurePosixPath
from typing import Any, ClassVar, Self

from pydantic import SecretStr

from tde_replication.errors import Unavailable, UserError
from tde_replication.hosts.base import LOG
from tde_replication.postgres.data_directory import STOP_DEADLINE, InitializedDirectory
from tde_replication.postgres.hba_rule import HbaRule
from tde_replication.postgres.host_file import HostFile
from tde_replication.postgres.on_primary import Place
from tde_replication.postgres.replication_role import ReplicationRole
from tde_replication.postgres.replication_slot import ReplicationSlot
from tde_replication.postgres.resource import OnHost
from tde_replication.postgres.restore import take_away
from tde_replication.postgres.server import Server
from tde_replication.progress import note


class CleanupRecord(OnHost):
    """Nothing of it lies on the server, so it cannot drift; but for `settings`, a change of it is only stored."""

    name: str
    data_directory: str
    binaries: str
    stack: str
    disposable: bool = False
    adopted: bool = False
    """Whether the data directory is somebody else's."""
    files: list[str] = []
    """Names beside the data directory: token, CA, passfile."""
    slot: str = ""
    role: str = ""
    clients: list[str] = []
    """Addresses of the role's lines in pg_hba.conf."""
    primary_host: str = ""
    primary_directory: str = ""
    primary_identifier: str = ""
    """The cluster that slot, role and lines are in."""
    others: list[Place] = []
    """Host and data directory of the servers that may be the primary by now."""
    primary_goes: bool = False
    """Whether its whole directory goes with the stack; then a slot matters only where the standby goes alone."""
    settings: dict[str, str] = {}
    """The parameters that the stack sets on an adopted primary."""
    found: dict[str, str] | None = None
    """What its postgresql.auto.conf said of them before, where it said something; None where it could not be asked."""

    computed: ClassVar[frozenset[str]] = frozenset({"found"})
    create_only: ClassVar[frozenset[str]] = frozenset({"others"})

    not_compared: ClassVar[frozenset[str]] = frozenset(
        {
            *("host", "name", "data_directory", "binaries", "stack", "disposable", "adopted", "files"),
            *(
                "slot",
                "role",
                "clients",
                "primary_host",
                "primary_directory",
                "primary_identifier",
                "primary_goes",
            ),
        }
    )

    @property
    def identity(self) -> str:
        return self.name

    def read(self) -> Self:
        return self

    def create(self) -> Self:
        return self.replace(found=self._before(self.settings)) if self.settings else self

    def update(self, live: Self) -> Self:
        before = self._before({name: value for name, value in self.settings.items() if name not in live.settings})
        known = None if before is None or live.found is None else live.found | before
        return self.replace(found=known)

    def _before(self, settings: dict[str, str]) -> dict[str, str] | None:
        try:
            return self._server(settings).set_before(settings)
        except Unavailable:
            return None

    def _server(self, settings: dict[str, str]) -> Server:
        return Server(
            host=self.host,
            data_directory=self.data_directory,
            system_identifier=self.primary_identifier,
            name=self.name,
            binaries=self.binaries,
            made_at="",
            settings=settings,
            found=self.found or {},
        )

    def delete(self) -> None:
        for found in self._leftovers():
            note(f"{found}: left by an interrupted `up`; it is being removed")

    def _leftovers(self) -> Iterator[str]:
        """Take away what is there still, each told."""
        path = PurePosixPath(self.data_directory)
        beside = set(self.machine.listing(path.parent))
        if not self.adopted:
            directory = InitializedDirectory(
                host=self.host,
                data_directory=self.data_directory,
                binaries=self.binaries,
                stack=self.stack,
                name=self.name,
                disposable=self.disposable,
            )
            if directory.is_among(beside):
                directory.take_away()
                yield f"data directory {path}"
            elif path.name not in beside:
                # A server may run on without it, or have been killed and left its socket: of that, no other resource knows.
                running = self.machine.postmaster(path)
                self.machine.stop(PurePosixPath(self.binaries), path, deadline=STOP_DEADLINE)
                if running:
                    yield f"server {self.name}, whose data directory was removed"
        yield from self._files(path, beside)
        if self.found is not None and (names := self._server(self.settings).give_back_left()):
            yield f"parameters {', '.join(names)} of {self.name}"
        if self.primary_goes:
            # Without a word: in a stack that goes as a whole, every slot is still there, and the primary may not be.
            with suppress(UserError):
                list(self._on_primary())
        elif self.primary_identifier:
            yield from self._on_primary()

    def _files(self, path: PurePosixPath, beside: set[str]) -> Iterator[str]:
        for name in [*self.files, *([] if self.adopted else [LOG])]:
            file = HostFile(host=self.host, path=str(path.with_name(name)), content=SecretStr(""))
            if not beside.isdisjoint({name, f".{name}.new"}):
                file.delete()
                yield f"file {file.path}"
        if take_away(self.machine, PurePosixPath(self.binaries), path):
            yield f"what a restore drill had restored beside {path}"

    def _on_primary(self) -> Iterator[str]:
        primary: dict[str, Any] = {
            "host": self.primary_host,
            "data_directory": self.primary_directory,
            "system_identifier": self.primary_identifier,
            "others": self.others,
        }
        if self.slot:
            slot = ReplicationSlot(**primary, slot=self.slot)
            if slot.is_free:  # our standby has gone by now: who still streams from it is another's
                slot.delete()
                yield f"replication slot {self.slot}"
        role = ReplicationRole(**primary, role=self.role, password=SecretStr(""), stack=self.stack)
        maker = role.maker if self.role else None
        if maker not in {self.stack, None}:
            return  # another stack's, and so are its lines
        for address in self.clients:
            rule = HbaRule(**primary, role=self.role, address=address)
            if rule.is_marked:
                rule.delete()
                yield f"pg_hba rule for {self.role} from {address}"
        if maker is not None:
            role.delete()
            yield f"replication role {self.role}"
