"""Whether a stack's Vault can be used now, asked before Pulumi is: refresh comes before the program, and would fail resource by
resource, each in words of its own."""

import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from tde_replication.allowed import allowed
from tde_replication.errors import Unavailable, UserError
from tde_replication.vault.client import Client, Denied, NotReady
from tde_replication.vault_url import address_mistake, same_address

GONE = "(where it is gone for good: docs/teardown.md)"
"""What a `destroy` that cannot use it is told besides."""
_SETTING = r"^\s+[\"']?vault:{name}[\"']?:[ \t]*[\"']?([^\s\"'#]*)"


def why_unusable(stack_file: Path, environ: Mapping[str, str]) -> str | None:
    """One sentence for people; None where nothing speaks against it, or only the program can tell."""
    text = stack_file.read_text() if stack_file.exists() else ""
    declared, token = _setting(text, "address"), _setting(text, "token")
    if declared == "":
        return None  # encrypted
    address = declared or environ.get("VAULT_ADDR")
    if not address:
        return f"{stack_file.name} names no vault:address, and VAULT_ADDR is not set: nothing was asked. Set it, and VAULT_TOKEN"
    if allowed(environ) is not None and not same_address(address, environ.get("VAULT_ADDR", "")):
        return None  # a stranger's file names it: not even its health is asked here
    own = None if token is not None else _own_token(environ)
    if token is None and not own:
        return f"there is no token for the Vault at {address}: set VAULT_TOKEN, or `pulumi config set --secret vault:token`"
    if address_mistake(address):
        return None  # told by the program, with the other mistakes
    return _why_not_asked(address, own, environ)


def _why_not_asked(address: str, own: str | None, environ: Mapping[str, str]) -> str | None:
    """`own` is the token of the environment, where that is what pulumi-vault would use."""
    namespace = environ.get("VAULT_NAMESPACE", "").strip("/")
    client = Client(address, ca=environ.get("VAULT_CACERT"), namespace=namespace or None)
    try:
        client.health()
        if own and same_address(address, environ.get("VAULT_ADDR", "")):  # the only one that it may be sent to
            replace(client, token=own).get("auth/token/lookup-self")
    except (Unavailable, NotReady) as problem:
        return str(problem)
    except Denied:
        return (
            f"the Vault at {address} does not let your token look itself up, as pulumi-vault does first: it has expired, is "
            "another Vault's, or its policies do not allow auth/token/lookup-self"
        )
    except UserError:
        pass  # the stack file may name the CA: the program knows, and says what is wrong
    return None


def _own_token(environ: Mapping[str, str]) -> str | None:
    if token := environ.get("VAULT_TOKEN"):
        return token
    with suppress(OSError):
        return Path(environ.get("HOME", "/"), ".vault-token").read_text().strip() or None
    return None


def _setting(text: str, name: str) -> str | None:
    """A plain value of the stack file; "" if it is encrypted, None if it is not set."""
    found = re.search(_SETTING.format(name=name), text, re.MULTILINE)
    if found is None:
        return None
    return "" if found[1].startswith("{") else str(found[1])
