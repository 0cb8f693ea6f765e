"""Whether a stack's Vault can be used now, asked before Pulumi is: refresh comes before the program, and would fail resource by
resource, each in words of its own."""

import re
from collections.abc import Mapping
from pathlib import Path

from tde_replication.errors import Unavailable, UserError
from tde_replication.vault.client import Client, NotReady
from tde_replication.vault_url import address_mistake

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
    own = Path(environ.get("HOME", "/")) / ".vault-token"
    if token is None and not environ.get("VAULT_TOKEN") and not own.exists():
        return f"there is no token for the Vault at {address}: set VAULT_TOKEN, or `pulumi config set --secret vault:token`"
    if address_mistake(address):
        return None  # told by the program, with the other mistakes
    try:
        Client(address, ca=environ.get("VAULT_CACERT")).health()
    except (Unavailable, NotReady) as problem:
        return str(problem)
    except UserError:
        pass  # the stack file may name the CA: the program knows, and says what is wrong
    return None


def _setting(text: str, name: str) -> str | None:
    """A plain value of the stack file; "" if it is encrypted, None if it is not set."""
    found = re.search(_SETTING.format(name=name), text, re.MULTILINE)
    if found is None:
        return None
    return "" if found[1].startswith("{") else str(found[1])
