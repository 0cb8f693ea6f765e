"""The stack file as typed models: everything that a person may set, its default, and one sentence for each mistake.

The whole is checked before anything is touched; no dictionary of settings travels further than this module.
"""

import ipaddress
import json
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    StringConstraints,
    Tag,
    ValidationError,
    model_validator,
)
from pydantic.alias_generators import to_camel

from components.errors import Problem

LOCAL_PORT = 54321
STANDARD_PORT = 5432
NAME_BYTES = 63
"""PostgreSQL cuts longer identifiers (NAMEDATALEN)."""
SLOT_PREFIX = "tde_"
"""What the name of a standby's slot begins with."""
SUPPORTED = 17
"""The oldest major version of PostgreSQL that pg_tde and this project support."""


class Mistakes(Problem):
    """All that is wrong with a stack file; nothing was touched."""

    def __init__(self, file: str, mistakes: list[str]) -> None:
        count = "1 mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
        super().__init__(f"{file} has {count}; nothing was touched:\n" + "\n".join(f"  {line}" for line in mistakes))
        self.mistakes = mistakes


def _size(text: str) -> str:
    if text == "-1" or re.fullmatch(r"\d+(kB|MB|GB|TB)", text):
        return text
    number = re.match(r"\s*(\d+)", text)
    raise ValueError(f'"{text}" is not a size (write {number[1] if number else 64}GB)')


def _identifier(text: str) -> str:
    if not text:
        raise ValueError("an empty name is none")
    if len(text.encode()) > NAME_BYTES:
        raise ValueError(f'"{text}" is {len(text.encode())} bytes long; PostgreSQL keeps {NAME_BYTES}')
    if not text.isprintable():
        raise ValueError("a name cannot hold line breaks or other unprintable characters")
    return text


def _role(text: str) -> str:
    """A role: its secret in Vault has its name, and may not end up elsewhere there."""
    if "/" in text or text in {".", ".."}:
        raise ValueError(f'"{text}" cannot be the name of its secret in Vault (leave out "/")')
    if text in {"all", "public", "none"} or text.startswith(("+", "@", "pg_")):  # pg_hba_file_rules shows no quotes
        raise ValueError(f'"{text}" has a meaning of its own in PostgreSQL or pg_hba.conf: name another role')
    return _identifier(text)


def _listener(text: str) -> str:
    if not re.fullmatch(r"\*|[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text):
        try:
            ipaddress.ip_address(text)
        except ValueError:
            raise ValueError(f'"{text}" is not an address to listen on (write 192.0.2.7, a host name, or *)') from None
    return text


def _namespace(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", text.strip("/")):
        raise ValueError(f'"{text}" is not a namespace of Vault')
    return text


def _label(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?", text):
        raise ValueError(f'"{text}" is not a name here (write lower-case letters, digits and hyphens)')
    longest = NAME_BYTES - len(SLOT_PREFIX)
    if len(text) > longest:
        raise ValueError(
            f'"{text}" is {len(text)} characters long; its slot "{SLOT_PREFIX}…" leaves room for {longest}'
        )
    return text


def _absolute(text: str) -> str:
    path = PurePosixPath(text)
    if not path.is_absolute() or ".." in path.parts or not text.isprintable():
        raise ValueError(f'"{text}" is not an absolute path')
    return str(path)


def _network(text: str) -> str:
    try:
        return str(ipaddress.ip_network(text, strict=True))
    except ValueError:
        pass
    try:
        loose = ipaddress.ip_network(text, strict=False)
    except ValueError:
        if text.lower() in {"all", "samehost", "samenet"}:  # words of pg_hba.conf, and wider than one server
            raise ValueError(f'"{text}" is more than one server (write 192.0.2.7/32)') from None
        if re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?", text) and not re.fullmatch(r"[\d.]+", text):
            return text
    else:
        raise ValueError(f'"{text}" has bits set right of its mask (write {loose})')
    raise ValueError(f'"{text}" is neither a network (write 192.0.2.7/32) nor a host name')


def _vault_path(text: str) -> str:
    """A mount or key name: pg_tde does not escape them in URLs."""
    text = text.strip("/")
    if not re.fullmatch(r"[A-Za-z0-9._~-]+(/[A-Za-z0-9._~-]+)*", text) or ".." in text.split("/"):
        raise ValueError(f'"{text}" cannot be used in a Vault path (write letters, digits, ".", "_", "-" and "/")')
    return text


def _distinct(values: list[str]) -> list[str]:
    for value, times in Counter(values).items():
        if times > 1:
            raise ValueError(f'"{value}" is used twice')
    return values


def _hop(text: str) -> str:
    """A machine as ssh names it, with a user and a port where they are not the usual ones."""
    try:
        url = urlsplit(f"ssh://{text}")
        good = bool(url.hostname) and url.port != 0 and not re.search(r"[\s/?#'\"\\%]", text) and url.password is None
    except ValueError:
        good = False
    if not good or text.startswith("-"):
        raise ValueError(f'"{text}" is not a host (write ops@bastion.example.net:22)')
    return text


def _machine(text: str) -> str:
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9_]([A-Za-z0-9_.-]*[A-Za-z0-9_])?", text):
        raise ValueError(
            f'"{text}" is not a host name or address (write db1.example.net; user and port have keys of their own)'
        )
    return text


def _account(text: str) -> str:
    if not re.fullmatch(r"[a-z_][a-z0-9_.-]*", text):
        raise ValueError(f'"{text}" is not the name of an account')
    return text


def _file(text: str) -> str:
    if not text or text.startswith("-") or not text.isprintable() or '"' in text:
        raise ValueError(f'"{text}" is not the path of a file')
    return text


Size = Annotated[str, AfterValidator(_size)]
Hop = Annotated[str, AfterValidator(_hop)]
Machine = Annotated[str, AfterValidator(_machine)]
AccountName = Annotated[str, AfterValidator(_account)]
FilePath = Annotated[str, AfterValidator(_file)]
Role = Annotated[str, AfterValidator(_role)]
Listener = Annotated[str, AfterValidator(_listener)]
Namespace = Annotated[str, AfterValidator(_namespace)]
Identifier = Annotated[str, AfterValidator(_identifier)]
Label = Annotated[str, AfterValidator(_label)]
AbsolutePath = Annotated[str, AfterValidator(_absolute)]
Network = Annotated[str, AfterValidator(_network)]
VaultPath = Annotated[str, AfterValidator(_vault_path)]
Port = Annotated[int, Field(ge=1, le=65535)]


class Settings(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=False,
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        strict=True,
    )


class Vault(Settings):
    """The Vault server, which is there before the stack."""

    mount: VaultPath | None = None
    """The KV version 2 mount for this cluster's keys and credentials; default ``tde-`` and the stack's name."""
    existing: bool = False
    """Whether that mount was made by somebody else: then it is used, and never changed or removed."""
    address_from_servers: Annotated[str, StringConstraints(pattern=r"^https?://[^/\s]+$")] | None = None
    """Its URL as the servers see it, where that is not vault:address: a container has a loopback of its own."""
    network: str | None = None
    """A docker network that servers in containers join to reach it."""
    ca: AbsolutePath | None = None
    """The CA certificate that signed Vault's; default VAULT_CACERT, else the system's."""
    namespace: Namespace | None = None
    provider: Annotated[str, StringConstraints(pattern=r"^[a-z0-9_-]{1,63}$")] = "vault"
    """What the key provider is called in pg_tde."""
    token_period: Annotated[str, StringConstraints(pattern=r"^[1-9]\d*h$")] = "768h"  # noqa: S105
    """The period of each server's token; every `up` within it renews the token."""


class Key(Settings):
    name: VaultPath | None = None
    """The principal key; default the stack's name and ``-principal-key``. Another name is a rotation."""
    scope: Annotated[list[Literal["default", "server"]], Field(min_length=1), AfterValidator(_distinct)] = [
        "server",
        "default",
    ]
    bits: Literal[128, 256] = 128


class Replication(Settings):
    role: Role = "replicator"
    tls: Literal["disable", "prefer", "require", "verify-ca", "verify-full"] = "prefer"
    """libpq's sslmode for the standbys' connections; from "require" on, pg_hba takes encrypted connections only."""
    max_slot_wal_keep_size: Size = "4GB"
    """The WAL that a slot may hold back on the primary before its standby is given up ("-1": until the disk is full)."""
    root_certificate: AbsolutePath | None = None
    """The CA certificate, on each standby, that signed the primary's: for "verify-ca" and "verify-full"."""
    password_version: Annotated[int, Field(ge=1)] = 1
    """Count up to have another password."""

    @property
    def encrypted(self) -> bool:
        return self.tls in {"require", "verify-ca", "verify-full"}


class Ssh(Settings):
    """A machine reached by OpenSSH. What is left out is as the user's own ssh configuration and agent have it."""

    ssh: Machine
    """Its name or address."""
    user: AccountName | None = None
    """The login, which becomes `account` by sudo without a password; or that account itself."""
    port: Port | None = None
    account: AccountName = "postgres"
    """The account that owns the server."""
    key: FilePath | None = None
    """The file of a private key (~ is the user's home); the agent's keys where it is left out."""
    certificate: FilePath | None = None
    known_hosts: FilePath | None = None
    """A file of host keys beside the user's own, counted from the project: it may be committed."""
    jump: Annotated[list[Hop], BeforeValidator(lambda value: [value] if isinstance(value, str) else value)] = []
    """A machine to go through, or several, nearest first."""
    system: Literal["debian", "redhat"] = "debian"
    """Whose layout of files and packages it has: Debian's and Ubuntu's, or that of Red Hat and its kin."""
    version: Annotated[int, Field(ge=SUPPORTED)] = 18
    """The major version of PostgreSQL."""
    packages: Literal["percona", "none"] = "percona"
    """Where the server comes from: Percona's repository, set up by the stack; or it is installed already."""
    unit: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:_.@\\-]+$")] | None = None
    """The systemd unit that runs the server, where there is one: ``postgresql@18-main``; else the stack makes its own."""


class Docker(Settings):
    """A container by the dockerd that DOCKER_HOST names, or this machine's."""

    docker: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._/:@-]*$")]
    """Its image; one that is not there is pulled."""


KINDS = ("ssh", "docker")


def _kind_of_host(value: Any) -> str | None:
    """Which model a `host` is meant as, so that a mistake in it is told once."""
    if value == "local":
        return "local"
    if isinstance(value, dict):
        return next((kind for kind in KINDS if kind in value), None)
    return type(value).__name__.lower() if isinstance(value, Ssh | Docker) else None


HostKind = Annotated[
    Annotated[Literal["local"], Tag("local")] | Annotated[Ssh, Tag("ssh")] | Annotated[Docker, Tag("docker")],
    Discriminator(
        _kind_of_host,
        custom_error_type="kind_of_host",
        custom_error_message="This must be local, or a mapping such as {ssh: db1.example.net} or {docker: IMAGE}",
    ),
]


class Server(Settings):
    name: Label
    host: HostKind = "local"
    port: Port | None = None
    data_directory: AbsolutePath | None = None
    """Default: a directory of the project's own."""
    binaries: AbsolutePath | None = None
    """The directory of ``postgres``; default: see the documentation of the host."""
    listen: list[Listener] = ["127.0.0.1"]
    """listen_addresses; default on a machine of its own: all of them (pg_hba.conf says who comes in)."""
    address: Network | None = None
    """How the other servers know it: where its replication connections come from, for pg_hba.conf, and where they find it.
    Default 127.0.0.1/32 on the local host, else what the name of its machine resolves to."""
    adopt: bool = False
    """For a primary that is there already: it is never made, moved or removed, and keeps all settings but what
    replication needs; destroy leaves it as it was found."""
    restart: Literal["allowed", "refused"] = "allowed"
    """Whether `up` may restart it, for parameters that can only change at start."""
    settings: dict[str, str] = {}
    """More parameters for postgresql.conf."""

    @property
    def machine(self) -> str:
        """The machine it lives on, for people: "local", or its name; a container is a machine of its own."""
        match self.host:
            case Ssh():
                return self.host.ssh
            case Docker():
                return f"container {self.name}"
            case local:
                return local

    @model_validator(mode="before")
    @classmethod
    def _reachable(cls, values: Any) -> Any:
        """A server on a machine of its own that listened to that alone could have no standby elsewhere."""
        if isinstance(values, dict) and isinstance(values.get("host"), dict):
            return {"listen": ["*"]} | values
        return values

    @property
    def kind(self) -> str:
        """Which module of `components.hosts` serves its host."""
        return self.host if isinstance(self.host, str) else type(self.host).__name__.lower()

    @model_validator(mode="before")
    @classmethod
    def _texts(cls, values: Any) -> Any:
        """YAML's numbers and switches are texts to PostgreSQL."""
        if isinstance(values, dict) and isinstance(values.get("settings"), dict):
            texts = {
                key: ("on" if value else "off") if isinstance(value, bool) else str(value)
                for key, value in values["settings"].items()
                if isinstance(value, str | bool | int | float)
            }
            return values | {"settings": values["settings"] | texts}
        return values


class Cluster(Settings):
    """``tde-replication:cluster``: one primary and its standbys."""

    encryption: Literal["required", "if-available", "off"] = "required"
    wal_encryption: bool = False
    database: Identifier = "postgres"
    """Where the extension is made; keys and providers are the whole cluster's."""
    protect: bool = False
    """Whether Pulumi refuses to destroy the primary's data, and the Vault mount with its keys."""
    disposable: bool | None = None
    """Whether data may be removed rather than set aside, and keys with it; default on the local host and in containers: true."""
    vault: Vault = Vault()
    key: Key = Key()
    replication: Replication = Replication()
    primary: Server = Server(name="primary")
    standbys: list[Server] = [Server(name="standby1")]

    @property
    def servers(self) -> list[Server]:
        return [self.primary, *self.standbys]

    @property
    def places(self) -> list[str]:
        """Where each of `servers` stands in the stack file."""
        return ["cluster.primary", *(f"cluster.standbys[{n}]" for n in range(len(self.standbys)))]

    @property
    def is_disposable(self) -> bool:
        if self.disposable is not None:
            return self.disposable
        return all(server.kind in {"local", "docker"} for server in self.servers)

    def port(self, server: Server) -> int:
        # By identity: two servers of one name are one mistake, not a clash of ports besides.
        return server.port or (
            LOCAL_PORT + next(n for n, one in enumerate(self.servers) if one is server)
            if server.kind != "ssh"
            else STANDARD_PORT
        )


MANAGED_PARAMETERS = {
    *("port", "listen_addresses", "unix_socket_directories", "primary_conninfo", "primary_slot_name", "cluster_name"),
    *("max_slot_wal_keep_size", "pg_tde.wal_encrypt", "data_directory", "hba_file", "config_file", "ident_file"),
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


def parse(file: str, document: Any) -> Cluster:
    """The cluster that a stack file declares. Raises `Mistakes` with all that is wrong in it."""
    if isinstance(document, str):
        try:
            document = json.loads(document)
        except ValueError:
            raise Mistakes(file, ["cluster: this is no mapping of settings"]) from None
    try:
        cluster = Cluster.model_validate(document)
    except ValidationError as error:
        details = error.errors()
        raise Mistakes(file, [*map(_mistake, details), *_besides(document, details)]) from None
    if mistakes := _contradictions(cluster):
        raise Mistakes(file, mistakes)
    return cluster


def _besides(document: Any, details: Sequence[Any]) -> list[str]:
    """Contradictions in what is left without the sections that are wrong in themselves; defaults stand in for those, so
    servers are compared only where all of them are readable."""
    wrong = {detail["loc"][0] if detail["loc"] else "primary" for detail in details}
    if wrong & {"primary", "standbys"}:
        return []
    rest = {key: value for key, value in document.items() if key not in wrong}
    return _contradictions(Cluster.model_validate(rest))


def _contradictions(cluster: Cluster) -> list[str]:
    """Mistakes that no field has alone."""
    found = _used_twice(cluster)
    for place, server in zip(cluster.places, cluster.servers, strict=True):
        found += [f"{place}.{mistake}" for mistake in _of_server(server)]
        found += [f"{place}.{mistake}" for mistake in _too_low(server, cluster.primary)]
        if server.adopt and server is not cluster.primary:
            found.append(f"{place}.adopt: only a primary is adopted; a standby is always made by a base backup")
    if cluster.primary.adopt and not cluster.primary.data_directory:
        found.append("cluster.primary.dataDirectory: missing; it says which server is adopted")
    if cluster.primary.adopt and cluster.primary.port is None:
        found.append("cluster.primary.port: missing; standbys must know where the adopted server listens")
    replication = cluster.replication
    if replication.encrypted and not cluster.primary.adopt and cluster.primary.settings.get("ssl") != "on":
        found.append(
            f'cluster.replication.tls: "{replication.tls}" needs a primary that speaks TLS: set ssl: on, ssl_cert_file and '
            "ssl_key_file in primary.settings"
        )
    if replication.tls.startswith("verify") and not replication.root_certificate:
        found.append(f'cluster.replication.rootCertificate: missing, and tls is "{replication.tls}"')
    if cluster.wal_encryption and "server" not in cluster.key.scope:
        found.append('cluster.walEncryption: WAL is encrypted with the server key: add "server" to key.scope')
    return found


def _too_low(standby: Server, primary: Server) -> list[str]:
    both = sorted(standby.settings.keys() & primary.settings.keys() & FOLLOWED_PARAMETERS)
    return [
        f"settings.{name}: {own} is lower than the primary's {least}: the standby would stop replaying"
        for name in both
        for own, least in [(standby.settings[name], primary.settings[name])]
        if own.isdecimal() and least.isdecimal() and int(own) < int(least)
    ]


def _used_twice(cluster: Cluster) -> list[str]:
    """What each server must have for itself."""
    found = []
    values_of: dict[str, list[Any]] = {
        "name": [server.name for server in cluster.servers],
        "port": [cluster.port(server) for server in cluster.servers],
        "dataDirectory": [server.data_directory for server in cluster.servers],
    }
    for field, values in values_of.items():
        seen: Counter[Any] = Counter()
        for place, server, value in zip(cluster.places, cluster.servers, values, strict=True):
            where = None if field == "name" else server.machine
            seen[where, value] += value is not None
            if seen[where, value] > 1:
                shown = f'"{value}"' if isinstance(value, str) else value
                found.append(f"{place}.{field}: {shown} is used twice")
    above = [
        (server.machine, PurePosixPath(server.data_directory).parent) if server.data_directory else None
        for server in cluster.servers
    ]
    found += [
        f"{place}.dataDirectory: {parent[1]} holds another server's directory too; each needs a parent directory of its own for "
        "its token and log"
        for place, parent in zip(cluster.places, above, strict=True)
        if parent and above.count(parent) > 1
    ]
    return found


def _of_server(server: Server) -> list[str]:
    found = []
    for name, value in server.settings.items():
        place = f"settings.{name}"
        if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_$]*(\.[A-Za-z_][A-Za-z0-9_$]*)?", name):
            found.append(f"{place}: this is no name of a parameter")
        if name.lower() in MANAGED_PARAMETERS:
            found.append(f"{place}: the stack sets this parameter itself")
        if "\n" in value or "\0" in value:
            found.append(f"{place}: a value cannot hold a line break or a zero byte")
        if name == "shared_preload_libraries" and "pg_tde" in value:
            found.append(f"{place}: pg_tde is added by the stack itself: leave it out")
    return found


def _mistake(detail: Any) -> str:
    """One of pydantic's errors as `key: sentence`."""
    place = "cluster"
    before: Any = None
    for part in detail["loc"]:
        if before == "host" and part in ("local", *KINDS):  # the kind that it was read as: no key of the stack file
            before = None
            continue
        before = part
        place += f"[{part}]" if isinstance(part, int) else f".{part}"
    match detail["type"]:
        case "extra_forbidden":
            return f"{place}: there is no such setting"
        case "missing":
            return f"{place}: this is missing"
        case "literal_error":
            return f"{place}: this must be {detail['ctx']['expected']}"
        case "value_error":
            return f"{place}: {detail['ctx']['error']}"
        case kind if kind.endswith(("_type", "_parsing")):
            return f"{place}: this must be {_TYPES.get(kind, detail['msg'].removeprefix('Input should be '))}"
        case _:
            return f"{place}: {detail['msg'][0].lower()}{detail['msg'][1:]}"


_TYPES = {
    "string_type": "a text",
    "int_type": "a whole number",
    "bool_type": "true or false",
    "list_type": "a list",
    "dict_type": "a mapping",
    "model_type": "a mapping",
    "model_attributes_type": "a mapping",
}
