"""The Vault server as this program and the servers reach it, and what this program asks it."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tde_replication.errors import Unavailable, UserError
from tde_replication.unasked import could_not_ask
from tde_replication.vault.client import Client, Rejected, environment_token

if TYPE_CHECKING:
    from pulumi import Output

CREDENTIALS = "replication"
"""Where in a mount the role's credentials are, apart from keys."""


@dataclass(frozen=True)
class VaultAddress:
    """How the Vault is reached, by this program and by the servers."""

    address: str
    token: "Output[str] | None"
    """None where pulumi-vault takes it from VAULT_TOKEN or ~/.vault-token, so that no state holds it."""
    ca: str | None
    namespace: str | None = None
    """The namespace that all paths are in; None: the root's."""
    own_token: str = field(default="", repr=False)
    """What this program itself asks with; empty: the environment's token."""

    @property
    def client(self) -> Client:
        return Client(self.address, self.own_token or environment_token(), self.ca, self.namespace)

    def lacks(self, mount: str) -> bool:
        """Whether there is no `mount`; not where the Vault does not answer."""
        try:
            return self.mount(mount) is None
        except UserError as why:
            could_not_ask(f"whether the Vault has {mount}", why)
            return False

    def mount(self, path: str) -> dict[str, object] | None:
        """What Vault says of a mount; None where no mount has that path."""
        try:
            return self.client.get(f"sys/mounts/{path}")
        except Rejected:  # "No secret engine mount at": Vault says 400
            return None

    def made_for(self, mount: str, name: str) -> bool:
        """Whether `mount` was made by the stack of that name."""
        found = self.mount(mount) or {}
        options = found.get("options")
        version = options.get("version") if isinstance(options, dict) else None
        return (found.get("type"), found.get("description"), version) == ("kv", description(name), "2")

    def is_left(self, mount: str, name: str, *, with_keys: bool) -> bool:
        """Whether `mount` was made by the stack of that name: Vault would refuse to make it again. One without keys is of a run
        that was killed before Pulumi's state knew of it; one `with_keys`, the stack has kept when it moved to another."""
        try:
            return self.made_for(mount, name) and (with_keys or set(self.names(mount)) <= {f"{CREDENTIALS}/"})
        except Unavailable as why:
            could_not_ask(f"whether an earlier `up` has left {mount}", why)
            return False

    def names(self, mount: str) -> list[str]:
        """What is at the top of a mount: keys, and directories with a slash at their end."""
        held = self.client.get(f"{mount}/metadata?list=true") or {}
        names = held.get("keys")
        return [str(name) for name in names] if isinstance(names, list) else []


def description(name: str) -> str:
    """What the mount of a stack's own is described as."""
    return f"principal keys and credentials of {name}"
