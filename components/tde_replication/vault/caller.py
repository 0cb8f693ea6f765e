"""Who asks the Vault in the provider's process: the address is declared by each resource, the token never is."""

import os
import threading
from typing import ClassVar

from tde_replication.credentials import configured
from tde_replication.errors import UserError
from tde_replication.vault.client import Client, environment_token
from tde_replication.vault_url import same_address

FORMER_ADDRESS, FORMER_TOKEN = "formerVaultAddress", "formerVaultToken"
"""In the stack's configuration: the Vault that it moves from, and the token for that. At a refresh, Pulumi gives the
configuration of the last `up`, in which that Vault was the stack's own."""


class _Caller:
    told: ClassVar[bool] = False
    telling: ClassVar[threading.Lock] = threading.Lock()


def first_to_fail() -> bool:
    """Whether nobody in this process has told yet that the Vault cannot be asked."""
    with _Caller.telling:
        told, _Caller.told = _Caller.told, True
    return not told


def client_for(address: str, ca: str, namespace: str) -> Client:
    """Ask with the stack's own token at the `address` that a resource declares; else with the environment's, at VAULT_ADDR alone.
    Where the stack moves from another Vault, which `address` is, ask with the token for that one.

    Not at `vault:address`: resources are refreshed before the program has looked at that, and whoever proposes a stack file
    chooses it.
    """
    if (former := configured(FORMER_TOKEN)) and same_address(address, configured(FORMER_ADDRESS) or ""):
        return Client(address, former, ca or None, namespace or None)
    if own_token := configured("vault:token"):
        return Client(address, own_token, ca or None, namespace or None)
    own, token = os.environ.get("VAULT_ADDR"), environment_token()
    if not own or not token:
        unset = " and ".join(name for name, value in (("VAULT_ADDR", own), ("VAULT_TOKEN", token)) if not value)
        raise UserError(f"the Vault at {address} cannot be asked: set {unset} (`. ./env.sh` does for the embedded one)")
    trusted = ca if same_address(own, address) else os.environ.get("VAULT_CACERT")
    return Client(own, token, trusted or None, namespace or None)
