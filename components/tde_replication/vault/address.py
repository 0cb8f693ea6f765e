"""The Vault server as this program and the servers reach it, and which token may be sent there."""

import os
from dataclasses import dataclass
from typing import Self

import pulumi
from pulumi import Output
from pulumi.runtime import is_config_secret

from tde_replication.errors import Unavailable, UserError
from tde_replication.unasked import could_not_ask
from tde_replication.vault.client import Client, Rejected, environment_token
from tde_replication.vault_url import address_mistake, same_address

CREDENTIALS = "replication"
"""Where in a mount the role's credentials are, apart from keys."""
BOTH = "pulumi config set --secret vault:address … && pulumi config set --secret vault:token …"


@dataclass(frozen=True)
class VaultAddress:
    """How the Vault is reached, by this program and by the servers."""

    address: str
    token: Output[str] | None
    """None where pulumi-vault takes it from VAULT_TOKEN or ~/.vault-token, so that no state holds it."""
    ca: str | None
    namespace: str | None = None
    """The namespace that all paths are in; None: the root's."""

    @classmethod
    def configured(cls, ca: str | None = None) -> Self:
        """From ``vault:address`` and ``vault:token`` of the stack file, else the environment, where none is `missing`. CA (but
        for the stack file's `ca`) and namespace are from the environment, as pulumi-vault takes them.

        Raises `UserError` where that Vault cannot be used now.
        """
        token = pulumi.Config("vault").get_secret("token")
        namespace = os.environ.get("VAULT_NAMESPACE", "").strip("/")
        # A slash at the end would double in the URLs that pg_tde makes.
        address = _configured_address().rstrip("/")
        found = cls(address, token, ca or os.environ.get("VAULT_CACERT"), namespace or None)
        found.client.health()
        return found

    @staticmethod
    def missing() -> list[str]:
        """Mistakes: what is set nowhere, and a token that would go where only the stack file says.

        Whoever may propose a stack file has its preview run with the environment's token, and with what is encrypted in the file:
        so neither goes to an address that stands there in clear, unless the environment names the same.
        """
        declared, own = pulumi.Config("vault").get("address"), os.environ.get("VAULT_ADDR", "")
        address = declared or own
        if not address:
            return [
                "vault:address: missing; set it in the stack file, or VAULT_ADDR; `make vault` starts the embedded one",
                *_missing_token(),
            ]
        if mistake := address_mistake(address):
            return [f"vault:address: {mistake}"]
        if not declared or same_address(declared, own):
            return _missing_token()
        named = f"VAULT_ADDR is {own}" if own else "VAULT_ADDR is not set"
        if not pulumi.Config("vault").get("token"):
            why = "and the environment's token goes to VAULT_ADDR alone"
            todo = f"Set VAULT_ADDR to it, or give the stack file a token of its own: `{BOTH}`"
            return [f"vault:address: only the stack file names {declared} ({named}), {why}: nothing was sent. {todo}"]
        if not is_config_secret("vault:address"):
            why = "in clear, so that whoever edits the file could have its vault:token sent elsewhere"
            todo = f"Set VAULT_ADDR to it, or encrypt both: `{BOTH}`"
            return [f"vault:address: only the stack file names {declared} ({named}), {why}: nothing was sent. {todo}"]
        return _missing_token()

    @property
    def client(self) -> Client:
        token = pulumi.Config("vault").get("token") or environment_token()
        return Client(self.address, token, self.ca, self.namespace)

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

    def left_by_a_killed_run(self, mount: str, name: str) -> bool:
        """Whether `mount` was made by the stack of that name and holds no key: a run that made it was killed before Pulumi's
        state knew of it. Vault would refuse to make it again."""
        try:
            return self.made_for(mount, name) and set(self.names(mount)) <= {f"{CREDENTIALS}/"}
        except Unavailable as why:
            could_not_ask(f"whether a killed `up` has left {mount}", why)
            return False

    def names(self, mount: str) -> list[str]:
        """What is at the top of a mount: keys, and directories with a slash at their end."""
        held = self.client.get(f"{mount}/metadata?list=true") or {}
        names = held.get("keys")
        return [str(name) for name in names] if isinstance(names, list) else []


def _missing_token() -> list[str]:
    if pulumi.Config("vault").get("token"):
        if is_config_secret("vault:token"):
            return []
        return ["vault:token: the stack file has it in clear: `pulumi config set --secret vault:token`"]
    if environment_token():
        return []
    return ["vault:token: missing; set VAULT_TOKEN, or `pulumi config set --secret vault:token`"]


def _configured_address() -> str:
    return pulumi.Config("vault").get("address") or os.environ.get("VAULT_ADDR") or ""


def description(name: str) -> str:
    """What the mount of a stack's own is described as."""
    return f"principal keys and credentials of {name}"
