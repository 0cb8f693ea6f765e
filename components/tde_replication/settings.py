"""The stack file as typed models: everything that a person may set, with its default. `stack_file` reads it.

No dictionary of settings travels further than these.
"""

import re
import zlib
from typing import Annotated, Any, Literal

from pydantic import Field, PrivateAttr, field_validator, model_validator

from tde_replication.archive_settings import Archive
from tde_replication.encryption_settings import Tables
from tde_replication.host_settings import SSH_PORT, Docker, HostKind, Settings, Ssh
from tde_replication.later import Later, known
from tde_replication.replication_settings import Replication, Synchronous
from tde_replication.values import (
    DATABASE_SETTINGS,
    DEFAULT_METHOD,
    ENFORCE,
    TEMPLATE,
    AbsolutePath,
    Cipher,
    DataPath,
    Delay,
    Duration,
    Identifier,
    Label,
    Listener,
    Network,
    Port,
    parameter_text,
)
from tde_replication.vault_settings import DatabaseKey, Key, Vault

LOCAL_PORT = 54321
"""The default of db1."""
PORTS_OF_A_FAMILY, FAMILIES = 100, 900
STANDARD_PORT = 5432


class Server(Settings):
    """One server of the cluster; its name is its key in `servers`."""

    _name: str = PrivateAttr("")
    host: HostKind = "local"
    port: Port | None = None
    """Default by ssh: 5432. By docker, where it is the port of dockerd's machine that leads to the server: one that is free.
    On this machine: 54321 for ``db1``, 54322 for ``db2``, 54323 for ``db3``; for any other name, a number from
    54421 to 55419 that is made of the name, and counts on with a number at its end. No other server changes it."""
    data_directory: DataPath | None = None
    """Default: a directory of the project's own."""
    binaries: AbsolutePath | None = None
    """The directory of ``postgres``; default: see the documentation of the host."""
    listen: list[Later[Listener]] = ["127.0.0.1"]
    """listen_addresses; default on a machine of its own: all of them (pg_hba.conf says who comes in)."""
    address: Later[Network] | None = None
    """How the other servers know it: where its replication connections come from, for pg_hba.conf, and where they find it.
    Default 127.0.0.1/32 on the local host, else what the name of its machine resolves to."""
    adopt: bool = False
    """For the primary that was there before the stack: it is never made, moved, cloned or removed, and keeps all settings but
    what replication needs. With `restart: allowed` it can give up its part; destroy leaves it as it was found, once it is the
    primary again."""
    restart: Literal["allowed", "refused"] = "allowed"
    """Whether `up` may restart it, for parameters that can only change at start; default under `adopt`: refused."""
    upstream: Label | None = None
    """The standby that it streams from while it is a standby itself (cascading); default: the primary, whoever that is."""
    apply_delay: Delay | None = None
    """How late a standby replays what it has received (recovery_min_apply_delay); default: at once."""
    settings: dict[str, str] = {}
    """More parameters for postgresql.conf; their names count in any case."""

    @property
    def name(self) -> str:
        """Its key in the cluster's `servers`."""
        return self._name

    @property
    def place(self) -> str:
        """Where it stands in the stack file."""
        return f"cluster.servers.{self.name}"

    def named(self, name: str) -> "Server":
        made = self.model_copy()
        made._name = name  # noqa: SLF001 - of this class
        return made

    @property
    def listens(self) -> list[str]:
        """What `listen` says, once it is known; so is `network`."""
        return [known(one) for one in self.listen]

    @property
    def network(self) -> str | None:
        """Where the other servers know it, if that is declared."""
        return None if self.address is None else known(self.address)

    @property
    def machine(self) -> str:
        """The machine it lives on, for people: "local", or its name; a container is a machine of its own, and so is what another
        port of one name leads to."""
        match self.host:
            case Ssh():
                name = self.host.machine
                return name if self.host.port in {None, SSH_PORT} else f"{name} port {self.host.port}"
            case Docker():
                return f"container {self.name}"
            case local:
                return local

    @model_validator(mode="before")
    @classmethod
    def _reachable(cls, values: Any) -> Any:
        """A server on a machine of its own that listened to that alone could have no standby elsewhere."""
        if isinstance(values, dict) and isinstance(values.get("host"), dict | Ssh | Docker):
            return {"listen": ["*"]} | values
        return values

    @model_validator(mode="before")
    @classmethod
    def _left_running(cls, values: Any) -> Any:
        """Somebody uses a primary that is there already."""
        if isinstance(values, dict) and values.get("adopt") is True:
            return {"restart": "refused"} | values
        return values

    @property
    def kind(self) -> str:
        """Which module of `tde_replication.hosts` serves its host."""
        return self.host if isinstance(self.host, str) else type(self.host).__name__.lower()

    @field_validator("settings", mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        """YAML's numbers and switches are texts to PostgreSQL, and names are the same in any case."""
        if not isinstance(values, dict):
            return values
        texts: dict[str, Any] = {}
        for name, value in values.items():
            if name.lower() in texts:
                raise ValueError(f'"{name.lower()}" has two spellings: write one')
            texts[name.lower()] = parameter_text(value)
        return texts


class Cluster(Settings):
    """``tde-replication:cluster``: a primary and its standbys."""

    encryption: Literal["required", "if-available", "off"] = "required"
    cipher: Cipher = "aes_128"
    """What tables and WAL are encrypted with, on every server; the principal key has its length. aes_256 needs pg_tde 2.2."""
    wal_encryption: bool = False
    database: Identifier = "postgres"
    """Where the extension is made; keys and providers are the whole cluster's. One that is missing is made (not on an adopted
    primary), and never dropped."""
    databases: list[Identifier] = []
    """More databases that have the extension; each is made as `database` is. ``template1``: databases that are made from now on
    get it, too."""
    enforce_encryption: bool = False
    """Whether no new table can be in clear in `database` and `databases` (pg_tde.enforce_encryption, which a superuser can
    outrank); tde_heap is the default there then. Tables that are in clear already are shown, and left so."""
    default_table_access_method: Literal["tde_heap"] | None = None
    """What a new table in `database` and `databases` is made with where it names nothing else; default: as the server has it."""
    tables: list[Tables] = []
    """Which tables `up` encrypts, or brings back into clear; what matches none of the patterns is left alone."""
    protect: bool = False
    """Whether Pulumi refuses to destroy the primary's data, and the Vault mount with its keys."""
    disposable: bool = False
    """Whether data may be removed rather than set aside, and keys with it; a primary whose data is gone is then made again."""
    expires: Duration | None = None
    """Of a disposable cluster: how long after the first `up` with this setting `make reap` may destroy it: ``30m``, ``8h``,
    ``7d``. A later `up` does not move that time; a longer duration does."""
    vault: Vault = Vault()
    key: Key = Key()
    keys: dict[Identifier, DatabaseKey] = {}
    """Principal keys of databases that are to have one of their own, by the database's name. Without it, a database has the
    default key again."""
    replication: Replication = Replication()
    archive: Archive | None = None
    """Whether WAL is archived, and by what; default: as the servers have it."""
    synchronous: Synchronous | None = None
    """Whether commits wait for standbys; default: none does."""
    primary: Label = "db1"
    """The name of the one of `servers` that takes writes; all others are its standbys. Required where `servers` is given."""
    minor_upgrade: Literal["standbys", "all"] | None = None
    """Which servers `up` restarts, one by one, where packages have replaced their programs (docs/updates.md); default: none."""
    rejoin: Literal["clone", "rewind"] = "clone"
    """How a former primary that has WAL of its own follows again, as after a failover: by a new base backup; or by pg_rewind,
    which copies only what differs. With encryption, that needs pg_tde 2.2.1 or newer on every server."""
    servers: Annotated[dict[Label, Server], Field(validate_default=True)] = {"db1": Server(), "db2": Server()}
    """Each server's settings below its name, in any order: ports, directories and slots go by the name."""

    @field_validator("servers")
    @classmethod
    def _named(cls, servers: dict[str, Server]) -> dict[str, Server]:
        if not servers:
            raise ValueError("must name at least one server (write {db1: {}})")
        return {name: server.named(name) for name, server in sorted(servers.items())}

    @property
    def all_databases(self) -> list[str]:
        """Those that have the extension."""
        return [self.database, *self.databases]

    @property
    def database_settings(self) -> dict[str, str]:
        """The parameters of each of `all_databases`."""
        found: dict[str, str] = {}
        if self.enforce_encryption:
            found[ENFORCE] = DATABASE_SETTINGS[ENFORCE]
        if self.enforce_encryption or self.default_table_access_method:
            found[DEFAULT_METHOD] = DATABASE_SETTINGS[DEFAULT_METHOD]
        return found

    @property
    def tables_by_database(self) -> dict[str, list[Tables]]:
        """The patterns of `tables` for each database that has the extension, where there are any. Not for template1: nobody can
        make a database as long as a session is in it."""
        found = {
            name: [one for one in self.tables if one.is_of(name)] for name in self.all_databases if name != TEMPLATE
        }
        return {name: patterns for name, patterns in found.items() if patterns}

    @property
    def primary_server(self) -> Server:
        return self.servers[self.primary]

    @property
    def standbys(self) -> list[Server]:
        """By their names: a stack file's own order does not get through Pulumi."""
        return [server for name, server in self.servers.items() if name != self.primary]

    def upstream(self, standby: Server) -> Server:
        """The server that it streams from."""
        return self.servers[standby.upstream or self.primary]

    @property
    def sources(self) -> list[Server]:
        """The primary, and all other servers that a standby streams from."""
        names = dict.fromkeys([self.primary, *(self.upstream(standby).name for standby in self.standbys)])
        return [self.servers[name] for name in names]

    @property
    def synchronous_standbys(self) -> list[str]:
        """The names of those that a commit may wait for."""
        if self.synchronous is None:
            return []
        if (named := self.synchronous.standbys) is not None:
            return [name for name in named if name != self.primary]
        return [one.name for one in self.standbys if self.upstream(one).name == self.primary and not one.apply_delay]

    @property
    def members(self) -> list[Server]:
        """The primary, then its standbys."""
        return [self.primary_server, *self.standbys]

    @property
    def places(self) -> list[str]:
        """Where each of `members` stands in the stack file."""
        return [server.place for server in self.members]

    def port(self, server: Server, name: str | None = None) -> int:
        """Its port; the default is made of `name`, where that is another than the server's own."""
        return server.port or (STANDARD_PORT if server.kind == "ssh" else default_port(name or server.name))


def default_port(name: str) -> int:
    """By the name alone: another server that comes or goes changes no port. A number at the end of the name counts on from the
    port of the name without it, so that db1 and db2 never meet."""
    found = re.fullmatch(r"(.*?)(?<!\d)(\d{0,2})", name)
    family, number = (found[1], int(found[2] or 0)) if found else (name, 0)
    if family == "db":
        return LOCAL_PORT - 1 + number
    return LOCAL_PORT + PORTS_OF_A_FAMILY + zlib.crc32(family.encode()) % FAMILIES + number


MANAGED_PARAMETERS = {
    *("port", "listen_addresses", "unix_socket_directories", "primary_conninfo", "primary_slot_name", "cluster_name"),
    *(
        "max_slot_wal_keep_size",
        "pg_tde.cipher",
        "pg_tde.wal_encrypt",
        "data_directory",
        "hba_file",
        "config_file",
        "ident_file",
    ),
}

FOLLOWED_PARAMETERS = {
    *(
        "max_connections",
        "max_worker_processes",
        "max_wal_senders",
        "max_prepared_transactions",
        "max_locks_per_transaction",
    )
}
"""A standby stops replaying where one of these is lower than the primary's: it has the primary's unless it names its own.
(PostgreSQL documentation, *Administrator's Overview* of hot standby.)"""
