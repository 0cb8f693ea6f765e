"""The data directory of one of the stack's servers: the same resource whether the server is the primary or a standby.

Its role says how it is made, and what is asked of it: a primary's must hold this cluster, a standby's must be able to follow.
"""

from collections.abc import Collection, Iterable
from contextlib import AbstractContextManager, suppress
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal, Self

from tde_replication import hosts
from tde_replication.errors import AccessDenied, Unavailable
from tde_replication.postgres.base_backup import ClonedDirectory
from tde_replication.postgres.data_directory import THIS, DataDirectory, InitializedDirectory
from tde_replication.postgres.on_primary import Place, find_primary
from tde_replication.postgres.rewind import GRANTED, Rewind, give_back, temporary
from tde_replication.postgres.session import Session, server_session
from tde_replication.postgres.topology_server import DEMOTED
from tde_replication.postgres.upstream import Upstream
from tde_replication.records import Cost
from tde_replication.unasked import could_not_ask
from tde_replication.values import Cipher

FOLLOWS = "the primary"


class ServerDirectory(DataDirectory):
    """The fields of both: see `InitializedDirectory` and `ClonedDirectory`."""

    role: Literal["primary", "standby"] = "primary"
    origin: str = "initdb"
    holds: str = THIS
    """Of a primary's."""
    follows: str = FOLLOWS
    """Of a standby's, and all that comes next."""
    upstream: Upstream | None = None
    slot: str = ""
    encrypted: bool = False
    encrypt_wal: bool = False
    cipher: Cipher = "aes_128"
    primary_host: str = ""
    primary_directory: str = ""
    primary_identifier: str = ""
    sender_host: str = ""
    sender_directory: str = ""
    rejoin: Literal["clone", "rewind"] = "clone"
    """What is done with a former primary that has WAL of its own."""
    diverged: str = ""
    """Where such a one has left the way of the primary ("0/5000148 of timeline 1"); empty: it has not."""
    database: str = "postgres"
    """Where the queries of a rewind go, on the primary."""
    stanza: str = ""
    others: list[Place] = []
    """Of the cluster's other servers, one of which may have become the primary."""
    urn: str = ""

    create_only: ClassVar[frozenset[str]] = frozenset({"others", "database"})
    replaced_by: ClassVar[frozenset[str]] = ClonedDirectory.replaced_by
    not_compared: ClassVar[frozenset[str]] = (ClonedDirectory.not_compared - {"demoted"}) | {
        "role",
        "rejoin",
        "diverged",
    }

    @property
    def row(self) -> str:
        return self.urn

    @property
    def _own(self) -> InitializedDirectory | ClonedDirectory:
        """It as its role has it."""
        if self.role == "primary":
            return InitializedDirectory.model_validate(self.model_dump())
        demoted = {"demoted": DEMOTED in self.machine.listing(self.path)}
        return ClonedDirectory.model_validate(self.model_dump() | demoted)

    def _differs(self, name: str, old: Self) -> bool:
        match name:
            case "holds":
                return self.role == "primary" and super()._differs(name, old)
            case "follows":
                return self.role == "standby" and super()._differs(name, old)
            case "primary_identifier":  # a former primary's cluster is its own
                return self.role == "standby" and self.primary_identifier != (
                    old.primary_identifier or old.system_identifier
                )
            case _:
                return super()._differs(name, old)

    def replacing(self, old: Self) -> set[str]:
        """A rewind leaves the directory the same resource."""
        return super().replacing(old) - ({"follows"} if self._is_rewound_from(old) else set())

    def _is_rewound_from(self, old: Self) -> bool:
        """Whether `old` needs a rewind, and is to get it."""
        return self.rejoin == "rewind" and bool(old.diverged) and super().replacing(old) == {"follows"}

    def read(self) -> Self | None:
        live = (self._as_former_primary() or self._own).read()
        if live is None:
            return None
        if isinstance(live, InitializedDirectory):
            return self.replace(holds=live.holds, diverged="")
        return self.replace(follows=live.follows, diverged=self._fork(live))

    def _fork(self, clone: ClonedDirectory) -> str:
        try:
            return clone.fork()
        except Unavailable as why:
            could_not_ask(f"since when {self.name} has WAL of its own", why)
            return ""

    def _rewind(self, live: Self) -> Rewind | None:
        """What brings `live` to what is declared, where a rewind does."""
        own = self._own
        if not (isinstance(own, ClonedDirectory) and self._is_rewound_from(live)):
            return None
        return Rewind(own.replace(follows=live.follows), live.diverged, self.database)

    def _as_former_primary(self) -> ClonedDirectory | None:
        """It as a standby of the server that has become the primary in its stead; None where it is no such thing."""
        if self.role != "primary" or not self.others:
            return None
        try:
            host, directory = find_primary([(self.host, self.data_directory), *self.others])
        except (Unavailable, AccessDenied):
            return None
        if (host, directory) == (self.host, self.data_directory):
            return None
        here = {"primary_host": host, "primary_directory": directory, "primary_identifier": self.system_identifier}
        nowhere = Upstream(host="", port=0, role="", tls="", passfile="")
        return ClonedDirectory.model_validate(self.model_dump() | here | {"upstream": nowhere, "demoted": True})

    def _alike(self, live: Self, own: DataDirectory) -> Any:
        """`live` as `own` is; what it had no use for in another role is as declared."""
        known = {name: value for name, value in live.model_dump().items() if value is not None}
        return type(own).model_validate(self.model_dump() | known)

    def refusal(self, live: Self) -> str | None:
        own = self._own
        if rewind := self._rewind(live):
            return rewind.refusal()
        if self.rejoin == "rewind" and isinstance(own, ClonedDirectory) and (why := self._unasked(own, live)):
            return (
                f"{self.name} has WAL of its own ({live.follows}), and since when cannot be asked of the primary: {why}. Nothing "
                "is changed. Make the primary answer, and run this again; or write rejoin: clone"
            )
        return own.refusal(self._alike(live, own))

    def _unasked(self, own: ClonedDirectory, live: Self) -> str:
        """Why it is not known whether `live` is to be rewound; empty where that is known."""
        if self._differs("follows", live) and not live.diverged:
            try:
                own.replace(follows=live.follows).fork()
            except Unavailable as why:
                return str(why).rstrip(".")
        return ""

    def refusal_while_unknown(self, live: Self, fields: Collection[str]) -> str | None:
        own = self._own
        return own.refusal_while_unknown(self._alike(live, own), fields)

    def costs(self, live: Self | None) -> Iterable[Cost]:
        own = self._own
        if live is None:
            return own.costs(None)
        if rewind := self._rewind(live):
            return [rewind.cost()]
        return own.costs(self._alike(live, own)) if self.changed(live) else ()

    def create(self) -> Self:
        made = self._own.create()
        found = {name: getattr(made, name) for name in self.computed}
        return self.replace(**found)

    def update(self, live: Self) -> Self:
        if rewind := self._rewind(live):
            rewind.run()
        return self

    def delete(self) -> None:
        if self.upstream and GRANTED in self.machine.listing(self.path):
            with suppress(Unavailable, AccessDenied):  # with the role, it goes too
                give_back(self.machine, self.path, self.upstream.role, self._on_primary)
        self.take_away()
        if self.encrypted:
            self.machine.remove(temporary(self.path))

    def _on_primary(self, database: str) -> AbstractContextManager[Session]:
        host, directory = find_primary([(self.host, self.data_directory), *self.others])
        return server_session(hosts.host(host), PurePosixPath(directory), f"the primary of {self.path}", database)
