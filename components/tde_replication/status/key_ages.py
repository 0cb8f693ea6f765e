"""How old the principal keys are that servers use: Vault is asked, by their names."""

from collections.abc import Sequence
from datetime import datetime

from pydantic import TypeAdapter, ValidationError

from tde_replication.errors import UserError
from tde_replication.status.declared import Declared
from tde_replication.status.model import Server
from tde_replication.values import VaultPath
from tde_replication.vault.client import Client
from tde_replication.vault.key_age import made_at

PATH: TypeAdapter[str] = TypeAdapter(VaultPath)


def with_ages(declared: Declared, servers: Sequence[Server]) -> list[Server]:
    """The servers, with the age of each key that Vault tells; none where it may not be asked now."""
    if declared.vault is None:
        return list(servers)
    client, mount = declared.vault.client, declared.cluster.vault.mount or f"tde-{declared.stack}"
    names = {key.name for server in servers if server.encryption for key in server.encryption.keys}
    made = {name: _made(client, mount, name) for name in names}
    return [_with(server, made) for server in servers]


def _with(server: Server, made: dict[str, datetime | None]) -> Server:
    if not server.encryption:
        return server
    keys = tuple(key.model_copy(update={"made": made[key.name]}) for key in server.encryption.keys)
    return server.model_copy(update={"encryption": server.encryption.model_copy(update={"keys": keys})})


def _made(client: Client, mount: str, name: str) -> datetime | None:
    try:
        return made_at(client, mount, PATH.validate_python(name))  # the name is a server's word
    except (UserError, ValidationError):
        return None
