"""A cluster for as long as somebody needs it: a stack in a directory of its own, by Pulumi's Automation API."""

import json
import os
import secrets
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from tde_replication.errors import UserError
from tde_replication.testing import directories, outputs, stack
from tde_replication.testing.keeper import kept

PROJECT = "tde-tests"


@dataclass(frozen=True)
class EncryptedCluster:
    """What a test needs to know. Connection strings are libpq's."""

    name: str
    """The stack's: its mount in Vault is called ``tde-`` and this."""
    primary_dsn: str = field(repr=False)
    """The superuser's, on the server's own machine."""
    standby_dsns: list[str] = field(repr=False)
    read_write_dsn: str
    """For clients: leads to the primary, whoever that is; user and password are the client's own."""
    read_only_dsn: str
    """The same, which leads to a standby where there is one."""
    encryption: Mapping[str, Any]
    """mode, inForce; provider and key, or the reason why it is not in force."""
    vault: Mapping[str, str]
    """address, mount."""
    summary: str


@contextmanager
def cluster(*, standbys: int = 1, docker: str | None = None, **settings: Any) -> Iterator[EncryptedCluster]:
    """Make one, and destroy it whatever happens.

    `standbys` and `docker` (an image; default: processes of this machine) say which servers there are, unless `servers` is among
    the `settings`, which have the keys of a stack file. Raises `UserError` with what Pulumi says is wrong.
    """
    if not os.environ.get("VAULT_ADDR"):
        raise UserError("a test cluster needs a Vault: set VAULT_ADDR and VAULT_TOKEN (docs/testing.md)")
    servers: dict[str, Any] = dict(settings.pop("servers", {f"db{number + 1}": {} for number in range(standbys + 1)}))
    if docker:
        servers = {name: {"host": {"docker": docker}, **server} for name, server in servers.items()}
    local = [name for name, server in servers.items() if server.get("host", "local") == "local"]
    with (
        directories.new() as (place, lock),
        directories.ports(len(local)) as ports,
        kept(place, lock, stack.package()),
    ):
        for name, port in zip(local, ports, strict=True):
            data = str(place / "servers" / name / "data")
            servers[name] = {"port": port, "dataDirectory": data, **servers[name]}
        try:
            _declare(place, {"primary": next(iter(servers)), **settings, "disposable": True, "servers": servers})
            yield _up(place)
        finally:
            stack.destroy(place)


def _declare(place: Path, cluster: Mapping[str, Any]) -> None:
    options = {} if sys.prefix == sys.base_prefix else {"virtualenv": sys.prefix}
    project = {"name": PROJECT, "runtime": {"name": "python", "options": options}, "options": {"refresh": "always"}}
    _private(place / "passphrase").write_text(secrets.token_urlsafe(32))
    (place / "state").mkdir(mode=0o700)
    (place / "__main__.py").write_text("from tde_replication.testing.program import main\n\nmain()\n")
    (place / "Pulumi.yaml").write_text(yaml.safe_dump(project))
    settings = {"config": {f"{PROJECT}:cluster": dict(cluster)}}
    _private(place / f"Pulumi.{place.name}.yaml").write_text(yaml.safe_dump(settings))


def _private(file: Path) -> Path:
    file.touch(mode=0o600, exist_ok=False)
    return file


def _up(place: Path) -> EncryptedCluster:
    stack.pulumi(place, "stack", "init", place.name)
    stack.pulumi(place, "up", "--yes", "--skip-preview")
    return EncryptedCluster(place.name, **json.loads((place / outputs.FILE).read_text()))
