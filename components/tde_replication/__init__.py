"""A PostgreSQL primary and its streaming standbys, encrypted by pg_tde, as one Pulumi component.

>>> from tde_replication import Cluster, EncryptedReplication, Server
>>> EncryptedReplication("orders", Cluster(primary="db1", servers={"db1": Server(), "db2": Server()}))
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tde_replication.errors import UserError
    from tde_replication.host_settings import Docker, Ssh
    from tde_replication.replication import EncryptedReplication
    from tde_replication.replication_settings import Replication, Synchronous
    from tde_replication.settings import Cluster, Server
    from tde_replication.vault_settings import Key, Vault

_MODULES = {
    "Docker": "host_settings",
    "EncryptedReplication": "replication",
    "Key": "vault_settings",
    "Ssh": "host_settings",
    "UserError": "errors",
    "Vault": "vault_settings",
}

__all__ = [
    "Cluster",
    "Docker",
    "EncryptedReplication",
    "Key",
    "Replication",
    "Server",
    "Ssh",
    "Synchronous",
    "UserError",
    "Vault",
]


def __getattr__(name: str) -> Any:
    """On first use: a provider's process needs neither the component nor pulumi-docker and pulumi-vault, which cost most."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES.get(name, 'settings')}"), name)
