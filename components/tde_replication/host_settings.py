"""A server's `host` in the stack file: one model for each kind of machine, and the base of all models of the stack file."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Discriminator, Field, StringConstraints, Tag
from pydantic.alias_generators import to_camel

from tde_replication.later import Later, is_output, known
from tde_replication.values import AccountName, FilePath, Hop, HostKeys, Machine, Packages, Port

SSH_PORT = 22
SUPPORTED = 17
"""The oldest major version of PostgreSQL that pg_tde and this project support."""


class Settings(BaseModel):
    model_config = ConfigDict(
        alias_generator=to_camel,
        validate_by_name=True,  # in a program; a stack file has the aliases alone
        frozen=True,
        extra="forbid",
        hide_input_in_errors=True,
        strict=True,
    )


def _one_or_more(value: Any) -> Any:
    return [value] if isinstance(value, str) or is_output(value) else value


class Ssh(Settings):
    """A machine reached by OpenSSH. What is left out is as the user's own ssh configuration and agent have it."""

    ssh: Later[Machine]
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
    host_keys: Annotated[list[Later[HostKeys]], BeforeValidator(_one_or_more)] = []
    """The machine's public keys, as ``ssh-ed25519 AAAA…``: it must show one of them, and known_hosts is not asked. A line that
    begins with names, as ssh-keyscan writes it, stands beside those of known_hosts: for a machine on the way."""
    jump: Annotated[list[Later[Hop]], BeforeValidator(_one_or_more)] = []
    """A machine to go through, or several, nearest first."""
    system: Literal["debian", "redhat"] = "debian"
    """Whose layout of files and packages it has: Debian's and Ubuntu's, or that of Red Hat and its kin."""
    version: Annotated[int, Field(ge=SUPPORTED)] = 18
    """The major version of PostgreSQL."""
    packages: Packages = "percona"
    """Where the server comes from: ``percona``, whose repository is set up by the stack; ``none``, it is installed already; or a
    directory of .deb or .rpm files, counted from the project, which are copied there and installed."""
    unit: Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9:_.@\\-]+$")] | None = None
    """The systemd unit that runs the server, where there is one: ``postgresql@18-main``; else the stack makes its own."""

    @property
    def machine(self) -> str:
        """What `ssh` says, once it is known; so are the next two."""
        return known(self.ssh)

    @property
    def hops(self) -> tuple[str, ...]:
        return tuple(map(known, self.jump))

    @property
    def own_keys(self) -> tuple[str, ...]:
        """One line each."""
        return tuple(line for text in self.host_keys for line in known(text).splitlines())


class Docker(Settings):
    """A container by the dockerd that DOCKER_HOST names, or this machine's."""

    docker: Annotated[str, StringConstraints(pattern=r"^[a-z0-9][A-Za-z0-9._/:@-]*$")]
    """Its image; one that is not there is pulled."""


MODELS: tuple[type[Settings], ...] = (Ssh, Docker)
"""Of each kind but this machine; the field that a kind is known by has its name."""
KINDS = ("local", *(model.__name__.lower() for model in MODELS))


def _kind_of_host(value: Any) -> str | None:
    """Which model a `host` is meant as, so that a mistake in it is told once."""
    if value == "local":
        return "local"
    if isinstance(value, dict):
        return next((kind for kind in KINDS if kind in value and kind != "local"), None)
    return type(value).__name__.lower() if isinstance(value, MODELS) else None


HostKind = Annotated[
    Annotated[Literal["local"], Tag("local")] | Annotated[Ssh, Tag("ssh")] | Annotated[Docker, Tag("docker")],
    Discriminator(
        _kind_of_host,
        custom_error_type="kind_of_host",
        custom_error_message="This must be local, or a mapping such as {ssh: db1.example.net} or {docker: IMAGE}",
    ),
]
