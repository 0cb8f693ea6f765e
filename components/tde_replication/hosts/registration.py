"""What is registered of servers' places, whatever their kind of host. Each kind that makes something has a `registration`."""

from collections.abc import Callable
from dataclasses import dataclass

from pulumi import CustomResource, Resource, ResourceOptions

from tde_replication.hosts.placement import TokenRenewal


@dataclass(frozen=True)
class Place:
    """What was registered of one server's place."""

    resources: tuple[Resource, ...] = ()
    """Nothing is put there before these."""
    container: CustomResource | None = None
    """One of them, where the server is its main process."""
    renew: Callable[[TokenRenewal, ResourceOptions], Resource] | None = None
    """Registers what renews the server's Vault token there; None where nothing can."""
