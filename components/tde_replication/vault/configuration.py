"""The Vault that the configuration of the stack and the environment name, and which token may be sent there."""

import os

import pulumi
from pulumi.runtime import is_config_secret

from tde_replication.vault.address import VaultAddress
from tde_replication.vault.caller import FORMER_TOKEN
from tde_replication.vault.client import environment_token
from tde_replication.vault_url import address_mistake, same_address

BOTH = "pulumi config set --secret vault:address … && pulumi config set --secret vault:token …"


def configured(ca: str | None = None) -> VaultAddress:
    """From ``vault:address`` and ``vault:token`` of the stack file, else the environment, where none is `missing`. CA (but
    for the stack file's `ca`) and namespace are from the environment, as pulumi-vault takes them.

    Raises `UserError` where that Vault cannot be used now.
    """
    namespace = os.environ.get("VAULT_NAMESPACE", "").strip("/")
    # A slash at the end would double in the URLs that pg_tde makes.
    address = _configured_address().rstrip("/")
    token = pulumi.Config("vault").get_secret("token")
    found = VaultAddress(address, token, ca or os.environ.get("VAULT_CACERT"), namespace or None, own_token())
    found.client.health()
    return found


def own_token() -> str:
    """The stack's own token, for this program; empty where it has none."""
    return pulumi.Config("vault").get("token") or ""


def missing() -> list[str]:
    """Mistakes: what is set nowhere, and a token that would go where only the stack file says.

    Whoever may propose a stack file has its preview run with the environment's token, and with what is encrypted in the file:
    so neither goes to an address that stands there in clear, unless the environment names the same.
    """
    return [*_missing(), *_former_in_clear()]


def _former_in_clear() -> list[str]:
    key = f"tde-replication:{FORMER_TOKEN}"
    if not pulumi.Config("tde-replication").get(FORMER_TOKEN) or is_config_secret(key):
        return []
    return [f"{key}: the stack file has it in clear: `pulumi config set --secret {key}`"]


def _missing() -> list[str]:
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
    if not own_token():
        why = "and the environment's token goes to VAULT_ADDR alone"
        todo = f"Set VAULT_ADDR to it, or give the stack file a token of its own: `{BOTH}`"
        return [f"vault:address: only the stack file names {declared} ({named}), {why}: nothing was sent. {todo}"]
    if not is_config_secret("vault:address"):
        why = "in clear, so that whoever edits the file could have its vault:token sent elsewhere"
        todo = f"Set VAULT_ADDR to it, or encrypt both: `{BOTH}`"
        return [f"vault:address: only the stack file names {declared} ({named}), {why}: nothing was sent. {todo}"]
    return _missing_token()


def _missing_token() -> list[str]:
    if own_token():
        if is_config_secret("vault:token"):
            return []
        return ["vault:token: the stack file has it in clear: `pulumi config set --secret vault:token`"]
    if environment_token():
        return []
    return ["vault:token: missing; set VAULT_TOKEN, or `pulumi config set --secret vault:token`"]


def _configured_address() -> str:
    return pulumi.Config("vault").get("address") or os.environ.get("VAULT_ADDR") or ""
