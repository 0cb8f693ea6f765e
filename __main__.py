"""One stack file, one cluster: reads the settings, makes the component, exports what people want to see."""

import os
from pathlib import Path

import pulumi

from components import settings
from components.errors import Problem
from components.replication import EncryptedReplication, VaultAddress

stack = pulumi.get_stack()
config = pulumi.Config()
vault = pulumi.Config("vault")

try:
    cluster = settings.parse(f"stacks/Pulumi.{stack}.yaml", config.get("cluster") or "{}")
    address = vault.get("address") or os.environ.get("VAULT_ADDR", "")
    token = vault.get_secret("token")
    if not address:
        raise Problem("no Vault address: set vault:address in the stack file or VAULT_ADDR, or run `make vault` for the embedded one")
    if not token and not os.environ.get("VAULT_TOKEN") and not Path("~/.vault-token").expanduser().exists():
        raise Problem("no Vault token: set VAULT_TOKEN, or `pulumi config set --secret vault:token`")
    replication = EncryptedReplication(
        stack, cluster, VaultAddress(address.rstrip("/"), token, os.environ.get("VAULT_CACERT"))
    )
except (Problem, settings.Mistakes) as problem:
    raise pulumi.RunError(str(problem)) from None

pulumi.export("primary", replication.primary)
pulumi.export("standbys", replication.standbys)
pulumi.export("primaryDsn", replication.primary_dsn)
pulumi.export("standbyDsns", replication.standby_dsns)
pulumi.export("vault", replication.vault)
pulumi.export("encryption", replication.encryption)
pulumi.export("summary", replication.summary)
